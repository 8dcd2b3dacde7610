"""The command ``moe``, run in this process with its streams caught."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from jobs.cli import session
from jobs.cli.main import main
from worker.runtime import Runtime


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        assert self.code == 0, self.err
        return json.loads(self.out)


class Moe:
    """Runs commands. An error that the program does not expect is raised here, and fails the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, stdin: bytes | None = b"", code: int | None = None) -> Said:
        forget()
        self._monkeypatch.setattr(sys, "argv", ["moe", *arguments])
        self._monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        ended: int | str | None = 0
        with CliRunner().isolation() as (out, err, _):
            if stdin is None:
                sys.stdin = None  # as Python has it where the descriptor is closed
            else:
                sys.stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)))
            try:
                main()
            except SystemExit as exit_:
                ended = exit_.code
            sys.stdout.flush()
            sys.stderr.flush()
            said = Said(int(ended or 0), out.getvalue(), err.getvalue().decode())
        if code is not None:
            assert said.code == code, said
        return said


def forget() -> None:
    """What a command keeps for its own time."""
    if session.runtime.cache_info().currsize:
        session.runtime().close()
    session.runtime.cache_clear()
    session.settings.cache_clear()


@contextmanager
def own_logging() -> Iterator[None]:
    """What a command does to logging goes with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def moe(bare_client: Runtime, jobs_database: str, jobs_redis: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moe]:
    """The command on a stack without workers; ask for ``client`` too where experts shall serve."""
    monkeypatch.setenv("MOE_HOME", str(bare_client.settings.home))
    monkeypatch.setenv("MOE_DATABASE_URL", jobs_database)
    monkeypatch.setenv("MOE_REDIS_URL", jobs_redis)
    with own_logging():
        yield Moe(monkeypatch)
        forget()
