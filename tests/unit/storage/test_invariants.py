"""Each invariant finds the breach it is there for, and a sound database has none."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from storage import invariants, runs
from storage.invariants import INVARIANTS
from storage.runs import RunView
from storage.submitting import AcceptedLine, RejectedLine
from tests.unit.storage.builders import (
    Store,
    accepted,
    answer,
    answer_all,
    claim_routing,
    claim_run,
    ended,
    expire_leases,
    put_expert,
    rejected,
    route,
    shard_ids,
    start,
)

# What a bug would have done to the run, past every trigger and foreign key; the run stands where the name says.
BREACHES = {
    "an ended run has an outcome for every line": ("ended", "DELETE FROM outcome WHERE run_id = :run AND idx = 0"),
    "the counters of a run equal a recount": ("ended", "UPDATE run SET n_ok = n_ok - 1, n_error = n_error + 1"),
    "a run holds the lines it was given": ("ended", "DELETE FROM query WHERE run_id = :run AND idx = 0"),
    "an outcome comes from a finished shard, in the epoch that settled it": (
        "ended",
        "UPDATE outcome SET epoch = epoch - 1 WHERE run_id = :run AND idx = 1",
    ),
    "an answer comes from a finished chunk, in the epoch that settled it": (
        "ended",
        "UPDATE answer SET epoch = epoch + 1 WHERE run_id = :run AND idx = 1",
    ),
    "every finished chunk has exactly its answers": ("ended", "DELETE FROM answer WHERE run_id = :run AND idx = 1"),
    "a shard counts its open chunks": ("answering", "UPDATE shard SET chunks_left = 0 WHERE run_id = :run"),
    "an ended run has nothing open": ("ended", "UPDATE shard SET state = 'queued' WHERE run_id = :run"),
    "every open line of a run in progress lies in an open shard": (
        "answering",
        "UPDATE shard SET state = 'cancelled' WHERE run_id = :run",
    ),
}
# Other ways into the same breach.
MORE = [
    ("the counters of a run equal a recount", "answering", "UPDATE run SET n_error = 2"),
    ("a run holds the lines it was given", "answering", "UPDATE run SET n_total = n_total + 1"),
    ("a run holds the lines it was given", "ended", "UPDATE run SET n_rejected = 0"),
    (
        "an outcome comes from a finished shard, in the epoch that settled it",
        "ended",
        "UPDATE shard SET state = 'split' WHERE run_id = :run",
    ),
    (
        "an outcome comes from a finished shard, in the epoch that settled it",
        "ended",
        "UPDATE shard SET start = start + 1 WHERE run_id = :run AND start = 0",
    ),
    (
        "an outcome comes from a finished shard, in the epoch that settled it",
        "ended",
        "UPDATE shard SET stop = stop - 1 WHERE run_id = :run AND start = 0",
    ),
    (
        "an answer comes from a finished chunk, in the epoch that settled it",
        "ended",
        "UPDATE chunk SET state = 'split' WHERE run_id = :run",
    ),
    (
        "an answer comes from a finished chunk, in the epoch that settled it",
        "ended",
        "UPDATE chunk SET idxs = '{0}' WHERE run_id = :run AND 1 = ANY(idxs)",
    ),
    (
        "a shard counts its open chunks",
        "answering",
        "UPDATE chunk SET state = 'done' WHERE id = (SELECT min(id) FROM chunk WHERE run_id = :run)",
    ),
    *(
        ("an ended run has nothing open", "ended", f"UPDATE shard SET state = '{state}'{lease} WHERE run_id = :run")
        for state, lease in {
            "planned": "",
            "routing": ", lease_until = clock_timestamp(), owner = 'x'",
            "answering": "",
            "combining": ", lease_until = clock_timestamp(), owner = 'x'",
        }.items()
    ),
    (
        "every open line of a run in progress lies in an open shard",
        "answering",
        "UPDATE shard SET stop = stop - 1 WHERE run_id = :run AND start = 2",
    ),
]


def at(store: Store, stage: str) -> RunView:
    lines: list[AcceptedLine | RejectedLine] = [*accepted(4), rejected(99)]
    if stage == "ended":
        return ended(store, lines)
    expert = put_expert(store)
    run = start(store, lines)
    for shard_id in shard_ids(store, run):
        route(store, shard_id, [expert], chunk_size=1)
    return store(runs.view, run.id)


@contextmanager
def planted(store: Store, breach: str, run: RunView) -> Iterator[Connection]:
    """Do what the guards of the database would refuse, in a transaction that is taken back."""
    with store.engine.connect() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        changed = connection.execute(text(breach), {"run": run.id} if ":run" in breach else {})
        assert changed.rowcount > 0
        yield connection
        connection.rollback()


def found(connection: Connection, run: RunView | None = None) -> set[str]:
    return {breach.invariant for breach in invariants.breaches(connection, None if run is None else run.id)}


def test_every_invariant_has_its_breach_here() -> None:
    assert BREACHES.keys() == INVARIANTS.keys()


@pytest.mark.parametrize("stage", ["ended", "answering"])
def test_a_sound_database_has_no_breach(store: Store, stage: str) -> None:
    run = at(store, stage)

    assert store(found) == set()
    assert store(found, run) == set()


@pytest.mark.parametrize(("name", "stage", "breach"), [*((name, *how) for name, how in BREACHES.items()), *MORE])
def test_a_breach_is_found(store: Store, name: str, stage: str, breach: str) -> None:
    run = at(store, stage)

    with planted(store, breach, run) as connection:
        assert name in found(connection)
        assert name in found(connection, run)


def test_a_breach_shows_a_few_of_its_rows(store: Store) -> None:
    run = ended(store, 8)
    with planted(store, "UPDATE outcome SET epoch = epoch + 1 WHERE run_id = :run", run) as connection:
        (breach,) = invariants.breaches(connection)

    assert len(breach.rows) == 5
    for row in breach.rows:
        assert row == {"run_id": run.id, "idx": row["idx"], "state": "done", "epoch": 3, "shard_epoch": 2}


def test_one_run_is_not_blamed_for_another(store: Store) -> None:
    broken, sound = ended(store), ended(store)
    with planted(store, "DELETE FROM outcome WHERE run_id = :run", broken) as connection:
        assert found(connection, sound) == set()
        assert found(connection, broken) == found(connection) != set()


def test_a_preview_counts_lines_without_outcomes_of_their_own(store: Store) -> None:
    run = start(store, 2, kind="preview")
    store.sql("UPDATE run SET n_ok = 2 WHERE id = :id", id=run.id)

    assert store(found) == set()


def test_leases_are_overdue_once_they_ran_out_for_long_enough(store: Store) -> None:
    expert = put_expert(store)
    claim_run(store, answer_all(store, start(store), [expert]))
    run = start(store)
    first, second = shard_ids(store, run)
    claim_routing(store, first)
    (chunk_id,) = route(store, second, [expert])
    assert store(invariants.overdue_leases, older_than_s=0) == 0

    expire_leases(store)

    assert store(invariants.overdue_leases, older_than_s=0) == 2
    assert store(invariants.overdue_leases, older_than_s=3600) == 0
    answer(store, chunk_id)
    assert store(invariants.overdue_leases, older_than_s=0) == 2
