"""Connections, and which failures are tried again."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from storage.database import connect, database_url, is_transient, transact
from storage.errors import StorageError, StorageUnavailable
from storage.leases import LeaseLost
from tests.unit.storage.builders import Store


@pytest.mark.parametrize(
    "address",
    ["postgresql://u:p@h:1/d?x=y", "postgresql+psycopg://u:p@h:1/d?x=y", "postgresql+asyncpg://u:p@h:1/d?x=y"],
)
def test_every_address_of_postgres_gets_our_driver(address: str) -> None:
    url = database_url(address)

    assert url.render_as_string(hide_password=False) == "postgresql+psycopg://u:p@h:1/d?x=y"


@pytest.mark.parametrize("address", ["sqlite:///x.db", "mysql://h/d", "redis://h/0"])
def test_an_address_of_anything_else_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=f"must start with postgresql://, not {address.split(':')[0]}://"):
        database_url(address)


def test_a_connection_says_who_it_is_and_waits_for_nothing_without_end(store: Store) -> None:
    settings = ("application_name", "lock_timeout", "idle_in_transaction_session_timeout", "TimeZone")

    assert [store.value(f"SHOW {name}") for name in settings] == ["moe storage tests", "30s", "2min", "UTC"]


def test_errors_show_no_parameters(store: Store) -> None:
    with pytest.raises(ProgrammingError) as refused:
        store.sql("SELECT :secret FROM nowhere", secret="canary")

    assert "canary" not in str(refused.value)


# --- which errors are transient -------------------------------------------------------------------------------


def failure(store: Store, statement: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as failed:
        store.sql(statement)
    return failed.value


def raising(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '{sqlstate}'; END $$"


@pytest.mark.parametrize(
    ("sqlstate", "transient"),
    [
        ("08006", True),  # connection_failure
        ("40001", True),  # serialization_failure
        ("40P01", True),  # deadlock_detected
        ("53100", True),  # disk_full
        ("53300", True),  # too_many_connections
        ("55P03", True),  # lock_not_available
        ("57P01", True),  # admin_shutdown
        ("57P03", True),  # cannot_connect_now
        ("57014", False),  # query_canceled
        ("55006", False),  # object_in_use
        ("23505", False),  # unique_violation
        ("22P05", False),  # untranslatable_character
        ("42P01", False),  # undefined_table
        ("XX000", False),  # internal_error
    ],
)
def test_the_state_of_an_error_says_whether_it_may_pass(store: Store, sqlstate: str, transient: bool) -> None:
    assert is_transient(failure(store, raising(sqlstate))) is transient


def test_a_server_that_is_not_there_may_come_back(tmp_path: Path) -> None:
    nobody = connect(f"postgresql://u@/d?host={tmp_path}")
    with pytest.raises(DBAPIError) as failed:
        nobody.connect()

    assert is_transient(failed.value) is True


# --- trying again ---------------------------------------------------------------------------------------------


class Failing:
    """Work that fails the first times and counts how often it was begun."""

    def __init__(self, times: int, fail: Callable[[Connection], Any]) -> None:
        self.times = times
        self.fail = fail
        self.tries = 0

    def __call__(self, connection: Connection) -> str:
        self.tries += 1
        connection.execute(text("INSERT INTO expert (name) VALUES (:name)"), {"name": f"try_{self.tries}"})
        if self.tries <= self.times:
            self.fail(connection)
        return "done"


def plant(sqlstate: str) -> Callable[[Connection], Any]:
    return lambda connection: connection.exec_driver_sql(raising(sqlstate))


def test_work_that_succeeds_is_done_once_and_committed(store: Store) -> None:
    work = Failing(0, plant("40001"))

    assert transact(store.engine, work) == "done"
    assert work.tries == 1
    assert store.values("SELECT name FROM expert") == ["try_1"]


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53300", "57P01"])
def test_work_that_met_a_passing_failure_starts_again_from_nothing(store: Store, sqlstate: str) -> None:
    work = Failing(2, plant(sqlstate))

    assert transact(store.engine, work) == "done"
    assert work.tries == 3
    assert store.values("SELECT name FROM expert") == ["try_3"]


def test_a_connection_that_was_cut_is_replaced(store: Store) -> None:
    def cut(connection: Connection) -> None:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        store.sql("SELECT pg_terminate_backend(:pid, 5000)", pid=backend)
        connection.execute(text("SELECT 1"))

    work = Failing(1, cut)

    assert transact(store.engine, work) == "done"
    assert store.values("SELECT name FROM expert") == ["try_2"]


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (plant("23505"), IntegrityError),
        (plant("42P01"), ProgrammingError),
        (lambda connection: connection.execute(text("SELECT * FROM nowhere")), ProgrammingError),
    ],
)
def test_a_mistake_of_ours_is_raised_at_once(store: Store, fail: Callable[[Connection], Any], error: Any) -> None:
    work = Failing(1, fail)

    with pytest.raises(error):
        transact(store.engine, work)

    assert work.tries == 1
    assert store.values("SELECT name FROM expert") == []


def test_an_error_of_the_work_itself_rolls_back_and_is_raised(store: Store) -> None:
    def lose(connection: Connection) -> None:
        raise LeaseLost("somebody else")

    work = Failing(1, lose)

    with pytest.raises(LeaseLost, match="somebody else"):
        transact(store.engine, work)

    assert work.tries == 1
    assert store.values("SELECT name FROM expert") == []


def test_patience_ends(store: Store) -> None:
    work = Failing(99, plant("40001"))

    with pytest.raises(StorageUnavailable, match="the database cannot be reached: planted") as gave_up:
        transact(store.engine, work, patience_s=0)

    assert work.tries == 1
    assert isinstance(gave_up.value, StorageError)
    assert gave_up.value.code == "database_unavailable"


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    nobody = connect(f"postgresql://u@/d?host={tmp_path}")

    with pytest.raises(StorageUnavailable, match="the database cannot be reached: "):
        transact(nobody, lambda connection: None, patience_s=0)


def test_a_real_deadlock_is_resolved(store: Store) -> None:
    """Two transactions that lock the same two rows the other way round; one of them is chosen to start again."""
    store.sql("INSERT INTO expert (name) VALUES ('a'), ('b')")
    both_hold_one = threading.Barrier(2, timeout=20)
    tries: list[str] = []

    def locking(first: str, second: str) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            tries.append(first)
            lock = text("UPDATE expert SET created_at = clock_timestamp() WHERE name = :name")
            connection.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
            connection.execute(lock, {"name": first})
            if tries.count(first) == 1:
                both_hold_one.wait()
            connection.execute(lock, {"name": second})

        return work

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(transact, store.engine, locking(*names)) for names in (("a", "b"), ("b", "a"))]:
            done.result()

    assert len(tries) == 3


def test_a_real_serialization_failure_is_resolved(store: Store) -> None:
    store.sql("INSERT INTO expert (name, live_knowledge_id) VALUES ('a', 0)")
    serial = store.engine.execution_options(isolation_level="REPEATABLE READ")
    seen: list[int] = []

    def add_one(connection: Connection) -> None:
        seen.append(connection.execute(text("SELECT live_knowledge_id FROM expert")).scalar_one())
        if len(seen) == 1:
            store.sql("UPDATE expert SET live_knowledge_id = 10")
        connection.execute(text("UPDATE expert SET live_knowledge_id = live_knowledge_id + 1"))

    transact(serial, add_one)

    assert seen == [0, 10]
    assert store.value("SELECT live_knowledge_id FROM expert") == 11


def test_a_lock_that_is_not_released_in_time_is_waited_for_again(store: Store) -> None:
    store.sql("INSERT INTO expert (name) VALUES ('a')")
    holder = store.engine.connect()
    holder.execute(text("UPDATE expert SET name = 'b'"))
    tries = 0

    def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            holder.commit()
        connection.execute(text("SET LOCAL lock_timeout = '10ms'"))
        connection.execute(text("UPDATE expert SET name = 'c'"))

    transact(store.engine, work)
    holder.close()

    assert tries == 2
    assert store.values("SELECT name FROM expert") == ["c"]


def test_a_commit_whose_reply_was_lost_is_repeated(store: Store) -> None:
    """The connection is cut after the commit was sent; what the work wrote is there, so it must bear a second run."""
    raw = create_engine(
        "postgresql+psycopg://", creator=lambda: CutOnce.connect(store.engine.url.render_as_string(False))
    )

    def work(connection: Connection) -> int:
        return connection.execute(text("INSERT INTO expert (name) VALUES ('a') ON CONFLICT DO NOTHING")).rowcount

    CutOnce.cuts = 1
    assert transact(raw, work) == 0
    raw.dispose()

    assert store.values("SELECT name FROM expert") == ["a"]


class CutOnce(psycopg.Connection[Any]):
    """A connection that breaks after a commit, before the reply is read."""

    cuts = 0

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> "CutOnce":
        return super().connect(conninfo.replace("postgresql+psycopg", "postgresql"), **kwargs)

    def commit(self) -> None:
        super().commit()
        if CutOnce.cuts:
            CutOnce.cuts -= 1
            self.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
