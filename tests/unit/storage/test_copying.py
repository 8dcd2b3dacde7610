"""Bulk rows through COPY, inside the transaction of the caller."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.errors import UniqueViolation
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from storage.copying import as_json, copy_rows
from storage.database import transact
from tests.unit.storage.builders import Store

TABLE = "CREATE TEMP TABLE copied (n integer PRIMARY KEY, t text, j jsonb, b bytea, a integer[]) ON COMMIT DROP"


def copied(connection: Connection, rows: Any) -> list[tuple[Any, ...]]:
    connection.execute(text(TABLE))
    count = copy_rows(connection, "copied", ("n", "t", "j", "b", "a"), rows)
    found = [tuple(row) for row in connection.execute(text("SELECT n, t, j, b, a FROM copied ORDER BY n"))]
    assert count == len(found)
    return found


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100, derandomize=True, database=None)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | texts | st.sampled_from(["\\N", "\\.", "\t\r\n\\", "\u2028"]),
            json_values,
            st.none() | st.binary(max_size=9),
            st.none() | st.lists(st.integers(-9, 9), max_size=3),
        ),
        max_size=5,
    )
)
def test_what_is_read_is_what_was_written(storage_engine: Engine, rows: list[tuple[Any, ...]]) -> None:
    with storage_engine.begin() as connection:
        written = [(n, t, as_json(j), b, a) for n, (t, j, b, a) in enumerate(rows)]

        assert copied(connection, written) == [(n, t, j, b, a) for n, (t, j, b, a) in enumerate(rows)]


def test_no_rows_are_none(store: Store) -> None:
    assert store(copied, []) == []


def test_there_is_no_limit_on_the_number_of_values(store: Store) -> None:
    assert len(store(copied, ((n, "t", "1", b"", []) for n in range(20_000)))) == 20_000


def test_rows_go_with_the_transaction(store: Store) -> None:
    with store.engine.connect() as connection:
        with connection.begin() as transaction:
            copy_rows(connection, "expert", ("name",), [("alpha",)])
            transaction.rollback()

    assert store.values("SELECT name FROM expert") == []


def broken_off() -> Iterator[tuple[str]]:
    yield ("alpha",)
    raise OSError("the source went away")


def test_a_source_that_breaks_off_leaves_no_row(store: Store) -> None:
    with pytest.raises(OSError, match="the source went away"):
        store(copy_rows, "expert", ("name",), broken_off())

    assert store.values("SELECT name FROM expert") == []


def test_a_refused_row_leaves_none_of_the_others(store: Store) -> None:
    with pytest.raises((IntegrityError, UniqueViolation)):
        store(copy_rows, "expert", ("name",), [("alpha",), ("alpha",)])

    assert store.values("SELECT name FROM expert") == []


def test_a_copy_that_met_a_passing_failure_is_tried_again(store: Store) -> None:
    """The server gives up on a lock, a deadlock or its resources in the middle of a COPY as anywhere else."""
    holder = store.engine.connect()
    holder.execute(text("LOCK TABLE expert"))
    tries = 0

    def work(connection: Connection) -> int:
        nonlocal tries
        tries += 1
        if tries == 2:
            holder.commit()
        connection.execute(text("SET LOCAL lock_timeout = '10ms'"))
        return copy_rows(connection, "expert", ("name",), [("alpha",)])

    try:
        assert transact(store.engine, work, patience_s=30) == 1
    finally:
        holder.close()
    assert tries == 2
    assert store.values("SELECT name FROM expert") == ["alpha"]


def test_a_connection_that_breaks_during_a_copy_is_tried_again(store: Store) -> None:
    tries: list[int] = []

    def work(connection: Connection) -> int:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        tries.append(backend)
        if len(tries) == 1:
            store.sql("SELECT pg_terminate_backend(:pid, 5000)", pid=backend)
        return copy_rows(connection, "expert", ("name",), [("alpha",), ("beta",)])

    assert transact(store.engine, work, patience_s=30) == 2
    assert len(set(tries)) == 2
    assert store.values("SELECT name FROM expert ORDER BY name") == ["alpha", "beta"]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"b": 1, "a": [None, True]}, '{"b":1,"a":[null,true]}'),
        (date(2030, 1, 2), '"2030-01-02"'),
        (datetime(2030, 1, 2, tzinfo=UTC), '"2030-01-02T00:00:00+00:00"'),
        (float("nan"), "null"),
        (float("inf"), "null"),
        ("é\u2028", '"é\u2028"'),
        (ValueError("why"), '"why"'),
    ],
)
def test_every_value_has_a_form_in_json(value: object, written: str) -> None:
    assert as_json(value) == written
    orjson.loads(written)
