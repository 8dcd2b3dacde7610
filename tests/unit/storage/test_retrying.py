"""Failed lines of an ended run go round again, in the same run."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from storage import finalizing, invariants, leases, retrying, runs, windows
from storage.errors import NotAllowed
from storage.leases import LeaseLost
from storage.runs import RunView
from storage.submitting import AcceptedLine, RejectedLine
from tests.unit.storage.builders import (
    Store,
    accepted,
    answer,
    answer_all,
    claim_chunk,
    claim_run,
    ended,
    finalize,
    put_expert,
    rejected,
    route,
    settle_answers,
    shard_ids,
    start,
    submit,
)


def again(
    store: Store, run: RunView, codes: Sequence[str] = (), edits: Sequence[AcceptedLine] = (), size: int = 2
) -> int:
    return store(retrying.retry_failed, run, codes=codes, edits=edits, shard_size=size)


def outcomes(store: Store) -> list[tuple[Any, ...]]:
    return store.rows("SELECT idx, error_code FROM outcome ORDER BY idx")


def test_the_failed_lines_are_open_again_and_the_others_kept(store: Store) -> None:
    run = ended(store, 6, failing=[1, 4, 5])
    kept = store.rows("SELECT idx, line::text FROM outcome WHERE ok ORDER BY idx")

    assert again(store, run) == 3

    assert store.rows("SELECT idx, line::text FROM outcome ORDER BY idx") == kept
    assert [idx for idx, _ in kept] == [0, 2, 3]
    for table in ("decision", "answer"):
        assert store.values(f"SELECT idx FROM {table} ORDER BY idx") == [0, 2, 3]
    assert store.rows("SELECT start, stop, n_queries, state FROM shard WHERE state <> 'done' ORDER BY id") == [
        (1, 5, 2, "planned"),
        (5, 6, 1, "planned"),
    ]
    opened = store(runs.view, run.id)
    assert (opened.state, opened.generation, opened.n_ok, opened.n_error) == ("in_progress", 2, 3, 0)
    assert (opened.output, opened.errors, opened.finished_at, opened.deadline) == (None, None, None, None)
    assert store(invariants.breaches) == []


def test_the_old_errors_are_kept_as_history(store: Store) -> None:
    run = ended(store, 3, failing=[1])
    line = store.value("SELECT line::text FROM outcome WHERE idx = 1")
    query = "SELECT idx, generation, error_code, error_message, line::text FROM past_outcome ORDER BY generation"

    again(store, run)
    assert store.rows(query) == [(1, 1, "engine_error", "It broke.", line)]

    run = finalize(store, go_on(store, run, failing=[1]))
    again(store, run)
    assert [row[:2] for row in store.rows(query)] == [(1, 1), (1, 2)]


def go_on(store: Store, run: RunView, failing: Sequence[int] = ()) -> RunView:
    """Bring a run that was opened again to where its files are due."""
    store(windows.fill, window=100)
    return answer_all(store, store(runs.view, run.id), [put_expert(store)], failing)


def test_the_run_ends_again_with_files_of_all_its_lines(store: Store) -> None:
    run = ended(store, [*accepted(5), rejected(9)], failing=[0, 3])
    again(store, run)
    run = finalize(store, go_on(store, run, failing=[3]))

    assert (run.state, run.generation, run.n_ok, run.n_error, run.n_rejected) == ("completed", 2, 4, 2, 1)
    assert outcomes(store) == [(0, None), (1, None), (2, None), (3, "engine_error"), (4, None), (5, "invalid_json")]
    assert run.output is not None
    assert run.errors is not None
    assert (run.output["lines"], run.errors["lines"]) == (4, 2)
    assert store(invariants.breaches) == []


def test_only_the_lines_with_the_given_codes_are_tried(store: Store) -> None:
    run = ended(store, 4, failing=[0, 1, 2])
    store.sql("UPDATE outcome SET error_code = 'worker_killed' WHERE idx = 1")
    store.sql("UPDATE outcome SET error_code = 'bad_output' WHERE idx = 2")

    assert again(store, run, codes=["worker_killed", "bad_output", "other"]) == 2
    assert outcomes(store) == [(0, "engine_error"), (3, None)]
    assert store(runs.view, run.id).n_error == 1


@pytest.mark.parametrize("ending", ["cancelled", "expired"])
def test_a_run_that_was_ended_early_is_taken_up_where_it_stopped(store: Store, ending: str) -> None:
    expert = put_expert(store)
    run = start(store, 6)
    first, second, _ = shard_ids(store, run)
    for chunk_id in route(store, first, [expert]):
        answer(store, chunk_id)
    late = claim_chunk(store, route(store, second, [expert])[0])
    if ending == "cancelled":
        store(runs.cancel, run)
    else:
        store.sql("UPDATE run SET deadline = created_at")
        store(runs.expire_overdue)
    run = finalize(store, run)
    assert (run.state, run.n_error) == (ending, 6)

    assert again(store, run) == 6

    # The answers of the first try are gone, so that they are not mixed with those of the second.
    assert store.value("SELECT count(*) FROM answer") == 0
    assert store.value("SELECT count(*) FROM decision") == 0
    with pytest.raises(LeaseLost):
        settle_answers(store, late)
    run = finalize(store, go_on(store, run))
    assert (run.state, run.n_ok, run.n_error) == ("completed", 6, 0)
    assert store(invariants.breaches) == []


def test_a_writer_of_the_generation_before_records_nothing(store: Store) -> None:
    run = answer_all(store, start(store, 2), [put_expert(store)], failing=[0])
    late = claim_run(store, run)
    store(leases.give_back, late.lease, 0)
    run = finalize(store, run)
    again(store, run)

    with pytest.raises(LeaseLost):
        store(finalizing.settle_files, late, {"lines": 1}, {"lines": 1})
    assert store(runs.view, run.id).output is None


# --- edits ----------------------------------------------------------------------------------------------------


def test_an_edit_replaces_a_failed_line(store: Store) -> None:
    run = ended(store, 3, failing=[0, 1])

    assert again(store, run, edits=[AcceptedLine(2, "new", "better", {"n": 1}, "alpha")]) == 2

    assert store.rows("SELECT idx, custom_id, text, request, pinned, rejected FROM query ORDER BY idx") == [
        (0, "q0", "question 0", None, None, False),
        (1, "new", "better", {"n": 1}, "alpha", False),
        (2, "q2", "question 2", None, None, False),
    ]


def test_only_an_edit_mends_a_rejected_line(store: Store) -> None:
    lines: list[AcceptedLine | RejectedLine] = [
        *accepted(2),
        rejected(3),
        RejectedLine(5, "missing_text", "No text.", "q9"),
    ]
    run = ended(store, lines, failing=[0])

    assert again(store, run, edits=[AcceptedLine(3, "mended", "now with a text")]) == 2

    opened = store(runs.view, run.id)
    assert (opened.n_total, opened.n_rejected, opened.n_ok, opened.n_error) == (4, 1, 1, 1)
    assert outcomes(store) == [(1, None), (3, "missing_text")]
    assert store.rows("SELECT custom_id, text, rejected FROM query WHERE idx >= 2 ORDER BY idx") == [
        ("mended", "now with a text", False),
        ("q9", None, True),
    ]
    assert store(invariants.breaches) == []
    run = finalize(store, go_on(store, run))
    assert (run.n_ok, run.n_error) == (3, 1)
    output = store.values("SELECT line::text FROM outcome WHERE ok ORDER BY idx")
    assert [orjson.loads(line)["custom_id"] for line in output] == ["q0", "q1", "mended"]


def test_an_edit_may_keep_or_take_the_id_of_the_line_it_replaces(store: Store) -> None:
    lines = [AcceptedLine(1, "a", "first"), AcceptedLine(2, "a", "twice")]
    run = ended(store, lines)
    assert outcomes(store) == [(0, None), (1, "duplicate_custom_id")]

    assert again(store, run, edits=[AcceptedLine(2, "b", "twice")]) == 1
    assert store.values("SELECT custom_id FROM query ORDER BY idx") == ["a", "b"]


def test_two_failed_lines_cannot_swap_their_ids(store: Store) -> None:
    run = ended(store, 3, failing=[0, 1])

    with pytest.raises(NotAllowed):
        again(store, run, edits=[AcceptedLine(1, "q1", "x"), AcceptedLine(2, "q0", "y")])

    assert store(runs.view, run.id) == run


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([AcceptedLine(1, "x", "t")], r"edits name lines that did not fail: 1$"),
        ([AcceptedLine(77, "x", "t"), AcceptedLine(99, "y", "t")], r"edits name lines that did not fail: 77, 99$"),
        ([AcceptedLine(2, "q0", "t")], r"edits use custom_id 'q0' for a second line"),
        ([AcceptedLine(2, "x", "t"), AcceptedLine(3, "x", "t")], r"edits use custom_id 'x' for a second line"),
    ],
)
def test_an_edit_that_cannot_be_right_changes_nothing(store: Store, edits: list[AcceptedLine], message: str) -> None:
    run = ended(store, 4, failing=[1, 2])
    before = outcomes(store)

    with pytest.raises(NotAllowed, match=message):
        again(store, run, edits=edits)

    assert store(runs.view, run.id) == run
    assert outcomes(store) == before
    assert store.value("SELECT text FROM query WHERE idx = 1") == "question 1"


# --- what cannot be retried -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["validating", "in_progress", "finalizing", "preview"])
def test_only_an_ended_run_of_answers_can_be_tried_again(store: Store, state: str) -> None:
    if state == "validating":
        run = submit(store)
    elif state == "in_progress":
        run = start(store)
    elif state == "finalizing":
        run = answer_all(store, start(store), [put_expert(store)], failing=[0])
    else:
        run = start(store, [rejected(1)], kind="preview")
        assert run.state == "completed"

    with pytest.raises(NotAllowed, match=f"is {run.state}; failed lines can be retried when a run has ended"):
        again(store, run)


@pytest.mark.parametrize(
    ("failing", "codes", "message"),
    [
        ([], [], "has no failed line to retry; lines that were rejected need an edit"),
        ([0], ["nothing", "more"], "has no failed line to retry with code nothing, more; lines"),
        ([], ["invalid_json"], "has no failed line to retry with code invalid_json; lines"),
    ],
)
def test_a_run_without_such_lines_stays_ended(store: Store, failing: list[int], codes: list[str], message: str) -> None:
    run = ended(store, [*accepted(2), rejected(3)], failing=failing)

    with pytest.raises(NotAllowed, match=message):
        again(store, run, codes=codes)

    assert store(runs.view, run.id) == run


def test_a_view_that_is_out_of_date_opens_nothing(store: Store) -> None:
    run = ended(store, 2, failing=[0])
    again(store, run)

    with pytest.raises(NotAllowed, match="is being changed by somebody else"):
        again(store, run)

    assert store(runs.view, run.id).generation == 2
