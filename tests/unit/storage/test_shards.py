"""Shards: cut over the open lines, routed once, combined once."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from storage import chunks, expert_versions, invariants, leases, runs, shards
from storage.catalogue import ExpertView
from storage.hints import AnswerHint, ChordHint
from storage.leases import LeaseLost
from storage.shards import NewChunk, OpenQuery
from storage.submitting import AcceptedLine, RejectedLine
from tests.unit.storage.builders import (
    CARD,
    OWNER,
    TTL_S,
    Store,
    accepted,
    answer,
    answer_all,
    answer_rows,
    bad,
    claim_chunk,
    claim_combining,
    claim_routing,
    combine,
    decision,
    good,
    put_expert,
    rejected,
    route,
    settle_combining,
    settle_routing,
    shard_ids,
    start,
    state_of,
    submit,
)


@pytest.fixture
def expert(store: Store) -> ExpertView:
    return put_expert(store)


# --- cutting --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(accepts=st.lists(st.booleans(), min_size=1, max_size=20), size=st.integers(1, 7))
def test_shards_hold_every_open_line_once_and_are_full_but_for_the_last(
    storage_engine: Engine, accepts: list[bool], size: int
) -> None:
    store = Store(storage_engine)
    lines = [AcceptedLine(n, f"q{n}", "text") if ok else rejected(n) for n, ok in enumerate(accepts, 1)]
    run = submit(store, lines)

    ended = store(shards.plan, run.id, size)

    usable = [idx for idx, ok in enumerate(accepts) if ok]
    pieces = [usable[at : at + size] for at in range(0, len(usable), size)]
    query = "SELECT start, stop, n_queries, state, depth, chunks_left FROM shard WHERE run_id = :run ORDER BY id"
    assert store.rows(query, run=run.id) == [(piece[0], piece[-1] + 1, len(piece), "planned", 0, 0) for piece in pieces]
    assert ended == (not usable)
    assert store(runs.view, run.id).state == ("in_progress" if usable else "finalizing")
    assert store(invariants.breaches, run.id) == []


def test_planning_twice_cuts_once(store: Store) -> None:
    run = submit(store, 3)

    assert [store(shards.plan, run.id, 2) for _ in range(2)] == [False, False]
    assert len(shard_ids(store, run)) == 2
    assert store.value("SELECT started_at IS NOT NULL FROM run")


@pytest.mark.parametrize("unknown", [True, False])
def test_only_a_run_that_waits_for_it_is_planned(store: Store, unknown: bool) -> None:
    run = submit(store, 3)
    store(runs.cancel, run)

    assert store(shards.plan, 0 if unknown else run.id, 2) is False
    assert shard_ids(store, run) == []
    assert store(runs.view, run.id).state == "cancelling"


# --- claiming -------------------------------------------------------------------------------------------------


def test_a_claimed_shard_says_what_its_run_wants(store: Store) -> None:
    run = start(store, 3, shard_size=3, priority=8, top_k=3, strategy="best")
    (shard_id,) = shard_ids(store, run)

    claimed = claim_routing(store, shard_id)

    assert (claimed.lease.table, claimed.lease.id, claimed.lease.epoch) == ("shard", shard_id, 1)
    assert (claimed.run_id, claimed.run, claimed.start, claimed.stop) == (run.id, run.public_id, 0, 3)
    assert (claimed.route_only, claimed.top_k, claimed.strategy, claimed.interactive) == (False, 3, "best", True)
    assert claimed.created == round(run.created_at.timestamp())


@pytest.mark.parametrize(("priority", "interactive"), [(7, False), (8, True)])
def test_runs_of_high_priority_are_interactive(store: Store, priority: int, interactive: bool) -> None:
    (shard_id,) = shard_ids(store, start(store, 2, priority=priority))

    assert claim_routing(store, shard_id).interactive is interactive


def unclaimed(store: Store, shard_id: int) -> bool:
    """Neither routing nor combining can be claimed."""
    return all(
        store(take, shard_id, owner=OWNER, ttl_s=TTL_S, max_attempts=3) is None
        for take in (shards.claim_for_routing, shards.claim_for_combining)
    )


@pytest.mark.parametrize("reason", ["paused", "cancelling", "planned", "leased", "resting", "done", "unknown"])
def test_there_is_nothing_to_claim(store: Store, expert: ExpertView, reason: str) -> None:
    run = start(store, 6, window=2)
    shard_id, _, planned = shard_ids(store, run)
    if reason == "paused":
        store(runs.pause, run, paused=True)
    elif reason == "cancelling":
        store(runs.cancel, run)
    elif reason == "leased":
        claim_routing(store, shard_id)
    elif reason == "resting":
        store(leases.give_back, claim_routing(store, shard_id).lease, 3600)
    elif reason == "done":
        for chunk_id in route(store, shard_id, [expert]):
            answer(store, chunk_id)
        combine(store, shard_id)

    assert unclaimed(store, {"planned": planned, "unknown": 0}.get(reason, shard_id))


def test_combining_waits_for_the_last_chunk(store: Store, expert: ExpertView) -> None:
    (shard_id,) = shard_ids(store, start(store, 2))
    first, second = route(store, shard_id, [expert], chunk_size=1)

    assert unclaimed(store, shard_id)
    assert answer(store, first) is False
    assert unclaimed(store, shard_id)
    assert answer(store, second) is True
    assert claim_combining(store, shard_id).lease.epoch == 2


# --- routing --------------------------------------------------------------------------------------------------


def test_the_lines_of_a_shard_come_in_order_and_without_the_rejected(store: Store) -> None:
    lines: list[AcceptedLine | RejectedLine] = [
        AcceptedLine(1, "a", "first"),
        rejected(2),
        AcceptedLine(3, "b", "second", None, "alpha"),
        AcceptedLine(4, "c", "third"),
    ]
    shard_id, _ = shard_ids(store, start(store, lines, shard_size=2))

    assert store(shards.open_queries, claim_routing(store, shard_id)) == [
        OpenQuery(0, "first", None),
        OpenQuery(2, "second", "alpha"),
    ]


def test_routing_stores_decisions_and_chunks_and_names_the_chord(store: Store, expert: ExpertView) -> None:
    other = put_expert(store, "beta")
    run = start(store, 3, shard_size=3)
    (shard_id,) = shard_ids(store, run)
    shard = claim_routing(store, shard_id)
    experts = [{"name": "alpha", "version": 1, "weight": 1.0}]
    made = [
        NewChunk("alpha", expert.id, expert.version_id, None, [0, 1]),
        NewChunk("beta", other.id, other.version_id, None, [1]),
    ]
    decisions = [decision(0, ["alpha"]), decision(1, ["alpha", "beta"]), decision(2, [])]

    hint = store(shards.settle_routing, shard, decisions, made, router_version_id=9, route_ms=6.0)

    ids = store.values("SELECT id FROM chunk ORDER BY id")
    assert hint == ChordHint(shard_id, (AnswerHint(ids[0], "alpha", False), AnswerHint(ids[1], "beta", False)), False)
    assert store.rows(
        "SELECT run_id, router_version_id, experts, confidence, coverage, in_scope, reason, explanation, embedding"
        " FROM decision WHERE idx = 0"
    ) == [(run.id, 9, experts, 0.75, 0.5, True, "By a test.", {}, None)]
    assert store.rows("SELECT shard_id, expert_id, idxs, state, depth, epoch FROM chunk ORDER BY id") == [
        (shard_id, expert.id, [0, 1], "queued", 0, 0),
        (shard_id, other.id, [1], "queued", 0, 0),
    ]
    assert store.rows("SELECT state, chunks_left, attempts, route_ms FROM shard") == [("answering", 2, 0, 6.0)]


def test_routing_that_is_settled_twice_is_stored_once(store: Store, expert: ExpertView) -> None:
    shard_id, _ = shard_ids(store, start(store))
    shard = claim_routing(store, shard_id)
    settle_routing(store, shard, [expert])

    assert store(shards.settle_routing, shard, [decision(0, [])], [], router_version_id=2, route_ms=1.0) is None
    assert store.value("SELECT count(*) FROM chunk") == 1
    assert store.values("SELECT router_version_id FROM decision") == [1, 1]


def test_a_shard_whose_lines_go_to_nobody_is_due_for_combining(store: Store) -> None:
    (shard_id,) = shard_ids(store, start(store, 2))
    shard = claim_routing(store, shard_id)
    nobody = [decision(0, []), decision(1, [])]

    hint = store(shards.settle_routing, shard, nobody, [], router_version_id=1, route_ms=1.0)

    assert hint == ChordHint(shard_id, (), False)
    claimed = claim_combining(store, shard_id)
    assert [query.answers for query in store(shards.answered_queries, claimed)] == [[], []]


def test_a_preview_ends_with_its_last_decision(store: Store) -> None:
    run = start(store, 4, kind="preview")
    first, second = (claim_routing(store, shard_id) for shard_id in shard_ids(store, run))
    assert first.route_only is True

    for shard in (first, first, second):
        decisions = [decision(idx, ["alpha"]) for idx in range(shard.start, shard.stop)]
        hint = store(shards.settle_routing, shard, decisions, [], router_version_id=1, route_ms=1.0)
        assert hint is None

    ended = store(runs.view, run.id)
    assert (ended.state, ended.n_ok, ended.n_error, ended.finished_at is not None) == ("completed", 4, 0, True)
    assert store.values("SELECT state FROM shard") == ["done", "done"]
    assert store(invariants.breaches) == []


# --- combining ------------------------------------------------------------------------------------------------


def test_a_combiner_gets_each_line_with_its_decision_and_all_its_answers(store: Store, expert: ExpertView) -> None:
    other = put_expert(store, "beta")
    (shard_id,) = shard_ids(store, start(store, 2))
    for chunk_id in route(store, shard_id, [expert, other]):
        answer(store, chunk_id)

    first, second = store(shards.answered_queries, claim_combining(store, shard_id))

    assert (first.idx, first.line_no, first.custom_id, first.route_ms) == (0, 1, "q0", 4.0)
    assert (first.confidence, first.coverage, first.in_scope, first.reason) == (0.75, 0.5, True, "By a test.")
    assert [chosen["name"] for chosen in first.experts] == ["alpha", "beta"]
    assert sorted(first.answers, key=lambda answer: str(answer["expert"])) == [
        {
            "expert": name,
            "text": f"{name} on 0",
            "answered": True,
            "confidence": 0.5,
            "passages": [],
            "ms": 1,
            "attempt": 1,
            "knowledge": None,
            "adapter": None,
            "prompt_tokens": None,
            "completion_tokens": None,
            "finish_reason": None,
            "error_code": None,
            "error_message": None,
        }
        for name in ("alpha", "beta")
    ]
    assert second.idx == 1


def test_a_combiner_learns_which_adapter_answered_and_what_it_took(store: Store, expert: ExpertView) -> None:
    """The adapter is the one the chunk was cut for, not the one that is live by now."""
    (shard_id,) = shard_ids(store, start(store, 2))
    store.sql(
        "UPDATE expert_version SET adapter = 'adapters/1', adapter_tree_sha256 = 'tree', adapter_sha256 = 'aa',"
        " base_sha256 = 'bb'"
    )
    (chunk_id,) = route(store, shard_id, [expert])
    number = store(
        expert_versions.add_version,
        expert.id,
        engine="echo",
        card=CARD,
        adapter=expert_versions.Adapter("adapters/2", "tree", "cc", "bb"),
    )
    store(expert_versions.promote, "alpha", number)
    chunk = claim_chunk(store, chunk_id)
    rows = [
        replace(row, prompt_tokens=7, completion_tokens=row.idx, finish_reason="length") for row in answer_rows(chunk)
    ]
    store(chunks.settle_answers, chunk, rows, busy_ms=1.0)

    found = [query.answers[0] for query in store(shards.answered_queries, claim_combining(store, shard_id))]

    told = ("adapter", "prompt_tokens", "completion_tokens", "finish_reason")
    assert [tuple(answer[key] for key in told) for answer in found] == [("aa", 7, 0, "length"), ("aa", 7, 1, "length")]


def combining(store: Store, expert: ExpertView, n: int = 4, size: int = 2) -> list[shards.ClaimedShard]:
    """The shards of one run, all of them claimed for combining."""
    claims = []
    for shard_id in shard_ids(store, start(store, n, shard_size=size)):
        for chunk_id in route(store, shard_id, [expert]):
            answer(store, chunk_id)
        claims.append(claim_combining(store, shard_id))
    return claims


def test_outcomes_are_stored_and_counted_and_the_last_shard_ends_the_run(store: Store, expert: ExpertView) -> None:
    first, second = combining(store, expert)

    assert store(shards.settle_combining, first, [good(first, 0), bad(first, 1)], combine_ms=3.0) is False
    run = store(runs.view, first.run_id)
    assert (run.state, run.n_ok, run.n_error) == ("in_progress", 1, 1)

    assert settle_combining(store, second) is True
    run = store(runs.view, first.run_id)
    assert (run.state, run.n_ok, run.n_error) == ("finalizing", 3, 1)
    assert store.rows("SELECT idx, ok, error_code, error_message, shard_id, epoch FROM outcome ORDER BY idx") == [
        (0, True, None, None, first.lease.id, 2),
        (1, False, "engine_error", "It broke.", first.lease.id, 2),
        (2, True, None, None, second.lease.id, 2),
        (3, True, None, None, second.lease.id, 2),
    ]
    assert store.value("SELECT combine_ms FROM shard WHERE id = :id", id=first.lease.id) == 3.0


def test_a_repeated_combining_counts_nothing_twice(store: Store, expert: ExpertView) -> None:
    first, _ = combining(store, expert)
    rows = [good(first, 0), good(first, 1)]
    store(shards.settle_combining, first, rows, combine_ms=1.0)

    assert store(shards.settle_combining, first, rows, combine_ms=1.0) is False
    assert store(runs.view, first.run_id).n_ok == 2


@pytest.mark.parametrize("ending", ["cancelling", "expiring"])
def test_no_outcome_is_recorded_once_the_run_is_being_ended(store: Store, expert: ExpertView, ending: str) -> None:
    first, _ = combining(store, expert)
    store.sql(f"UPDATE run SET state = '{ending}'")

    with pytest.raises(LeaseLost, match=rf"^run {first.run_id} no longer takes outcomes$"):
        settle_combining(store, first)

    assert store.value("SELECT count(*) FROM outcome") == 0
    assert state_of(store, first.lease) == "combining"


def test_a_fenced_combiner_records_nothing(store: Store, expert: ExpertView) -> None:
    late, _ = combining(store, expert)
    store(leases.give_back, late.lease, 0)
    current = claim_combining(store, late.lease.id)

    with pytest.raises(LeaseLost):
        settle_combining(store, late)

    assert store.value("SELECT count(*) FROM outcome") == 0
    assert settle_combining(store, current) is False
    assert store.values("SELECT DISTINCT epoch FROM outcome") == [3]


def test_two_outcomes_for_one_line_are_impossible(store: Store, expert: ExpertView) -> None:
    first, _ = combining(store, expert)

    with pytest.raises(Exception, match="outcome_pkey"):
        store(shards.settle_combining, first, [good(first, 0), good(first, 0)], combine_ms=1.0)

    assert store.value("SELECT count(*) FROM outcome") == 0


@pytest.mark.parametrize("shard_size", [1, 3, 10])
def test_a_run_goes_all_the_way_whatever_the_size_of_its_shards(
    store: Store, expert: ExpertView, shard_size: int
) -> None:
    lines: list[AcceptedLine | RejectedLine] = [*accepted(7), RejectedLine(8, "bad", "Bad.")]

    run = answer_all(store, start(store, lines, shard_size=shard_size), [expert], failing=[2, 5])

    assert (run.state, run.n_ok, run.n_error, run.n_rejected) == ("finalizing", 5, 3, 1)
    assert store(invariants.breaches) == []


def test_advancing_leaves_a_run_with_open_shards_alone(store: Store) -> None:
    run = start(store, 2)

    assert store(shards.advance, run.id) is False
    assert store(runs.view, run.id).state == "in_progress"
