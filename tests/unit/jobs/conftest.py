"""A client without workers: real servers, small experts, nothing that consumes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, text

from jobs.reading.batches import Line, open_batch
from storage.database import connect, transact
from tests.support.experts import serve
from tests.support.servers import drop_database, fresh_database, fresh_redis
from tests.unit.jobs.lines import RULES
from worker.app import create_app
from worker.embedded.servers import Servers
from worker.runtime import Runtime, make_runtime
from worker.settings import Input, load

Read = Callable[..., list[Line]]


def no_waiting_for_disks(address: str) -> None:
    """Nothing in this database survives the test run, so no commit has to wait for the disk."""
    engine = connect(address)
    with engine.begin() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    engine.dispose()


@pytest.fixture(scope="session")
def jobs_database(servers: Servers) -> Iterator[str]:
    """The address of a database that the tests of jobs share."""
    address = fresh_database(servers)
    no_waiting_for_disks(address)
    yield address
    drop_database(servers, address)


@pytest.fixture(scope="session")
def jobs_redis(servers: Servers) -> str:
    return fresh_redis(servers)


@pytest.fixture(scope="session")
def jobs_app(jobs_redis: str) -> Iterator[Celery]:
    """One sender for all tests; it keeps its connection."""
    app = create_app(load(), jobs_redis)
    yield app
    app.close()


@pytest.fixture(scope="session")
def jobs_engine(jobs_database: str) -> Iterator[Engine]:
    made = connect(jobs_database, application="moe jobs tests")
    yield made
    made.dispose()


@pytest.fixture
def engine(jobs_engine: Engine) -> Engine:
    """An engine on a database without rows."""
    with jobs_engine.begin() as connection:
        for table in ("run", "job", "expert", "router_version", "router_alert", "schedule"):  # all others go with these
            connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text("DELETE FROM exemplar"))
    return jobs_engine


@pytest.fixture
def bare_client(
    engine: Engine, jobs_database: str, jobs_redis: str, jobs_app: Celery, workdir: Path
) -> Iterator[Runtime]:
    """A client of a stack without experts."""
    settings = load(home=workdir / "home", database_url=jobs_database, redis_url=jobs_redis)
    made = make_runtime(settings, jobs_app)
    yield made
    made.engine.dispose()


@pytest.fixture
def client(bare_client: Runtime) -> Runtime:
    """A client of a stack that serves three experts; no worker runs."""
    transact(bare_client.engine, lambda c: serve(c, bare_client.settings.home))
    return bare_client


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads bytes as a batch of the given format; keywords are limits."""

    def read(data: bytes, form: str = "jsonl", **limits: Any) -> list[Line]:
        path = tmp_path / "batch"
        path.write_bytes(data)
        with open_batch(str(path), form, RULES, Input(**limits)) as lines:
            return list(lines)

    return read
