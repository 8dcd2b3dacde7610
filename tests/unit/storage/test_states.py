"""The states and the guards in the database that hold every program to them."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from storage.states import (
    MOVES,
    RUN_ENDED,
    SHARD_OPEN,
    ChunkState,
    JobState,
    RouterState,
    RunState,
    ShardState,
    in_list,
)
from tests.unit.storage.builders import Store

STATES: dict[str, type[StrEnum]] = {
    "run": RunState,
    "shard": ShardState,
    "chunk": ChunkState,
    "job": JobState,
    "router_version": RouterState,
}
LEASED = {"shard": {"routing", "combining"}, "chunk": {"leased"}, "job": {"running"}}
SERIAL = {"lease_until": "clock_timestamp()", "owner": "'somebody'"}


def insert(connection: Connection, table: str, **columns: Any) -> int:
    """A row of these columns, the values as SQL."""
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(map(str, columns.values()))})"
    return int(connection.execute(text(f"{statement} RETURNING id")).scalar_one())


def lease_for(entity: str, state: str) -> dict[str, str]:
    held = state in LEASED.get(entity, ())
    return {name: value if held else "NULL" for name, value in SERIAL.items()} if entity in LEASED else {}


def put_run(connection: Connection, state: str, **columns: Any) -> int:
    """A run without lines, its files written, so that no CHECK stands in the way of any state."""
    given: dict[str, Any] = {
        "public_id": "gen_random_uuid()::text",
        "kind": "'batch'",
        "state": f"'{state}'",
        "ending": "'completed'",
        "generation": 1,
        "priority": 2,
        "top_k": 2,
        "strategy": "'weighted'",
        "output": "'{}'",
        "errors": "'{}'",
    }
    return insert(connection, "run", **(given | columns))


def put_shard(connection: Connection, run_id: int, state: str, start: int = 0, stop: int = 2) -> int:
    columns = {"run_id": run_id, "start": start, "stop": stop, "state": f"'{state}'"}
    return insert(connection, "shard", **columns, **lease_for("shard", state))


def put_chunk(connection: Connection, run_id: int, shard_id: int, state: str, **columns: Any) -> int:
    expert = connection.execute(text("INSERT INTO expert (name) VALUES ('alpha') RETURNING id")).scalar_one()
    version = insert(connection, "expert_version", expert_id=expert, number=1, engine="'echo'", card="'{}'")
    given: dict[str, Any] = {
        "run_id": run_id,
        "shard_id": shard_id,
        "expert_id": expert,
        "expert_version_id": version,
        "idxs": "'{0,1}'",
        "state": f"'{state}'",
    }
    return insert(connection, "chunk", **(given | lease_for("chunk", state) | columns))


def put(connection: Connection, entity: str, state: str) -> int:
    """A row of the entity in this state."""
    if entity == "run":
        return put_run(connection, state)
    if entity == "shard":
        return put_shard(connection, put_run(connection, "in_progress"), state)
    if entity == "chunk":
        run_id = put_run(connection, "in_progress")
        return put_chunk(connection, run_id, put_shard(connection, run_id, "answering"), state)
    if entity == "job":
        return insert(connection, "job", kind="'train'", params="'{}'", state=f"'{state}'", **lease_for("job", state))
    columns = dict.fromkeys(("kind", "artefact", "artefact_sha256", "content_sha256"), "''")
    return insert(connection, entity, state=f"'{state}'", experts="'[]'", metrics="'{}'", **columns)


def move(connection: Connection, entity: str, row: int, before: str, after: str) -> None:
    columns = {"state": f"'{after}'", **lease_for(entity, after)}
    if entity == "run" and before in RUN_ENDED:
        columns["generation"] = "generation + 1"
    changes = ", ".join(f"{name} = {value}" for name, value in columns.items())
    connection.execute(text(f"UPDATE {entity} SET {changes} WHERE id = :id"), {"id": row})


def refusal(connection: Connection, statement: str, **parameters: Any) -> str:
    """The constraint (or the text of the trigger) that refuses the statement."""
    with pytest.raises(IntegrityError) as refused, connection.begin_nested():
        connection.execute(text(statement), parameters)
    diagnosis = refused.value.orig.diag  # type: ignore[union-attr]
    return str(diagnosis.constraint_name or diagnosis.message_primary)


def test_the_table_of_moves_is_a_copy_of_the_one_in_the_code(store: Store) -> None:
    stored = store.rows("SELECT entity, from_state, to_state FROM state_move")

    listed = [
        (entity, str(before), str(after))
        for entity, moves in MOVES.items()
        for before, afters in moves.items()
        for after in afters
    ]
    assert sorted(stored) == sorted(listed)


@pytest.mark.parametrize(
    ("entity", "before"), [(entity, str(state)) for entity, states in STATES.items() for state in states]
)
def test_only_the_listed_moves_are_possible(store: Store, entity: str, before: str) -> None:
    refusals: dict[str, str] = {}
    with store.engine.connect() as connection:
        row = put(connection, entity, before)
        for after in STATES[entity]:
            if after == before:
                continue
            attempt = connection.begin_nested()
            try:
                move(connection, entity, row, before, after)
            except IntegrityError as refused:
                refusals[str(after)] = str(refused.orig).splitlines()[0]
            attempt.rollback()

    forbidden = {str(state) for state in STATES[entity]} - {str(state) for state in MOVES[entity].get(before, ())}
    assert refusals == {
        after: f"state move not allowed: {entity} {row} from {before} to {after}" for after in forbidden - {before}
    }


@pytest.mark.parametrize("entity", list(STATES))
def test_an_unknown_state_is_refused(store: Store, entity: str) -> None:
    with store.engine.connect() as connection, pytest.raises(IntegrityError, match="state_is_known"):
        put(connection, entity, "lost")


@pytest.mark.parametrize("entity", ["run", "shard", "chunk", "job"])
def test_an_epoch_never_goes_back(store: Store, entity: str) -> None:
    with store.engine.connect() as connection:
        state = next(iter(STATES[entity]))
        row = put(connection, entity, state)
        connection.execute(text(f"UPDATE {entity} SET epoch = 7 WHERE id = :id"), {"id": row})

        why = refusal(connection, f"UPDATE {entity} SET epoch = 6 WHERE id = :id", id=row)

        assert why == f"epoch of {entity} {row} went back from 7 to 6"
        connection.execute(text(f"UPDATE {entity} SET epoch = 7 WHERE id = :id"), {"id": row})


@pytest.mark.parametrize("state", RUN_ENDED)
@pytest.mark.parametrize("step", [-1, 0, 2])
def test_an_ended_run_opens_only_as_its_next_generation(store: Store, state: str, step: int) -> None:
    with store.engine.connect() as connection:
        run_id = put_run(connection, state)
        again = "UPDATE run SET state = 'in_progress', generation = generation + :step WHERE id = :id"

        assert (
            refusal(connection, again, step=step, id=run_id)
            == f"run {run_id} has ended ({state}); it opens again only as its next generation"
        )
        connection.execute(text(again), {"step": 1, "id": run_id})


@pytest.mark.parametrize("state", RUN_ENDED)
@pytest.mark.parametrize("missing", ["output", "errors"])
def test_a_run_does_not_end_without_its_files(store: Store, state: str, missing: str) -> None:
    with store.engine.connect() as connection:
        run_id = put_run(connection, "finalizing", **{missing: "NULL"})

        why = refusal(connection, "UPDATE run SET state = :state WHERE id = :id", state=state, id=run_id)

        assert why == "ended_means_files_are_written"


def test_a_preview_ends_without_files(store: Store) -> None:
    with store.engine.connect() as connection:
        run_id = put_run(connection, "in_progress", kind="'preview'", output="NULL", errors="NULL")

        connection.execute(text("UPDATE run SET state = 'completed' WHERE id = :id"), {"id": run_id})


@pytest.mark.parametrize("state", RUN_ENDED)
def test_a_run_does_not_end_while_outcomes_are_missing(store: Store, state: str) -> None:
    with store.engine.connect() as connection:
        run_id = put_run(connection, "finalizing", n_total=3, n_ok=1, n_error=1)

        why = refusal(connection, "UPDATE run SET state = :state WHERE id = :id", state=state, id=run_id)

        assert why == "ended_means_every_line_has_an_outcome"


@pytest.mark.parametrize(
    ("counters", "constraint"),
    [
        ("n_total = 1, n_ok = 1, n_error = 1", "no_more_outcomes_than_lines"),
        ("n_total = 2, n_error = 1, n_rejected = 2", "rejected_lines_are_errors"),
        ("kind = 'other'", "kind_is_known"),
    ],
)
def test_a_run_whose_numbers_cannot_be_is_refused(store: Store, counters: str, constraint: str) -> None:
    with store.engine.connect() as connection:
        run_id = put_run(connection, "in_progress")

        assert refusal(connection, f"UPDATE run SET {counters} WHERE id = :id", id=run_id) == constraint


@pytest.mark.parametrize(
    ("entity", "state", "constraint"),
    [
        *(("shard", state, "leased_while_routing_or_combining") for state in ShardState),
        *(("chunk", state, "leased_has_a_lease") for state in ChunkState),
        *(("job", state, "leased_while_running") for state in JobState),
    ],
)
def test_a_lease_goes_with_its_states_and_with_no_other(store: Store, entity: str, state: str, constraint: str) -> None:
    lease = "lease_until = clock_timestamp(), owner = 'somebody'"
    none = "lease_until = NULL, owner = NULL"
    with store.engine.connect() as connection:
        row = put(connection, entity, state)
        wrong = none if state in LEASED[entity] else lease

        assert refusal(connection, f"UPDATE {entity} SET {wrong} WHERE id = :id", id=row) == constraint


@pytest.mark.parametrize("state", [state for state in RunState if state != RunState.FINALIZING])
def test_only_a_run_that_is_being_finalized_is_leased(store: Store, state: str) -> None:
    lease = "UPDATE run SET lease_until = clock_timestamp(), owner = 'somebody' WHERE id = :id"
    with store.engine.connect() as connection:
        assert refusal(connection, lease, id=put_run(connection, state)) == "leased_only_while_finalizing"
        connection.execute(text(lease), {"id": put_run(connection, "finalizing")})


@pytest.mark.parametrize(
    ("entity", "state"), [("run", "finalizing"), ("shard", "routing"), ("chunk", "leased"), ("job", "running")]
)
def test_a_lease_has_an_owner(store: Store, entity: str, state: str) -> None:
    with store.engine.connect() as connection:
        row = put(connection, entity, state)
        connection.execute(
            text(f"UPDATE {entity} SET lease_until = clock_timestamp(), owner = 'somebody' WHERE id = :id"), {"id": row}
        )

        why = refusal(connection, f"UPDATE {entity} SET owner = NULL WHERE id = :id", id=row)

        assert why == "lease_has_an_owner"


@pytest.mark.parametrize("state", ShardState)
@pytest.mark.parametrize(("start", "stop"), [(0, 10), (9, 12), (3, 4), (0, 1)])
def test_open_shards_of_a_run_never_share_a_line(store: Store, state: str, start: int, stop: int) -> None:
    with store.engine.connect() as connection:
        run_id = put_run(connection, "in_progress")
        put_shard(connection, run_id, "queued", 0, 10)

        if state in SHARD_OPEN:
            with pytest.raises(IntegrityError, match="open_shards_do_not_overlap"):
                put_shard(connection, run_id, state, start, stop)
        else:
            put_shard(connection, run_id, state, start, stop)


def test_shards_side_by_side_and_shards_of_other_runs_do_not_overlap(store: Store) -> None:
    with store.engine.connect() as connection:
        run_id = put_run(connection, "in_progress")
        placed = [(0, 10), (10, 20), (20, 2147483647)]
        for start, stop in placed:
            put_shard(connection, run_id, "queued", start, stop)
        put_shard(connection, put_run(connection, "in_progress"), "queued", 0, 2147483647)

        assert connection.execute(text("SELECT count(*) FROM shard")).scalar_one() == 4


def test_a_shard_holds_at_least_one_line_and_a_chunk_one_query(store: Store) -> None:
    with store.engine.connect() as connection:
        run_id = put_run(connection, "in_progress")
        shard_id = put_shard(connection, run_id, "answering")
        chunk_id = put_chunk(connection, run_id, shard_id, "queued")

        assert refusal(connection, "UPDATE shard SET stop = start") == "holds_at_least_one_line"
        assert refusal(connection, "UPDATE shard SET chunks_left = -1") == "chunks_left_is_a_count"
        assert (
            refusal(connection, "UPDATE chunk SET idxs = '{}' WHERE id = :id", id=chunk_id)
            == "holds_at_least_one_query"
        )


def test_only_one_router_is_live(store: Store) -> None:
    with store.engine.connect() as connection:
        put(connection, "router_version", "live")
        second = put(connection, "router_version", "trained")
        put(connection, "router_version", "retired")

        why = refusal(connection, "UPDATE router_version SET state = 'live' WHERE id = :id", id=second)

        assert why == "router_version_live"


@pytest.mark.parametrize(
    ("states", "listed"), [((), ""), (RouterState, "'trained', 'live', 'retired'"), (["a"], "'a'")]
)
def test_in_list_quotes_each_state(states: Iterable[str], listed: str) -> None:
    assert in_list(states) == listed
