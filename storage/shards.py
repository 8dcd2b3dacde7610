"""Shards: cutting a run into them, routing them, combining their answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json, copy_rows
from storage.hints import AnswerHint, ChordHint
from storage.leases import Lease, LeaseLost, settle
from storage.states import SHARD_OPEN, RunState, ShardState, in_list

# A router reads no more of a text: its encoder stops long before, and a shard of huge lines must fit into memory.
ROUTED_CHARS = 20_000
INTERACTIVE = 8  # priority from which a run uses the interactive queues

# Lines of a run that still need an outcome, as a condition on `q`.
OPEN_LINE = """NOT q.rejected AND NOT EXISTS (
    SELECT 1 FROM outcome o WHERE o.run_id = q.run_id AND o.idx = q.idx)"""

_CUT = f"""
INSERT INTO shard (run_id, start, stop, state, n_queries)
SELECT :run, min(idx), max(idx) + 1, '{ShardState.PLANNED}', count(*)
FROM (
    SELECT q.idx, (row_number() OVER (ORDER BY q.idx) - 1) / :size AS piece
    FROM query q WHERE q.run_id = :run AND {OPEN_LINE}
) numbered
GROUP BY piece ORDER BY piece
"""

_CLAIM = """
UPDATE shard s SET state = :leased, epoch = s.epoch + 1, attempts = s.attempts + 1, owner = :owner,
    lease_until = clock_timestamp() + make_interval(secs => :ttl)
FROM run r
WHERE s.id = :id AND r.id = s.run_id AND r.state = 'in_progress' AND r.paused_at IS NULL
  AND ((s.state = :waiting AND s.chunks_left = 0 AND s.not_before <= clock_timestamp())
       OR (s.state = :leased AND s.lease_until < clock_timestamp() AND s.attempts < :max_attempts))
RETURNING s.id, s.epoch, s.attempts, s.run_id, s.start, s.stop, r.public_id, r.kind, r.top_k, r.strategy,
          r.priority >= 8 AS interactive, extract(epoch FROM r.created_at)::bigint AS created
"""


@dataclass(frozen=True, slots=True)
class ClaimedShard:
    lease: Lease
    run_id: int
    start: int
    stop: int
    run: str
    route_only: bool
    top_k: int
    strategy: str
    interactive: bool
    created: int


@dataclass(frozen=True, slots=True)
class OpenQuery:
    idx: int
    text: str
    pinned: str | None


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A routing decision ready to be stored; `embedding` is float16 bytes or None."""

    idx: int
    experts: Sequence[dict[str, Any]]
    confidence: float
    coverage: float
    in_scope: bool
    reason: str
    explanation: dict[str, Any]
    embedding: bytes | None


@dataclass(frozen=True, slots=True)
class NewChunk:
    expert: str
    expert_id: int
    expert_version_id: int
    knowledge_id: int | None
    idxs: list[int]


@dataclass(frozen=True, slots=True)
class AnsweredQuery:
    """Everything that combining one query needs."""

    idx: int
    line_no: int
    custom_id: str | None
    experts: list[dict[str, Any]]
    confidence: float
    coverage: float
    in_scope: bool
    reason: str
    router_version: int
    route_ms: float
    # One per expert that was asked: what storage.chunks.AnswerRow holds, plus "expert", "knowledge", "attempt" and
    # "adapter", its hash.
    answers: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    idx: int
    line: str
    error_code: str | None = None
    error_message: str | None = None


def plan(connection: Connection, run_id: int, shard_size: int) -> bool:
    """Cut the open lines of a run into shards; True when there were none and the run's files are due."""
    run = connection.execute(
        text("SELECT state FROM run WHERE id = :run AND state = 'validating' FOR UPDATE"), {"run": run_id}
    ).one_or_none()
    if run is None:  # planned before
        return False
    cut(connection, run_id, shard_size)
    connection.execute(
        text("UPDATE run SET state = 'in_progress', started_at = clock_timestamp() WHERE id = :run"), {"run": run_id}
    )
    return advance(connection, run_id)


def cut(connection: Connection, run_id: int, shard_size: int) -> None:
    """Write the planned shards over all lines of the run that have no outcome."""
    connection.execute(text(_CUT), {"run": run_id, "size": shard_size})


def claim_for_routing(
    connection: Connection, shard_id: int, *, owner: str, ttl_s: float, max_attempts: int
) -> ClaimedShard | None:
    """The shard, ours to route until its lease ends; None when there is nothing to do (done, taken, paused…)."""
    return _claim(connection, shard_id, ShardState.QUEUED, ShardState.ROUTING, owner, ttl_s, max_attempts)


def claim_for_combining(
    connection: Connection, shard_id: int, *, owner: str, ttl_s: float, max_attempts: int
) -> ClaimedShard | None:
    """The shard, ours to combine; None when chunks are still open or there is nothing to do."""
    return _claim(connection, shard_id, ShardState.ANSWERING, ShardState.COMBINING, owner, ttl_s, max_attempts)


def _claim(
    connection: Connection, shard_id: int, waiting: str, leased: str, owner: str, ttl_s: float, max_attempts: int
) -> ClaimedShard | None:
    row = connection.execute(
        text(_CLAIM),
        {
            "id": shard_id,
            "waiting": waiting,
            "leased": leased,
            "owner": owner,
            "ttl": ttl_s,
            "max_attempts": max_attempts,
        },
    ).one_or_none()
    if row is None:
        return None
    return ClaimedShard(
        lease=Lease("shard", row.id, row.epoch, row.attempts, ttl_s),
        run_id=row.run_id,
        start=row.start,
        stop=row.stop,
        run=row.public_id,
        route_only=row.kind == "preview",
        top_k=row.top_k,
        strategy=row.strategy,
        interactive=row.interactive,
        created=row.created,
    )


def open_queries(connection: Connection, shard: ClaimedShard) -> list[OpenQuery]:
    """The lines of the shard that have no outcome yet, in order."""
    rows = connection.execute(
        text(
            f"SELECT q.idx, left(q.text, {ROUTED_CHARS}), q.pinned FROM query q"
            f" WHERE q.run_id = :run AND q.idx >= :start AND q.idx < :stop AND {OPEN_LINE} ORDER BY q.idx"
        ),
        {"run": shard.run_id, "start": shard.start, "stop": shard.stop},
    )
    return [OpenQuery(*row) for row in rows]


def settle_routing(
    connection: Connection,
    shard: ClaimedShard,
    decisions: Iterable[DecisionRow],
    chunks: Sequence[NewChunk],
    *,
    router_version_id: int,
    route_ms: float,
) -> ChordHint | None:
    """Store the decisions and the chunks they lead to; the chord to send once this is committed.

    None when there is nothing to send: a preview ends here, and a shard that had settled before is left to the
    sweeper. Raises LeaseLost.
    """
    state = ShardState.DONE if shard.route_only else ShardState.ANSWERING
    if not settle(
        connection,
        shard.lease,
        state,
        attempts=0,
        route_ms=route_ms,
        chunks_left=0 if shard.route_only else len(chunks),
    ):
        return None
    n_decided = copy_rows(
        connection,
        "decision",
        (
            "run_id",
            "idx",
            "router_version_id",
            "experts",
            "confidence",
            "coverage",
            "in_scope",
            "reason",
            "explanation",
            "embedding",
        ),
        (
            (
                shard.run_id,
                d.idx,
                router_version_id,
                as_json(d.experts),
                d.confidence,
                d.coverage,
                d.in_scope,
                d.reason,
                as_json(d.explanation),
                d.embedding,
            )
            for d in decisions
        ),
    )
    if shard.route_only:
        _count(connection, shard.run_id, n_ok=n_decided, n_error=0)
        return None
    return ChordHint(shard.lease.id, _insert_chunks(connection, shard, chunks), shard.interactive)


def _insert_chunks(connection: Connection, shard: ClaimedShard, chunks: Sequence[NewChunk]) -> tuple[AnswerHint, ...]:
    hints = []
    for chunk in chunks:
        chunk_id = connection.execute(
            text(
                "INSERT INTO chunk (run_id, shard_id, expert_id, expert_version_id, knowledge_id, idxs, state,"
                " published_at) VALUES (:run, :shard, :expert, :version, :knowledge, :idxs, 'queued',"
                " clock_timestamp()) RETURNING id"
            ),
            {
                "run": shard.run_id,
                "shard": shard.lease.id,
                "expert": chunk.expert_id,
                "version": chunk.expert_version_id,
                "knowledge": chunk.knowledge_id,
                "idxs": chunk.idxs,
            },
        ).scalar_one()
        hints.append(AnswerHint(chunk_id, chunk.expert, shard.interactive))
    return tuple(hints)


_ANSWERED = f"""
SELECT q.idx, q.line_no, q.custom_id, d.experts, d.confidence, d.coverage, d.in_scope, d.reason,
       d.router_version_id AS router_version, coalesce(s.route_ms / greatest(s.n_queries, 1), 0) AS route_ms,
       coalesce(a.answers, '[]') AS answers
FROM shard s
JOIN query q ON q.run_id = s.run_id AND q.idx >= s.start AND q.idx < s.stop
JOIN decision d ON d.run_id = q.run_id AND d.idx = q.idx
LEFT JOIN LATERAL (
    SELECT json_agg(json_build_object(
        'expert', e.name, 'text', a.text, 'answered', a.answered, 'confidence', a.confidence,
        'passages', a.passages, 'ms', a.ms, 'attempt', a.epoch, 'knowledge', k.number, 'adapter', v.adapter_sha256,
        'prompt_tokens', a.prompt_tokens, 'completion_tokens', a.completion_tokens, 'finish_reason', a.finish_reason,
        'error_code', a.error_code, 'error_message', a.error_message)) AS answers
    FROM answer a
    JOIN expert e ON e.id = a.expert_id
    JOIN chunk c ON c.id = a.chunk_id
    JOIN expert_version v ON v.id = c.expert_version_id
    LEFT JOIN knowledge k ON k.id = c.knowledge_id
    WHERE a.run_id = q.run_id AND a.idx = q.idx
) a ON true
WHERE s.id = :shard AND {OPEN_LINE}
ORDER BY q.idx
"""


def answered_queries(connection: Connection, shard: ClaimedShard) -> list[AnsweredQuery]:
    """The open lines of the shard with their decisions and answers, in order."""
    rows = connection.execute(text(_ANSWERED), {"shard": shard.lease.id})
    return [AnsweredQuery(*row) for row in rows]


def settle_combining(
    connection: Connection, shard: ClaimedShard, outcomes: Sequence[OutcomeRow], *, combine_ms: float
) -> bool:
    """Record the outcomes and close the shard; True when this was the run's last and its files are due.

    Raises LeaseLost, also when the run was cancelled meanwhile: an outcome is never recorded after that.
    """
    if not settle(connection, shard.lease, ShardState.DONE, combine_ms=combine_ms):
        return False
    return record_outcomes(connection, shard, outcomes)


def record_outcomes(connection: Connection, shard: ClaimedShard, outcomes: Sequence[OutcomeRow]) -> bool:
    """Write outcomes under a lease that was just settled; True when the run has no open shard left."""
    copy_rows(
        connection,
        "outcome",
        ("run_id", "idx", "ok", "error_code", "error_message", "shard_id", "epoch", "line"),
        (
            (
                shard.run_id,
                o.idx,
                o.error_code is None,
                o.error_code,
                o.error_message,
                shard.lease.id,
                shard.lease.epoch,
                o.line,
            )
            for o in outcomes
        ),
    )
    n_error = sum(o.error_code is not None for o in outcomes)
    return _count(connection, shard.run_id, n_ok=len(outcomes) - n_error, n_error=n_error)


def _count(connection: Connection, run_id: int, *, n_ok: int, n_error: int) -> bool:
    counted = connection.execute(
        text("UPDATE run SET n_ok = n_ok + :ok, n_error = n_error + :error WHERE id = :run AND state = 'in_progress'"),
        {"ok": n_ok, "error": n_error, "run": run_id},
    )
    if counted.rowcount == 0:
        raise LeaseLost(f"run {run_id} no longer takes outcomes")
    return advance(connection, run_id)


def advance(connection: Connection, run_id: int) -> bool:
    """Move a run without open shards on to its files (a preview: to its end); True when it moved.

    The caller holds the run's row lock, so of two shards that end together the second sees the first one closed.
    """
    moved = connection.execute(
        text(
            f"""UPDATE run SET
                state = CASE kind WHEN 'preview' THEN '{RunState.COMPLETED}' ELSE '{RunState.FINALIZING}' END,
                published_at = clock_timestamp(), not_before = clock_timestamp(), attempts = 0,
                finished_at = CASE kind WHEN 'preview' THEN clock_timestamp() END
            WHERE id = :run AND state = 'in_progress'
              AND NOT EXISTS (SELECT 1 FROM shard WHERE run_id = :run AND state IN ({in_list(SHARD_OPEN)}))"""
        ),
        {"run": run_id},
    )
    return moved.rowcount == 1
