"""What a crash, a lost message or a lost chord left behind is found here and made due again, missing pieces only.

Every function is safe to run any number of times, by any number of sweepers at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from storage.chunks import AnswerRow, ClaimedChunk, settle_dead
from storage.database import is_transient
from storage.hints import AnswerHint, CombineHint, FinalizeHint, Hint, JobHint, PlanHint, RouteHint
from storage.leases import GIVEN_BACK, Leasable, Lease, LeaseLost
from storage.lines import error_line
from storage.shards import OPEN_LINE, ClaimedShard, OutcomeRow, record_outcomes
from storage.states import ShardState

log = structlog.get_logger(__name__)

KILLED = "worker_killed"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a piece of work may fail before it is halved or given up, and how long it rests between tries."""

    max_attempts: int = 3
    back_off_s: float = 0.5
    back_off_limit_s: float = 60.0

    def allowed(self, depth: int, size: int) -> int:
        """Tries for a piece: a half is halved again at the first failure, only its single query gets all tries."""
        return self.max_attempts if depth == 0 or size == 1 else 1

    def rest_s(self, attempts: int) -> float:
        return float(min(self.back_off_s * 2 ** max(attempts - 1, 0), self.back_off_limit_s))


# Which leases a recovery takes away: those that ran out, or those of a process known to be dead.
EXPIRED = "lease_until < clock_timestamp()"
OWNED = "owner = :owner"


def recover(connection: Connection, patience: Patience, *, dead_owner: str | None = None, limit: int = 200) -> int:
    """Take back leases that ran out (or all of ``dead_owner``); the number of rows.

    A row goes back to waiting with back-off; after too many tries a chunk or shard is halved, and a single query is
    given up with the error ``worker_killed``.
    """
    which = OWNED if dead_owner is not None else EXPIRED
    parameters = {"owner": dead_owner, "limit": limit}
    n = 0
    for table, recover_one in _RECOVER.items():
        for row in _lost(connection, table, which, parameters):
            try:
                with connection.begin_nested():
                    recover_one(connection, row, patience)
                n += 1
            except (LeaseLost, DBAPIError) as error:
                # One row that cannot be recovered must not keep all others from it.
                if isinstance(error, DBAPIError) and is_transient(error):
                    raise
                log.error("sweep.row_failed", table=table, id=row.id, error=type(error).__name__)
    return n


def _recover_chunk(connection: Connection, chunk: Row[Any], patience: Patience) -> None:
    if chunk.attempts < patience.allowed(chunk.depth, len(chunk.idxs)):
        _give_back(connection, "chunk", chunk, patience)
    elif not _shard_waits(connection, chunk.shard_id):
        connection.execute(
            text("UPDATE chunk SET state = 'cancelled', lease_until = NULL, owner = NULL WHERE id = :id"),
            {"id": chunk.id},
        )
    elif len(chunk.idxs) > 1:
        _halve_chunk(connection, chunk)
    else:
        _bury_chunk(connection, chunk)


def _shard_waits(connection: Connection, shard_id: int) -> bool:
    """Whether the shard still waits for its chunks; from now on it cannot stop doing so until we commit."""
    row = connection.execute(
        text("SELECT 1 FROM shard WHERE id = :shard AND state = 'answering' FOR UPDATE"), {"shard": shard_id}
    )
    return row.one_or_none() is not None


def _recover_shard(connection: Connection, shard: Row[Any], patience: Patience) -> None:
    if shard.attempts < patience.allowed(shard.depth, shard.n_queries):
        _give_back(connection, "shard", shard, patience)
    else:
        _halve_or_bury_shard(connection, shard, patience)


def _recover_run(connection: Connection, run: Row[Any], patience: Patience) -> None:
    _give_back(connection, "run", run, patience)


def _recover_job(connection: Connection, job: Row[Any], patience: Patience) -> None:
    if job.wanted is not None:  # its worker died before it could do what it was asked
        state = "cancelled" if job.wanted == "cancel" else "paused"
        connection.execute(
            text(
                "UPDATE job SET state = :state, wanted = NULL, lease_until = NULL, owner = NULL,"
                " finished_at = CASE WHEN CAST(:state AS varchar) = 'cancelled' THEN clock_timestamp() END"
                " WHERE id = :id"
            ),
            {"id": job.id, "state": state},
        )
        return
    if job.attempts < patience.max_attempts:
        _give_back(connection, "job", job, patience)
        return
    connection.execute(
        text(
            "UPDATE job SET state = 'failed', lease_until = NULL, owner = NULL, error_code = :code,"
            " error_message = :message, finished_at = clock_timestamp() WHERE id = :id"
        ),
        {"id": job.id, "code": KILLED, "message": _killed("job", job.attempts)},
    )


_RECOVER: Mapping[Leasable, Callable[[Connection, Row[Any], Patience], None]] = {
    "chunk": _recover_chunk,
    "shard": _recover_shard,
    "run": _recover_run,
    "job": _recover_job,
}


def _lost(connection: Connection, table: Leasable, which: str, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
    return connection.execute(
        text(
            f"SELECT * FROM {table} WHERE lease_until IS NOT NULL AND {which}"
            " ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED"
        ),
        parameters,
    ).all()


def _killed(what: str, attempts: int) -> str:
    return f"the {what} was given up after {attempts} tries; each time the worker died, stalled or failed"


def _give_back(connection: Connection, table: Leasable, row: Row[Any], patience: Patience) -> None:
    connection.execute(
        text(
            f"UPDATE {table} SET state = {GIVEN_BACK[table]}, lease_until = NULL, owner = NULL, published_at = NULL,"
            " not_before = clock_timestamp() + make_interval(secs => :rest) WHERE id = :id"
        ),
        {"id": row.id, "rest": patience.rest_s(row.attempts)},
    )


def _halve_chunk(connection: Connection, chunk: Row[Any]) -> None:
    connection.execute(
        text("UPDATE chunk SET state = 'split', lease_until = NULL, owner = NULL WHERE id = :id"), {"id": chunk.id}
    )
    middle = len(chunk.idxs) // 2
    for idxs in (chunk.idxs[:middle], chunk.idxs[middle:]):
        connection.execute(
            text(
                "INSERT INTO chunk (run_id, shard_id, expert_id, expert_version_id, knowledge_id, idxs, state, depth)"
                " VALUES (:run, :shard, :expert, :version, :knowledge, :idxs, 'queued', :depth)"
            ),
            {
                "run": chunk.run_id,
                "shard": chunk.shard_id,
                "expert": chunk.expert_id,
                "version": chunk.expert_version_id,
                "knowledge": chunk.knowledge_id,
                "idxs": idxs,
                "depth": chunk.depth + 1,
            },
        )
    connection.execute(
        text("UPDATE shard SET chunks_left = chunks_left + 1 WHERE id = :shard"), {"shard": chunk.shard_id}
    )


def _bury_chunk(connection: Connection, chunk: Row[Any]) -> None:
    message = _killed("query", chunk.attempts)
    answer = AnswerRow(chunk.idxs[0], None, False, 0.0, [], 0.0, error_code=KILLED, error_message=message)
    claimed = ClaimedChunk(
        lease=Lease("chunk", chunk.id, chunk.epoch, chunk.attempts, 0.0),
        run_id=chunk.run_id,
        run="",
        shard_id=chunk.shard_id,
        expert_id=chunk.expert_id,
        expert="",
        version=0,
        engine="",
        card={},
        adapter=None,
        knowledge=None,
        idxs=chunk.idxs,
    )
    if settle_dead(connection, claimed, answer) == 0:
        connection.execute(text("UPDATE shard SET published_at = NULL WHERE id = :id"), {"id": chunk.shard_id})


def _halve_or_bury_shard(connection: Connection, shard: Row[Any], patience: Patience) -> None:
    going_on = connection.execute(
        text("SELECT 1 FROM run WHERE id = :run AND state = 'in_progress' FOR UPDATE"), {"run": shard.run_id}
    ).one_or_none()
    if going_on is None:  # cancelled or expired: its open lines get their outcome from `close_open_lines`
        _give_back(connection, "shard", shard, patience)
        return
    lines = connection.execute(
        text(
            "SELECT q.idx, q.line_no, q.custom_id, r.public_id FROM query q JOIN run r ON r.id = q.run_id"
            f" WHERE q.run_id = :run AND q.idx >= :start AND q.idx < :stop AND {OPEN_LINE} ORDER BY q.idx"
        ),
        {"run": shard.run_id, "start": shard.start, "stop": shard.stop},
    ).all()
    if len(lines) > 1:
        _halve_shard(connection, shard, [line.idx for line in lines])
        return
    connection.execute(
        text("UPDATE shard SET state = 'done', lease_until = NULL, owner = NULL WHERE id = :id"), {"id": shard.id}
    )
    message = _killed("query", shard.attempts)
    outcomes = [
        OutcomeRow(
            line.idx,
            error_line(
                run=line.public_id,
                idx=line.idx,
                custom_id=line.custom_id,
                line_no=line.line_no,
                code=KILLED,
                message=message,
            ),
            KILLED,
            message,
        )
        for line in lines
    ]
    lease = Lease("shard", shard.id, shard.epoch, shard.attempts, 0.0)
    claimed = ClaimedShard(lease, shard.run_id, shard.start, shard.stop, "", False, 0, "", False, 0)
    record_outcomes(connection, claimed, outcomes)


def _halve_shard(connection: Connection, shard: Row[Any], idxs: list[int]) -> None:
    connection.execute(
        text("UPDATE shard SET state = 'split', lease_until = NULL, owner = NULL WHERE id = :id"), {"id": shard.id}
    )
    middle = len(idxs) // 2
    state = ShardState.QUEUED if shard.state == ShardState.ROUTING else ShardState.ANSWERING
    for start, stop, n in (
        (shard.start, idxs[middle], middle),
        (idxs[middle], shard.stop, len(idxs) - middle),
    ):
        connection.execute(
            text(
                "INSERT INTO shard (run_id, start, stop, state, n_queries, depth, route_ms)"
                " VALUES (:run, :start, :stop, :state, :n, :depth, :route_ms)"
            ),
            {
                "run": shard.run_id,
                "start": start,
                "stop": stop,
                "state": state,
                "n": n,
                "depth": shard.depth + 1,
                "route_ms": None if shard.route_ms is None else shard.route_ms * n / len(idxs),
            },
        )


_DUE = "({t}.published_at IS NULL OR {t}.published_at < clock_timestamp() - make_interval(secs => :stale))"

_DUE_CHUNKS = f"""
WITH due AS (
    SELECT c.id, row_number() OVER (PARTITION BY c.expert_id, r.priority >= 8 ORDER BY c.id) AS place,
           e.name AS expert, r.priority >= 8 AS interactive
    FROM chunk c JOIN run r ON r.id = c.run_id JOIN expert e ON e.id = c.expert_id
    WHERE c.state = 'queued' AND c.not_before <= clock_timestamp() AND r.state = 'in_progress'
      AND r.paused_at IS NULL AND {_DUE.format(t="c")}
)
SELECT id, expert, interactive FROM due WHERE place <= :window ORDER BY id
"""

_DUE_SHARDS = f"""
SELECT s.id, s.state, r.priority >= 8 AS interactive
FROM shard s JOIN run r ON r.id = s.run_id
WHERE (s.state = 'queued' OR (s.state = 'answering' AND s.chunks_left = 0)) AND s.not_before <= clock_timestamp()
  AND r.state = 'in_progress' AND r.paused_at IS NULL AND {_DUE.format(t="s")}
ORDER BY s.id LIMIT :window
"""

_DUE_RUNS = f"""
SELECT r.id, r.state FROM run r
WHERE (r.state IN ('validating', 'cancelling', 'expiring')
       OR (r.state = 'finalizing' AND r.lease_until IS NULL AND r.not_before <= clock_timestamp()))
  AND {_DUE.format(t="r")}
ORDER BY r.id LIMIT :window
"""

_DUE_JOBS = f"""
SELECT j.id FROM job j WHERE j.state = 'queued' AND j.not_before <= clock_timestamp() AND {_DUE.format(t="j")}
ORDER BY j.id LIMIT :window
"""


def due_chunks(connection: Connection, *, stale_s: float, window: int) -> list[AnswerHint]:
    """At most ``window`` chunks per queue whose message is missing or older than ``stale_s``, the oldest first."""
    rows = connection.execute(text(_DUE_CHUNKS), {"stale": stale_s, "window": window})
    return [AnswerHint(row.id, row.expert, row.interactive) for row in rows]


def due_others(connection: Connection, *, stale_s: float, window: int) -> list[Hint]:
    """The same for everything that is not a chunk."""
    parameters = {"stale": stale_s, "window": window}
    runs = connection.execute(text(_DUE_RUNS), parameters)
    shards = connection.execute(text(_DUE_SHARDS), parameters)
    jobs = connection.execute(text(_DUE_JOBS), parameters)
    return [
        *(PlanHint(row.id) if row.state == "validating" else FinalizeHint(row.id) for row in runs),
        *((RouteHint if row.state == "queued" else CombineHint)(row.id, row.interactive) for row in shards),
        *(JobHint(row.id) for row in jobs),
    ]


_TABLE: dict[type, str] = {
    PlanHint: "run",
    FinalizeHint: "run",
    RouteHint: "shard",
    CombineHint: "shard",
    AnswerHint: "chunk",
    JobHint: "job",
}


def mark_published(connection: Connection, hints: Sequence[Hint]) -> list[Hint]:
    """Note that these messages are being sent again now, so that the next sweep leaves them alone for a while.

    Returns those that were noted: rows that somebody holds at this moment are at work and are left out.
    """
    keys = [
        (
            _TABLE[type(hint)],
            next(getattr(hint, name) for name in ("run_id", "shard_id", "chunk_id", "job_id") if hasattr(hint, name)),
        )
        for hint in hints
    ]
    marked: set[tuple[str, int]] = set()
    for table in sorted({table for table, _ in keys}):
        rows = connection.execute(
            text(
                f"UPDATE {table} SET published_at = clock_timestamp() WHERE id IN ("
                f"SELECT id FROM {table} WHERE id = ANY(:ids) FOR UPDATE SKIP LOCKED) RETURNING id"
            ),
            {"ids": [key for of, key in keys if of == table]},
        )
        marked.update((table, id_) for id_ in rows.scalars())
    return [hint for hint, key in zip(hints, keys, strict=True) if key in marked]
