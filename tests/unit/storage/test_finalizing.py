"""The end of a run: open lines are closed, the files are written and recorded once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from storage import finalizing, invariants, leases, runs, shards, sweeping
from storage.catalogue import ExpertView
from storage.leases import LeaseLost
from storage.runs import RunView
from storage.submitting import AcceptedLine
from storage.sweeping import Patience
from tests.unit.storage.builders import (
    OWNER,
    TTL_S,
    Store,
    accepted,
    answer,
    answer_all,
    claim_chunk,
    claim_combining,
    claim_routing,
    claim_run,
    combine,
    ended,
    expire_leases,
    files_of,
    finalize,
    put_expert,
    rejected,
    route,
    routed,
    settle_answers,
    settle_combining,
    settle_files,
    settle_routing,
    shard_ids,
    start,
    submit,
)

ENDINGS = {
    "cancelling": ("batch_cancelled", "The run was cancelled before this line was answered."),
    "expiring": ("batch_expired", "The deadline of the run passed before this line was answered."),
}


@pytest.fixture
def expert(store: Store) -> ExpertView:
    return put_expert(store)


def end(store: Store, run: RunView, state: str = "cancelling") -> None:
    """Ask for the end of a run, by a person or by its deadline."""
    if state == "cancelling":
        assert store(runs.cancel, run) is True
    else:
        store.sql("UPDATE run SET deadline = clock_timestamp() - interval '1 second' WHERE id = :id", id=run.id)
        assert store(runs.expire_overdue) == [run.id]


def written(lines: int, path: str = "x") -> dict[str, Any]:
    return {"path": path, "sha256": "0" * 64, "size": 9, "lines": lines}


# --- closing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ENDINGS)
def test_every_open_line_is_closed_and_every_finished_one_kept(store: Store, expert: ExpertView, state: str) -> None:
    code, message = ENDINGS[state]
    run = start(store, [*accepted(6), rejected(9)])
    done, answered, routed = shard_ids(store, run)
    for chunk_id in route(store, done, [expert]):
        answer(store, chunk_id)
    combine(store, done)
    for chunk_id in route(store, answered, [expert]):
        answer(store, chunk_id)
    route(store, routed, [expert])
    end(store, run, state)

    assert store(finalizing.close_open_lines, run.id) is True

    assert store.rows("SELECT idx, error_code, shard_id FROM outcome ORDER BY idx") == [
        (0, None, done),
        (1, None, done),
        *((idx, code, None) for idx in range(2, 6)),
        (6, "invalid_json", None),
    ]
    closed = store(runs.view, run.id)
    assert (closed.state, closed.n_ok, closed.n_error) == ("finalizing", 2, 5)
    assert store.rows("SELECT state, count(*) FROM shard GROUP BY 1 ORDER BY 1") == [("cancelled", 2), ("done", 1)]
    assert store.rows("SELECT state, count(*) FROM chunk GROUP BY 1 ORDER BY 1") == [("cancelled", 1), ("done", 2)]
    assert store(invariants.breaches) == []
    assert orjson.loads(store.value("SELECT line::text FROM outcome WHERE idx = 2")) == {
        "id": run.public_id.replace("batch_", "batch_req_") + "_2",
        "custom_id": "q2",
        "response": None,
        "error": {"code": code, "message": message, "param": None, "line": 3},
        "moe": {"line": 3},
    }


@pytest.mark.parametrize("custom_id", ['"\\', "a\nb", "\u2028é😀", "", "\x1b[31m"])
def test_a_closed_line_keeps_its_id_to_the_letter(store: Store, custom_id: str) -> None:
    run = submit(store, [AcceptedLine(1, custom_id, "text")])
    end(store, run)
    store(finalizing.close_open_lines, run.id)

    (lines,) = [files for files in store(files_of, claim_run(store, run)) if files]
    (line,) = lines
    assert "\n" not in line
    assert orjson.loads(line)["custom_id"] == custom_id


@pytest.mark.parametrize("state", ENDINGS)
def test_a_run_that_was_never_planned_is_closed(store: Store, state: str) -> None:
    run = submit(store, 3)
    end(store, run, state)

    assert store(finalizing.close_open_lines, run.id) is True
    assert store(shards.plan, run.id, 2) is False
    assert store.value("SELECT started_at IS NOT NULL FROM run") is True
    assert store(runs.view, run.id).n_error == 3


@pytest.mark.parametrize("state", ["validating", "in_progress", "finalizing", "completed", "unknown"])
def test_a_run_that_is_not_being_ended_is_not_closed(store: Store, expert: ExpertView, state: str) -> None:
    if state == "validating":
        run = submit(store)
    elif state == "in_progress":
        run = start(store)
    elif state == "finalizing":
        run = answer_all(store, start(store), [expert])
    else:
        run = ended(store)

    assert store(finalizing.close_open_lines, 0 if state == "unknown" else run.id) is False
    assert store(runs.view, run.id) == run


def test_closing_twice_closes_once(store: Store) -> None:
    run = start(store)
    end(store, run)

    assert [store(finalizing.close_open_lines, run.id) for _ in range(3)] == [True, False, False]
    assert store(runs.view, run.id).n_error == 4


@pytest.mark.parametrize("stage", ["routing", "answering", "combining"])
def test_work_that_was_under_way_can_no_longer_settle(store: Store, expert: ExpertView, stage: str) -> None:
    run = start(store, 2)
    (shard_id,) = shard_ids(store, run)
    shard = claim_routing(store, shard_id)
    if stage != "routing":
        settle_routing(store, shard, [expert])
        chunk = claim_chunk(store, store.value("SELECT id FROM chunk"))
    if stage == "combining":
        settle_answers(store, chunk)
        shard = claim_combining(store, shard_id)
    end(store, run)
    store(finalizing.close_open_lines, run.id)
    before = store.rows("SELECT idx, error_code FROM outcome"), store.value("SELECT count(*) FROM answer")

    late: dict[str, Callable[[], object]] = {
        "routing": lambda: settle_routing(store, shard, [expert]),
        "answering": lambda: settle_answers(store, chunk),
        "combining": lambda: settle_combining(store, shard),
    }
    with pytest.raises(LeaseLost):
        late[stage]()

    assert (store.rows("SELECT idx, error_code FROM outcome"), store.value("SELECT count(*) FROM answer")) == before


def test_a_preview_is_neither_cancelled_nor_expired(store: Store) -> None:
    """It has decided lines without outcomes, and no files; whoever made it removes it."""
    run = start(store, 4, kind="preview", deadline=datetime.now(UTC) - timedelta(seconds=1))
    settle_routing(store, claim_routing(store, shard_ids(store, run)[0]), [])

    assert store(runs.cancel, run) is False
    assert store(runs.expire_overdue) == []
    assert store(runs.view, run.id).state == "in_progress"


def test_a_shard_that_is_being_routed_while_its_run_is_closed_leaves_no_chunk(store: Store, expert: ExpertView) -> None:
    """The router settles in a transaction that overlaps the one that closes: its chunks are seen all the same."""
    run = start(store, 2, shard_size=2)
    shard = claim_routing(store, shard_ids(store, run)[0])
    store(runs.cancel, run)
    decisions, made = store(routed, shard, [expert])
    with store.engine.connect() as router, ThreadPoolExecutor(1) as pool:
        shards.settle_routing(router, shard, decisions, made, router_version_id=1, route_ms=1.0)
        closing = pool.submit(store, finalizing.close_open_lines, run.id)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while store.value(waiting) == 0:
            assert not closing.done()
        router.commit()
        assert closing.result() is True

    assert store.values("SELECT state FROM chunk") == ["cancelled"]
    assert store.values("SELECT state FROM shard") == ["cancelled"]
    assert store(invariants.breaches) == []


# --- claiming and writing -------------------------------------------------------------------------------------


def test_a_claim_carries_what_the_files_need(store: Store, expert: ExpertView) -> None:
    run = answer_all(store, start(store, [*accepted(4), rejected(9)]), [expert], failing=[1])

    claimed = claim_run(store, run)

    assert (claimed.lease.table, claimed.lease.id, claimed.lease.epoch) == ("run", run.id, 1)
    assert (claimed.public_id, claimed.generation, claimed.ending) == (run.public_id, 1, "completed")
    assert (claimed.n_total, claimed.n_ok, claimed.n_error) == (5, 3, 2)


@pytest.mark.parametrize("reason", ["in_progress", "leased", "resting", "completed", "unknown"])
def test_there_is_nothing_to_claim(store: Store, expert: ExpertView, reason: str) -> None:
    run = start(store)
    if reason != "in_progress":
        answer_all(store, run, [expert])
    if reason == "leased":
        claim_run(store, run)
    elif reason == "resting":
        store(leases.give_back, claim_run(store, run).lease, 3600)
    elif reason == "completed":
        finalize(store, run)

    run_id = 0 if reason == "unknown" else run.id
    assert store(finalizing.claim, run_id, owner=OWNER, ttl_s=TTL_S) is None


def test_a_writer_whose_lease_ran_out_is_followed_by_another_and_records_nothing(
    store: Store, expert: ExpertView
) -> None:
    run = answer_all(store, start(store), [expert])
    late = claim_run(store, run)
    expire_leases(store)
    current = claim_run(store, run, owner="other")

    with pytest.raises(LeaseLost):
        settle_files(store, late)
    assert store(runs.view, run.id).output is None
    assert settle_files(store, current) is True
    with pytest.raises(LeaseLost):
        settle_files(store, late)


def test_a_paused_run_whose_lines_are_all_done_is_written(store: Store, expert: ExpertView) -> None:
    run = answer_all(store, start(store), [expert])
    store(runs.pause, run, paused=True)

    assert finalize(store, run).state == "completed"


@pytest.mark.parametrize("batch", [1, 2, 3, 2000])
def test_the_lines_come_in_order_and_in_batches(store: Store, expert: ExpertView, batch: int) -> None:
    run = answer_all(store, start(store, 7, shard_size=3), [expert], failing=[1, 4])

    for ok, idxs in ((True, [0, 2, 3, 5, 6]), (False, [1, 4])):
        with store.engine.begin() as connection:
            parts = list(finalizing.lines(connection, run.id, ok=ok, batch=batch))
        assert [len(part) for part in parts] == [len(idxs[at : at + batch]) for at in range(0, len(idxs), batch)]
        assert [orjson.loads(line)["id"].rsplit("_")[-1] for part in parts for line in part] == list(map(str, idxs))


def test_a_line_comes_as_it_was_stored_byte_for_byte(store: Store, expert: ExpertView) -> None:
    """The column is ``json``, which keeps the order of keys and the form of numbers."""
    run = answer_all(store, start(store, 1), [expert])
    line = '{"z":1.0,"a":"\\u00e9","n":1e2}'
    store.sql("UPDATE outcome SET line = CAST(:line AS json)", line=line)

    assert store(files_of, claim_run(store, run)) == ([line], [])


# --- settling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "ending"), [(None, "completed"), ("cancelling", "cancelled"), ("expiring", "expired")]
)
def test_the_files_are_recorded_with_the_end(store: Store, expert: ExpertView, state: str | None, ending: str) -> None:
    run = start(store)
    if state is None:
        answer_all(store, run, [expert], failing=[3])
    else:
        end(store, run, state)
        store(finalizing.close_open_lines, run.id)
    output, errors = (3, 1) if state is None else (0, 4)

    files = written(output, "out"), written(errors, "err")
    assert store(finalizing.settle_files, claim_run(store, run), *files) is True

    view = store(runs.view, run.id)
    assert (view.state, view.ended, view.output, view.errors) == (ending, True, *files)
    assert view.finished_at is not None
    assert store.rows("SELECT lease_until, owner FROM run") == [(None, None)]
    assert store(invariants.breaches) == []


@pytest.mark.parametrize(("output", "errors"), [(4, 1), (3, 0), (0, 0)])
def test_files_that_do_not_add_up_are_refused(store: Store, expert: ExpertView, output: int, errors: int) -> None:
    run = answer_all(store, start(store), [expert])
    claimed = claim_run(store, run)

    message = f"^{output} output lines and {errors} error lines do not make 4 lines$"
    with pytest.raises(ValueError, match=message):
        store(finalizing.settle_files, claimed, written(output), written(errors))

    assert store(runs.view, run.id).state == "finalizing"
    assert store(leases.renew, claimed.lease) is True


def test_recording_the_files_twice_is_told_from_losing_the_lease(store: Store, expert: ExpertView) -> None:
    claimed = claim_run(store, answer_all(store, start(store), [expert]))
    store(finalizing.settle_files, claimed, written(4, "first"), written(0))

    assert store(finalizing.settle_files, claimed, written(4, "second"), written(0)) is False
    assert store.value("SELECT output->>'path' FROM run") == "first"


def test_a_run_of_rejected_lines_ends_with_an_empty_output(store: Store) -> None:
    run = finalize(store, start(store, [rejected(1), rejected(2)]))

    assert (run.state, run.n_ok, run.n_error) == ("completed", 0, 2)
    assert run.output is not None
    assert run.errors is not None
    assert (run.output["lines"], run.errors["lines"]) == (0, 2)


def test_a_lost_message_does_not_keep_a_cancelled_run_from_its_end(store: Store) -> None:
    run = start(store)
    claim_routing(store, shard_ids(store, run)[0])
    end(store, run)

    (hint,) = store(sweeping.due_others, stale_s=0, window=10)
    store(finalizing.close_open_lines, hint.run_id)  # type: ignore[union-attr]
    expire_leases(store)

    assert store(sweeping.recover, Patience()) == 0
    assert finalize(store, run).state == "cancelled"
