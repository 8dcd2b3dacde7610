"""Fixtures of all tests: real servers, fresh databases."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from storage.database import connect
from tests.support.servers import (
    Backends,
    drop_database,
    fresh_database,
    fresh_redis,
    open_folder,
    start_servers,
    stop_servers,
)
from worker.embedded.servers import Servers

# As in a worker; several test processes share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """One PostgreSQL and one Redis for the whole test run."""
    with open_folder() as folder:
        started = start_servers(folder)
        yield started
        stop_servers(started)


@pytest.fixture
def backends(servers: Servers) -> Iterator[Backends]:
    """A fresh database and an emptied Redis."""
    address = fresh_database(servers)
    yield Backends(address, fresh_redis(servers), servers)
    drop_database(servers, address)


@pytest.fixture
def engine(backends: Backends) -> Iterator[Engine]:
    """An engine on a fresh database."""
    made = connect(backends.database_url, application="moe test")
    yield made
    made.dispose()


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without any configuration of the developer's."""
    monkeypatch.chdir(tmp_path)
    for name in ("MOE_CONFIG", "MOE_HOME", "MOE_DATABASE_URL", "MOE_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
