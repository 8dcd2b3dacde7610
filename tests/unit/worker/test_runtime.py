import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import text

from worker import runtime
from worker.addresses import NoStack
from worker.roles import ROLES
from worker.runtime import make_runtime, task_runtime
from worker.settings import Settings, load


@pytest.fixture
def of_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process whose tasks have not begun to work."""
    made: dict[int, runtime.Runtime] = {}
    monkeypatch.setattr(runtime, "_of_process", made)
    yield
    for each in made.values():
        each.close()


def test_everything_is_wired_to_the_same_servers_and_folders(configured: Settings, workdir: Path) -> None:
    made = make_runtime(configured, role=ROLES["control"])
    try:
        with made.engine.connect() as connection:
            assert connection.execute(text("SHOW application_name")).scalar_one() == "moe control"
            assert connection.execute(text("SELECT count(*) FROM run")).scalar_one() == 0
        assert configured.redis_url is not None
        assert made.redis_url == made.app.conf.broker_url == configured.redis_url.get_secret_value()
        assert made.dispatcher._app is made.app
        assert list(made.app.conf.include) == list(ROLES["control"].include)
        made.store.put_file("a/b.txt", [b"x"])
        assert (workdir / "home" / "artefacts" / "a" / "b.txt").read_bytes() == b"x"
    finally:
        made.close()


def test_a_client_says_so_to_the_database(configured: Settings) -> None:
    made = make_runtime(configured)
    try:
        with made.engine.connect() as connection:
            assert connection.execute(text("SHOW application_name")).scalar_one() == "moe client"
    finally:
        made.close()


def test_a_given_application_is_used(configured: Settings, app: Celery) -> None:
    made = make_runtime(configured, app)
    try:
        assert made.app is app
    finally:
        made.engine.dispose()


def test_without_servers_there_is_no_runtime(workdir: Path) -> None:
    with pytest.raises(NoStack):
        make_runtime(load(home=workdir))


@pytest.fixture
def environment(configured: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings where a worker's child reads them."""
    assert configured.database_url is not None
    assert configured.redis_url is not None
    monkeypatch.setenv("MOE_DATABASE_URL", configured.database_url.get_secret_value())
    monkeypatch.setenv("MOE_REDIS_URL", configured.redis_url.get_secret_value())


@pytest.mark.usefixtures("environment", "of_nobody")
def test_all_tasks_of_a_process_share_one_runtime(app: Celery) -> None:
    first = task_runtime(app)
    assert first.app is app
    assert task_runtime(app) is first


@pytest.mark.usefixtures("environment", "of_nobody")
def test_a_forked_child_makes_its_own(app: Celery) -> None:
    """A connection that two processes talk through would mix their transactions."""
    parents = task_runtime(app)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # no test runs on in here
        try:
            own = task_runtime(app)
            verdict = "own" if own is not parents and own.engine is not parents.engine else "shared"
            os.write(writing, verdict.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "own"
    assert task_runtime(app) is parents
