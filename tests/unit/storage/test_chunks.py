"""Chunks: claimed by one worker, answered in one transaction, counted once."""

from dataclasses import replace
from typing import Any

import pytest
from psycopg.errors import CheckViolation
from sqlalchemy.exc import IntegrityError

from storage import catalogue, chunks, expert_versions, leases, runs, shards, versions
from storage.catalogue import ExpertView, NewExpert
from storage.chunks import AnswerRow, ChunkQuery, KnowledgeRef
from storage.expert_versions import Adapter
from storage.leases import LeaseLost
from storage.shards import NewChunk
from storage.submitting import AcceptedLine
from tests.unit.storage.builders import (
    CARD,
    OWNER,
    TTL_S,
    Store,
    answer,
    answer_rows,
    claim_chunk,
    claim_routing,
    decision,
    put_expert,
    route,
    settle_answers,
    shard_ids,
    start,
    state_of,
)


@pytest.fixture
def expert(store: Store) -> ExpertView:
    return put_expert(store)


def routed_chunks(store: Store, expert: ExpertView, n: int = 4, chunk_size: int = 2) -> list[int]:
    """The chunks of a run of one shard."""
    (shard_id,) = shard_ids(store, start(store, n, shard_size=n))
    return route(store, shard_id, [expert], chunk_size)


def no_claim(store: Store, chunk_id: int) -> bool:
    return store(chunks.claim, chunk_id, owner=OWNER, ttl_s=TTL_S, max_attempts=3) is None


def test_a_claim_carries_everything_that_answering_needs(store: Store, expert: ExpertView) -> None:
    run = start(store, 3, shard_size=3)
    (shard_id,) = shard_ids(store, run)
    (chunk_id,) = route(store, shard_id, [expert])

    chunk = claim_chunk(store, chunk_id)

    assert (chunk.lease.table, chunk.lease.id, chunk.lease.epoch, chunk.lease.attempts) == ("chunk", chunk_id, 1, 1)
    assert (chunk.run_id, chunk.run, chunk.shard_id) == (run.id, run.public_id, shard_id)
    assert (chunk.expert_id, chunk.expert, chunk.version) == (expert.id, "alpha", 1)
    assert (chunk.engine, chunk.card, chunk.adapter) == ("echo", CARD, None)
    assert (chunk.knowledge, chunk.idxs) == (None, [0, 1, 2])


def test_a_chunk_keeps_the_version_and_the_knowledge_it_was_routed_with(store: Store) -> None:
    put_expert(store)
    given: dict[str, Any] = {"content_sha256": "c", "n_documents": 1, "n_passages": 2}
    expert_id = store(catalogue.expert, "alpha").id
    store(versions.add_knowledge, expert_id, artefact="first", artefact_sha256="aa", **given)
    (chunk_id,) = routed_chunks(store, store(catalogue.expert, "alpha"), 2)

    store(catalogue.put_expert, NewExpert("alpha", "extractive", {"title": "New"}, [], []))
    store(versions.add_knowledge, expert_id, artefact="second", artefact_sha256="bb", **given)
    chunk = claim_chunk(store, chunk_id)

    assert (chunk.engine, chunk.card) == ("echo", CARD)
    assert chunk.knowledge == KnowledgeRef(1, "first", "aa")


def test_a_chunk_keeps_the_adapter_it_was_routed_with(store: Store, expert: ExpertView) -> None:
    adapters = [Adapter(f"adapters/{n}", f"tree of {n}", f"hash of {n}", "base") for n in (2, 3)]
    claimed = []
    for adapter in adapters:
        number = store(expert_versions.add_version, expert.id, engine="lora", card={}, adapter=adapter)
        store(expert_versions.promote, "alpha", number)
        claimed += routed_chunks(store, store(catalogue.expert, "alpha"), 2)

    chunks_now = [claim_chunk(store, chunk_id) for chunk_id in claimed]

    assert [(chunk.version, chunk.engine, chunk.adapter) for chunk in chunks_now] == [
        (2, "lora", adapters[0]),
        (3, "lora", adapters[1]),
    ]


def test_an_answer_keeps_the_tokens_it_took_and_why_it_ended(store: Store, expert: ExpertView) -> None:
    (chunk_id,) = routed_chunks(store, expert, 2)
    chunk = claim_chunk(store, chunk_id)
    first, second = answer_rows(chunk)
    counted = replace(first, prompt_tokens=120, completion_tokens=0, finish_reason="length")

    store(chunks.settle_answers, chunk, [counted, second], busy_ms=1.0)

    assert store.rows("SELECT prompt_tokens, completion_tokens, finish_reason FROM answer ORDER BY idx") == [
        (120, 0, "length"),
        (None, None, None),
    ]


def test_a_chunk_is_claimed_once(store: Store, expert: ExpertView) -> None:
    chunk_id, other = routed_chunks(store, expert)
    chunk = claim_chunk(store, chunk_id)

    assert no_claim(store, chunk_id)
    settle_answers(store, chunk)
    assert no_claim(store, chunk_id)
    assert not no_claim(store, other)


@pytest.mark.parametrize("reason", ["paused", "cancelling", "resting", "unknown"])
def test_there_is_nothing_to_claim(store: Store, expert: ExpertView, reason: str) -> None:
    chunk_id, _ = routed_chunks(store, expert)
    (run,) = store(runs.recent, limit=1)
    if reason == "paused":
        store(runs.pause, run, paused=True)
    elif reason == "cancelling":
        store(runs.cancel, run)
    elif reason == "resting":
        store(leases.give_back, claim_chunk(store, chunk_id).lease, 3600)

    assert no_claim(store, 0 if reason == "unknown" else chunk_id)


def test_the_queries_come_in_order_with_their_embeddings(store: Store, expert: ExpertView) -> None:
    lines = [AcceptedLine(i + 1, f"q{i}", f"question {i}", {"n": i} if i else None) for i in range(3)]
    (shard_id,) = shard_ids(store, start(store, lines, shard_size=3))
    shard = claim_routing(store, shard_id)
    decisions = [decision(0, ["alpha"]), decision(1, []), decision(2, ["alpha"])]
    object.__setattr__(decisions[2], "embedding", b"\x00\x01\xff")
    made = [NewChunk("alpha", expert.id, expert.version_id, None, [2, 0])]
    hint = store(shards.settle_routing, shard, decisions, made, router_version_id=1, route_ms=1)
    assert hint is not None

    chunk = claim_chunk(store, hint.chunks[0].chunk_id)

    assert store(chunks.queries, chunk) == [
        ChunkQuery(0, "question 0", None, None),
        ChunkQuery(2, "question 2", {"n": 2}, b"\x00\x01\xff"),
    ]


def test_settling_stores_the_answers_and_tells_who_was_last(store: Store, expert: ExpertView) -> None:
    first, second = (claim_chunk(store, chunk_id) for chunk_id in routed_chunks(store, expert))
    passages = [{"expert": "alpha", "document": "d", "start": 0, "end": 3, "score": 0.5}]
    answers = [
        AnswerRow(0, "yes", True, 0.75, passages, 1.5),
        AnswerRow(1, None, False, 0.0, [], 2.5, error_code="engine_error", error_message="It broke."),
    ]

    assert store(chunks.settle_answers, first, answers, busy_ms=12.0) is False
    assert settle_answers(store, second) is True

    assert store.rows(
        "SELECT idx, expert_id, chunk_id, epoch, text, answered, confidence, passages, ms, error_code, error_message"
        " FROM answer WHERE idx < 2 ORDER BY idx"
    ) == [
        (0, expert.id, first.lease.id, 1, "yes", True, 0.75, passages, 1.5, None, None),
        (1, expert.id, first.lease.id, 1, None, False, 0.0, [], 2.5, "engine_error", "It broke."),
    ]
    assert store.rows("SELECT state, busy_ms FROM chunk ORDER BY id") == [("done", 12.0), ("done", 4.0)]
    assert store.value("SELECT chunks_left FROM shard") == 0


def test_a_repeated_settle_counts_nothing_twice(store: Store, expert: ExpertView) -> None:
    first, _ = (claim_chunk(store, chunk_id) for chunk_id in routed_chunks(store, expert))
    settle_answers(store, first)

    assert settle_answers(store, first) is False

    assert store.value("SELECT chunks_left FROM shard") == 1
    assert store.value("SELECT count(*) FROM answer") == 2
    assert store.rows("SELECT n_queries, n_chunks FROM expert_hour") == [(2, 1)]


def test_a_fenced_settle_stores_nothing(store: Store, expert: ExpertView) -> None:
    (chunk_id,) = routed_chunks(store, expert, 2)
    late = claim_chunk(store, chunk_id)
    store(leases.give_back, late.lease, 0)
    current = claim_chunk(store, chunk_id)

    with pytest.raises(LeaseLost):
        settle_answers(store, late)
    with pytest.raises(LeaseLost):
        store(chunks.settle_dead, late, answer_rows(late)[0])

    assert store.value("SELECT count(*) FROM answer") == 0
    assert store.value("SELECT count(*) FROM expert_hour") == 0
    assert state_of(store, current.lease) == "leased"
    assert settle_answers(store, current) is True
    assert store.values("SELECT epoch FROM answer") == [2, 2]


@pytest.mark.parametrize(
    ("text", "code", "confidence"), [("yes", "engine_error", 0.5), (None, None, 0.5), ("yes", None, 1.5)]
)
def test_an_impossible_answer_leaves_the_chunk_as_it_was(
    store: Store, expert: ExpertView, text: str | None, code: str | None, confidence: float
) -> None:
    (chunk_id,) = routed_chunks(store, expert, 1)
    chunk = claim_chunk(store, chunk_id)
    impossible = AnswerRow(0, text, True, confidence, [], 1.0, code, None)

    with pytest.raises((IntegrityError, CheckViolation)):
        store(chunks.settle_answers, chunk, [impossible], busy_ms=1.0)

    assert state_of(store, chunk.lease) == "leased"
    assert store.value("SELECT chunks_left FROM shard") == 1
    assert settle_answers(store, chunk) is True


def test_a_given_up_query_leaves_the_count_of_its_shard(store: Store, expert: ExpertView) -> None:
    chunk_id, other = routed_chunks(store, expert, 2, 1)
    chunk = claim_chunk(store, chunk_id)
    row = AnswerRow(0, None, False, 0.0, [], 0.0, "worker_killed", "Why.")

    assert store(chunks.settle_dead, chunk, row) == 1

    assert state_of(store, chunk.lease) == "dead"
    assert store.rows("SELECT idx, error_code, error_message FROM answer") == [(0, "worker_killed", "Why.")]
    assert store.value("SELECT count(*) FROM expert_hour") == 0
    assert answer(store, other) is True


def test_the_hour_of_an_expert_adds_up(store: Store, expert: ExpertView) -> None:
    other = put_expert(store, "beta")
    for chunk_id in routed_chunks(store, expert, 5, 2):
        chunk = claim_chunk(store, chunk_id)
        answers = [
            AnswerRow(idx, None, False, 0.0, [], 1.0, "engine_error", "It broke.")
            if idx == 4
            else AnswerRow(idx, "a", idx != 3, 0.25, [], 1.0)
            for idx in chunk.idxs
        ]
        store(chunks.settle_answers, chunk, answers, busy_ms=10.0)

    assert store.rows(
        "SELECT expert_id, hour = date_trunc('hour', hour), sum(n_queries), sum(n_answered), sum(n_errors),"
        " sum(n_chunks), sum(busy_ms), sum(confidence_sum) FROM expert_hour GROUP BY 1, 2"
    ) == [(expert.id, True, 5, 3, 1, 3, 30.0, 1.0)]
    assert store.value("SELECT count(*) FROM expert_hour WHERE expert_id = :id", id=other.id) == 0
