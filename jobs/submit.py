"""Submitting a batch: check, store, send."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection

from experts.kinds import COMBINERS, check
from jobs.errors import BadInput
from jobs.reading.batches import Line, open_batch
from jobs.reading.requests import LineRules
from jobs.reading.sources import STDIN, as_text, format_of, open_file
from storage import catalogue, versions
from storage.database import transact
from storage.submitting import RunOptions, SubmittedRun, submit
from worker.runtime import Runtime


class Priority(StrEnum):
    """Share of the workers against other runs; `interactive` also goes before them in every queue."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    INTERACTIVE = "interactive"

    @property
    def weight(self) -> int:
        """As stored."""
        return {"low": 1, "normal": 2, "high": 4, "interactive": 8}[self.value]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """What a person may say about a batch; None takes the setting."""

    form: str | None = None
    name: str | None = None
    top_k: int | None = None
    strategy: str | None = None
    priority: Priority = Priority.NORMAL
    deadline: datetime | None = None
    idempotency_key: str | None = None
    kind: str = "batch"


_MAX_NAME = 200
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_deadline(text: str, *, now: datetime | None = None) -> datetime:
    """``90m``, ``2h`` from now, or a time such as ``2026-12-01T18:00+01:00`` (without a zone: UTC). Raises BadInput."""
    now = now or datetime.now(UTC)
    seconds = duration_s(text)
    if seconds is not None:
        try:
            return now + timedelta(seconds=seconds)
        except OverflowError:
            raise BadInput(f"deadline {text!r} lies beyond the calendar") from None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(f"deadline {text!r} is neither a duration (90s, 30m, 2h, 1d) nor an ISO time") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= now:
        raise BadInput(f"deadline {text!r} has passed already")
    return moment


def duration_s(text: str) -> float | None:
    """Seconds of ``90s``, ``30m``, ``2h``, ``1d``; None for anything else."""
    found = _DURATION.fullmatch(text.strip())
    return None if found is None else float(found[1]) * _UNIT_S[found[2]]


def submit_batch(runtime: Runtime, path: str, options: BatchOptions) -> SubmittedRun:
    """Store the batch at ``path`` and start it. Raises BadInput, and then nothing is stored.

    Redis may be away: the run is stored all the same, and starts when the sweeper finds it.
    """
    stored = run_options(runtime, path, options)
    rules = line_rules(runtime)
    form = format_of(path, options.form)

    def store(connection: Connection) -> SubmittedRun:
        with open_batch(path, form, rules, runtime.settings.input) as lines:
            return submit(connection, stored, lines)

    # Read once: what comes through a pipe cannot be read again after a broken connection.
    with runtime.engine.begin() as connection:
        run = store(connection)
    runtime.dispatcher.send(run.hints)
    return run


def submit_lines(runtime: Runtime, lines: Iterable[Line], options: BatchOptions) -> SubmittedRun:
    """The same for lines that are at hand, such as a single question."""
    stored = run_options(runtime, None, options)
    kept = list(lines)
    run = transact(runtime.engine, lambda c: submit(c, stored, kept))
    runtime.dispatcher.send(run.hints)
    return run


def line_rules(runtime: Runtime) -> LineRules:
    """What lines may ask for now. Raises BadInput while no expert serves."""
    names = transact(runtime.engine, lambda c: catalogue.names(c, serving=True))
    if not names or transact(runtime.engine, versions.live_router) is None:
        raise BadInput("no expert serves yet; load a catalogue with `moe experts load DIR`")
    return LineRules(frozenset(names), ", ".join(names), runtime.settings.input.max_custom_id_chars)


def run_options(runtime: Runtime, path: str | None, options: BatchOptions) -> RunOptions:
    """The options as stored, checked. Raises BadInput and UnknownKind."""
    strategy = options.strategy or runtime.settings.strategy
    check("strategy", COMBINERS, strategy)
    top_k = options.top_k or runtime.settings.top_k
    name = options.name
    if name is not None and (not name.strip() or len(name) > _MAX_NAME or not name.isprintable()):
        raise BadInput(f"name must be 1 to {_MAX_NAME} printable characters")
    key = options.idempotency_key
    if options.kind == "preview":
        key = None  # a dry run stands for nothing that could be submitted twice
    if key is not None and not (0 < len(key) <= _MAX_NAME and key.isprintable()):
        raise BadInput(f"idempotency key must be 1 to {_MAX_NAME} printable characters")
    return RunOptions(
        kind=options.kind,
        name=name,
        top_k=top_k,
        strategy=strategy,
        priority=options.priority.weight,
        deadline=options.deadline,
        source=None if path is None else as_text(path),
        idempotency_key=key,
        request_hash=_request_hash(path, top_k, strategy, options) if key else None,
    )


def _request_hash(path: str | None, top_k: int, strategy: str, options: BatchOptions) -> str:
    """Of the file's bytes and of what was said about them. Not of the deadline: `2h` is another moment each time."""
    if path is None or path == STDIN:
        raise BadInput("an idempotency key needs a file; what comes through a pipe cannot be compared")
    about = [top_k, strategy, options.form, options.name, options.priority]
    digest = hashlib.sha256(json.dumps(about).encode())
    with open_file(path, again=True) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
