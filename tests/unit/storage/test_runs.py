"""Runs as people find, follow and steer them."""

import pytest

from storage import runs, sweeping
from storage.errors import NotAllowed, NotFound
from storage.hints import AnswerHint, FinalizeHint, Hint, RouteHint
from storage.runs import Cause, RunView
from storage.submitting import AcceptedLine
from tests.unit.storage.builders import (
    Store,
    accepted,
    answer_all,
    claim_chunk,
    claim_routing,
    ended,
    put_expert,
    rejected,
    route,
    settle_answers,
    shard_ids,
    start,
    submit,
)

LONG_S = 3600.0


def renamed(store: Store, run: RunView, public_id: str) -> RunView:
    store.sql("UPDATE run SET public_id = :public WHERE id = :id", public=public_id, id=run.id)
    return store(runs.view, run.id)


# --- finding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["batch_abcdef", "batch_ab", "batc", "abcd", "abcdef", "nightly"])
def test_a_run_is_found_by_its_id_a_beginning_of_it_or_its_name(store: Store, key: str) -> None:
    run = renamed(store, submit(store, name="nightly"), "batch_abcdef")

    assert store(runs.find, key) == run


@pytest.mark.parametrize(
    "key", ["", "bat", "abc", "batch_abcdefg", "bcdef", "night", "%", "batch%", "_____", "BATCH_A"]
)
def test_anything_else_finds_nothing(store: Store, key: str) -> None:
    renamed(store, submit(store, name="nightly"), "batch_abcdef")

    with pytest.raises(NotFound, match=r"^no run '") as missing:
        store(runs.find, key)
    assert missing.value.code == "not_found"


def test_a_beginning_that_fits_several_runs_names_them(store: Store) -> None:
    for public_id in ("batch_aaaa1", "batch_aaaa2", "batch_bbbb1"):
        renamed(store, submit(store), public_id)

    with pytest.raises(NotAllowed, match=r"'aaaa' is the beginning of several run ids: batch_aaaa2, batch_aaaa1$"):
        store(runs.find, "aaaa")


def test_a_whole_id_wins_over_longer_ones_and_over_names(store: Store) -> None:
    run = renamed(store, submit(store), "batch_aaaa")
    renamed(store, submit(store, name="batch_aaaa"), "batch_aaaa1")

    assert store(runs.find, "batch_aaaa") == run


def test_of_several_runs_of_one_name_the_newest_is_found(store: Store) -> None:
    submit(store, name="nightly")
    newest = submit(store, name="nightly")

    assert store(runs.find, "nightly") == newest


def test_a_view_by_number_is_the_run_or_an_error(store: Store) -> None:
    run = submit(store, 3, name="n", source="in.jsonl", top_k=3, strategy="best", priority=4)

    assert (run.name, run.kind, run.state, run.generation) == ("n", "batch", "validating", 1)
    assert (run.priority, run.top_k, run.strategy, run.source) == (4, 3, "best", "in.jsonl")
    assert (run.n_total, run.n_rejected, run.n_ok, run.n_error) == (3, 0, 0, 0)
    assert (run.paused, run.ended, run.deadline, run.output, run.errors) == (False, False, None, None, None)
    with pytest.raises(NotFound, match="no run '0'"):
        store(runs.view, 0)


def test_the_newest_runs_come_first(store: Store) -> None:
    first, second = submit(store), submit(store)
    ask = submit(store, 1, kind="ask")
    submit(store, kind="preview")

    def recent(limit: int = 10, include_asks: bool = False) -> list[int]:
        return [run.id for run in store(runs.recent, limit=limit, include_asks=include_asks)]

    assert recent() == [second.id, first.id]
    assert recent(include_asks=True) == [ask.id, second.id, first.id]
    assert recent(limit=1) == [second.id]


def test_runs_are_open_until_they_have_ended(store: Store) -> None:
    assert store(runs.open_runs) == 0
    ended(store)
    start(store)
    submit(store)

    assert store(runs.open_runs) == 2


# --- steering -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["validating", "in_progress", "paused"])
def test_a_run_that_is_under_way_can_be_cancelled_once(store: Store, state: str) -> None:
    run = submit(store) if state == "validating" else start(store)
    if state == "paused":
        store(runs.pause, run, paused=True)

    assert [store(runs.cancel, run) for _ in range(2)] == [True, False]

    assert store.rows("SELECT state, ending, published_at IS NOT NULL FROM run") == [("cancelling", "cancelled", True)]
    assert store(sweeping.due_others, stale_s=0, window=9) == [FinalizeHint(run.id)]


@pytest.mark.parametrize("state", ["finalizing", "completed", "expiring"])
def test_a_run_that_ends_already_cannot_be_cancelled(store: Store, state: str) -> None:
    if state == "finalizing":
        run = answer_all(store, start(store), [put_expert(store)])
    elif state == "completed":
        run = ended(store)
    else:
        run = start(store)
        store.sql("UPDATE run SET state = 'expiring', ending = 'expired'")
        run = store(runs.view, run.id)

    assert store(runs.cancel, run) is False
    assert store(runs.view, run.id) == run


def test_a_paused_run_hands_out_nothing_and_finishes_what_is_leased(store: Store) -> None:
    expert = put_expert(store)
    run = start(store)
    first, second = shard_ids(store, run)
    chunk = claim_chunk(store, route(store, first, [expert])[0])

    assert [store(runs.pause, run, paused=True) for _ in range(2)] == [True, False]

    assert store(runs.view, run.id).paused is True
    assert settle_answers(store, chunk) is True
    with pytest.raises(AssertionError):
        claim_routing(store, second)


def test_a_resumed_run_is_due_at_once(store: Store) -> None:
    """The messages that were sent before the pause were dropped."""
    expert = put_expert(store)
    run = start(store)
    first, second = shard_ids(store, run)
    (chunk,) = route(store, first, [expert])
    store(runs.pause, run, paused=True)

    assert [store(runs.pause, run, paused=False) for _ in range(2)] == [True, False]

    hints: list[Hint] = [
        *store(sweeping.due_others, stale_s=LONG_S, window=9),
        *store(sweeping.due_chunks, stale_s=LONG_S, window=9),
    ]
    assert hints == [RouteHint(second, False), AnswerHint(chunk, "alpha", False)]


@pytest.mark.parametrize("paused", [True, False])
def test_an_ended_run_is_neither_paused_nor_resumed(store: Store, paused: bool) -> None:
    run = ended(store)

    with pytest.raises(NotAllowed, match=rf"^run {run.public_id} has ended \(completed\); only a run in progress can"):
        store(runs.pause, run, paused=paused)


def test_runs_past_their_deadline_expire(store: Store) -> None:
    overdue = [submit(store), start(store)]
    done = ended(store)
    future, none = submit(store), submit(store)
    store.sql("UPDATE run SET deadline = created_at WHERE id <> :id", id=none.id)
    store.sql("UPDATE run SET deadline = clock_timestamp() + interval '1 hour' WHERE id = :id", id=future.id)

    assert sorted(store(runs.expire_overdue)) == [run.id for run in overdue]
    assert store(runs.expire_overdue) == []
    assert store.rows("SELECT state, ending FROM run ORDER BY id") == [
        *[("expiring", "expired")] * 2,
        ("completed", "completed"),
        *[("validating", "completed")] * 2,
    ]
    assert store(runs.view, done.id).ended is True


# --- previews -------------------------------------------------------------------------------------------------


def test_only_previews_are_removed_with_all_they_hold(store: Store) -> None:
    preview, batch = start(store, 2, kind="preview"), start(store, 2)
    for run in (preview, batch):
        store(runs.remove, run.id)

    assert store.values("SELECT id FROM run") == [batch.id]
    assert store.values("SELECT DISTINCT run_id FROM query UNION SELECT run_id FROM shard") == [batch.id]


def test_previews_nobody_waits_for_are_removed(store: Store) -> None:
    old, fresh, batch = (submit(store, kind=kind) for kind in ("preview", "preview", "batch"))
    store.sql("UPDATE run SET created_at = created_at - interval '2 hours' WHERE id <> :id", id=fresh.id)

    assert [store(runs.remove_stale_preview, older_than_s=LONG_S) for _ in range(2)] == [True, False]
    assert store.values("SELECT id FROM run ORDER BY id") == [fresh.id, batch.id]
    assert old.id not in store.values("SELECT run_id FROM query")


# --- telling --------------------------------------------------------------------------------------------------


def test_failed_lines_are_grouped_by_their_cause(store: Store) -> None:
    """What is in quotes, and numbers, do not make two causes of one."""
    run = ended(store, [*accepted(7), rejected(8), rejected(10)], failing=range(6))
    messages = {0: 'no "a" in 12', 1: "no 'b' in 7", 2: 'no "" in 0', 3: "another", 4: "another", 5: "no c in 1"}
    for idx, message in messages.items():
        store.sql("UPDATE outcome SET error_message = :message WHERE idx = :idx", message=message, idx=idx)
    store.sql("UPDATE outcome SET error_code = 'x' WHERE idx = 4")

    causes = store(runs.causes, run)

    assert causes[0] == Cause("engine_error", min(messages[i] for i in range(3)), 3, [1, 2, 3], ["q0", "q1", "q2"])
    assert causes[1] == Cause("invalid_json", "This line is not JSON.", 2, [8, 10], [])
    assert sorted((cause.code, cause.message, cause.lines, cause.sample_lines) for cause in causes[2:]) == [
        ("engine_error", "another", 1, [4]),
        ("engine_error", "no c in 1", 1, [6]),
        ("x", "another", 1, [5]),
    ]


def test_a_cause_shows_its_first_five_lines(store: Store) -> None:
    (cause,) = store(runs.causes, ended(store, 8, failing=range(8)))

    assert (cause.lines, cause.sample_lines) == (8, [1, 2, 3, 4, 5])
    assert cause.sample_ids == ["q0", "q1", "q2", "q3", "q4"]


def test_a_run_without_failures_has_no_cause(store: Store) -> None:
    assert store(runs.causes, ended(store)) == []


def test_the_experts_of_a_run_are_counted_by_first_choice(store: Store) -> None:
    run = ended(store, [AcceptedLine(n, f"q{n}", "t") for n in range(1, 6)])
    for idx, (names, in_scope) in enumerate([(["b", "a"], 1), (["b"], 1), (["a", "b"], 0), ([], 0), (["c"], 1)]):
        experts = ",".join(f'{{"name": "{name}", "weight": {1 / len(names)}}}' for name in names)
        store.sql(
            "UPDATE decision SET experts = CAST(:experts AS jsonb), in_scope = :in_scope WHERE idx = :idx",
            experts=f"[{experts}]",
            in_scope=bool(in_scope),
            idx=idx,
        )

    assert store(runs.experts_used, run) == [("b", 2, 0.75), ("a", 1, 0.5), ("c", 1, 1.0)]
    assert store(runs.outside, run) == 2
