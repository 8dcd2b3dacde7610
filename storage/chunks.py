"""Chunks: the queries of one shard that one expert answers together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json, copy_rows
from storage.expert_versions import Adapter
from storage.leases import Lease, LeaseLost, settle
from storage.states import ChunkState

_CLAIM = """
UPDATE chunk c SET state = 'leased', epoch = c.epoch + 1, attempts = c.attempts + 1, owner = :owner,
    lease_until = clock_timestamp() + make_interval(secs => :ttl)
FROM run r, expert e, expert_version v
WHERE c.id = :id AND r.id = c.run_id AND e.id = c.expert_id AND v.id = c.expert_version_id
  AND r.state = 'in_progress' AND r.paused_at IS NULL
  AND ((c.state = 'queued' AND c.not_before <= clock_timestamp())
       OR (c.state = 'leased' AND c.lease_until < clock_timestamp() AND c.attempts < :max_attempts))
RETURNING c.id, c.epoch, c.attempts, c.run_id, c.shard_id, c.idxs, c.knowledge_id, r.public_id, e.id AS expert_id,
          e.name AS expert, v.number AS version, v.engine, v.card, v.adapter, v.adapter_tree_sha256,
          v.adapter_sha256, v.base_sha256
"""


@dataclass(frozen=True, slots=True)
class KnowledgeRef:
    """Where a built index lies, and what its bytes must hash to."""

    number: int
    artefact: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ClaimedChunk:
    lease: Lease
    run_id: int
    run: str
    shard_id: int
    expert_id: int
    expert: str
    version: int
    engine: str
    card: dict[str, Any]
    adapter: Adapter | None
    knowledge: KnowledgeRef | None
    idxs: list[int]


@dataclass(frozen=True, slots=True)
class ChunkQuery:
    """One query to answer; `embedding` is float16 bytes or None where no encoder was in use."""

    idx: int
    text: str
    request: dict[str, Any] | None
    embedding: bytes | None


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One answer ready to be stored: a text, or an error code with its message."""

    idx: int
    text: str | None
    answered: bool
    confidence: float
    passages: Sequence[dict[str, Any]]
    ms: float
    error_code: str | None = None
    error_message: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None


def claim(connection: Connection, chunk_id: int, *, owner: str, ttl_s: float, max_attempts: int) -> ClaimedChunk | None:
    """The chunk, ours to answer until its lease ends; None when there is nothing to do."""
    row = connection.execute(
        text(_CLAIM), {"id": chunk_id, "owner": owner, "ttl": ttl_s, "max_attempts": max_attempts}
    ).one_or_none()
    if row is None:
        return None
    knowledge = None
    if row.knowledge_id is not None:
        ref = connection.execute(
            text("SELECT number, artefact, artefact_sha256 FROM knowledge WHERE id = :id"), {"id": row.knowledge_id}
        ).one()
        knowledge = KnowledgeRef(*ref)
    return ClaimedChunk(
        lease=Lease("chunk", row.id, row.epoch, row.attempts, ttl_s),
        run_id=row.run_id,
        run=row.public_id,
        shard_id=row.shard_id,
        expert_id=row.expert_id,
        expert=row.expert,
        version=row.version,
        engine=row.engine,
        card=row.card,
        adapter=None if row.adapter is None else _adapter(row),
        knowledge=knowledge,
        idxs=row.idxs,
    )


def _adapter(row: Any) -> Adapter:
    return Adapter(row.adapter, row.adapter_tree_sha256, row.adapter_sha256, row.base_sha256)


def queries(connection: Connection, chunk: ClaimedChunk) -> list[ChunkQuery]:
    """The chunk's queries with the embeddings that routing made, in order of `idx`."""
    rows = connection.execute(
        text(
            "SELECT q.idx, q.text, q.request, d.embedding FROM query q"
            " JOIN decision d ON d.run_id = q.run_id AND d.idx = q.idx"
            " WHERE q.run_id = :run AND q.idx = ANY(:idxs) ORDER BY q.idx"
        ),
        {"run": chunk.run_id, "idxs": chunk.idxs},
    )
    return [ChunkQuery(*row) for row in rows]


def settle_answers(
    connection: Connection, chunk: ClaimedChunk, answers: Sequence[AnswerRow], *, busy_ms: float
) -> bool:
    """Store the answers and close the chunk; True when its shard has no chunk left. Raises LeaseLost."""
    if not settle(connection, chunk.lease, ChunkState.DONE, busy_ms=busy_ms):
        return False
    left = _write(connection, chunk, answers)
    _add_to_hour(connection, chunk, answers, busy_ms)
    return left == 0


def settle_dead(connection: Connection, chunk: ClaimedChunk, answer: AnswerRow) -> int:
    """Give up the single query of a chunk that killed its workers; the number of chunks its shard has left."""
    settle(connection, chunk.lease, ChunkState.DEAD)
    return _write(connection, chunk, [answer])


def _write(connection: Connection, chunk: ClaimedChunk, answers: Sequence[AnswerRow]) -> int:
    copy_rows(
        connection,
        "answer",
        (
            "run_id",
            "idx",
            "expert_id",
            "chunk_id",
            "epoch",
            "text",
            "answered",
            "confidence",
            "passages",
            "ms",
            "error_code",
            "error_message",
            "prompt_tokens",
            "completion_tokens",
            "finish_reason",
        ),
        (
            (
                chunk.run_id,
                a.idx,
                chunk.expert_id,
                chunk.lease.id,
                chunk.lease.epoch,
                a.text,
                a.answered,
                a.confidence,
                as_json(a.passages),
                a.ms,
                a.error_code,
                a.error_message,
                a.prompt_tokens,
                a.completion_tokens,
                a.finish_reason,
            )
            for a in answers
        ),
    )
    left: int | None = connection.execute(
        text(
            "UPDATE shard SET chunks_left = chunks_left - 1 WHERE id = :shard AND state = 'answering'"
            " RETURNING chunks_left"
        ),
        {"shard": chunk.shard_id},
    ).scalar_one_or_none()
    if left is None:
        raise LeaseLost(f"shard {chunk.shard_id} waits for no answers any more")
    return left


def _add_to_hour(connection: Connection, chunk: ClaimedChunk, answers: Sequence[AnswerRow], busy_ms: float) -> None:
    connection.execute(
        text(
            """INSERT INTO expert_hour AS h
                   (expert_id, hour, n_queries, n_answered, n_errors, n_chunks, busy_ms, confidence_sum)
               VALUES (:expert, date_trunc('hour', clock_timestamp()), :queries, :answered, :errors, 1, :busy,
                       :confidence)
               ON CONFLICT (expert_id, hour) DO UPDATE SET
                   n_queries = h.n_queries + excluded.n_queries,
                   n_answered = h.n_answered + excluded.n_answered,
                   n_errors = h.n_errors + excluded.n_errors,
                   n_chunks = h.n_chunks + 1,
                   busy_ms = h.busy_ms + excluded.busy_ms,
                   confidence_sum = h.confidence_sum + excluded.confidence_sum"""
        ),
        {
            "expert": chunk.expert_id,
            "queries": len(answers),
            "answered": sum(a.answered for a in answers),
            "errors": sum(a.error_code is not None for a in answers),
            "busy": busy_ms,
            "confidence": sum(a.confidence for a in answers),
        },
    )
