"""What must always hold of the stored runs, as queries that return the rows that break it."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from storage.states import CHUNK_OPEN, RUN_ENDED, SHARD_OPEN, in_list


@dataclass(frozen=True, slots=True)
class Breach:
    """One invariant that does not hold, with a few of the rows that show it."""

    invariant: str
    rows: list[dict[str, object]]


# Foreign keys, primary keys, checks and triggers hold the rest: one outcome per query, no outcome without a query,
# state moves, epochs, counters within bounds.
INVARIANTS = {
    "an ended run has an outcome for every line": f"""
        SELECT r.public_id, r.n_total, count(o.idx) AS outcomes FROM run r LEFT JOIN outcome o ON o.run_id = r.id
        WHERE r.state IN ({in_list(RUN_ENDED)}) AND r.kind <> 'preview'
          AND (CAST(:run AS bigint) IS NULL OR r.id = :run)
        GROUP BY r.id HAVING count(o.idx) <> r.n_total""",
    "the counters of a run equal a recount": """
        SELECT r.public_id, r.n_ok, r.n_error, r.n_rejected, count(o.idx) FILTER (WHERE o.ok) AS ok,
               count(o.idx) FILTER (WHERE NOT o.ok) AS error
        FROM run r LEFT JOIN outcome o ON o.run_id = r.id
        WHERE r.kind <> 'preview' AND (CAST(:run AS bigint) IS NULL OR r.id = :run)
        GROUP BY r.id HAVING r.n_ok <> count(o.idx) FILTER (WHERE o.ok)
            OR r.n_error <> count(o.idx) FILTER (WHERE NOT o.ok)""",
    "a run holds the lines it was given": """
        SELECT r.public_id, r.n_total, count(q.idx) AS queries, count(q.idx) FILTER (WHERE q.rejected) AS rejected
        FROM run r LEFT JOIN query q ON q.run_id = r.id
        WHERE (CAST(:run AS bigint) IS NULL OR r.id = :run)
        GROUP BY r.id HAVING r.n_total <> count(q.idx) OR r.n_rejected <> count(q.idx) FILTER (WHERE q.rejected)""",
    "an outcome comes from a finished shard, in the epoch that settled it": """
        SELECT o.run_id, o.idx, s.state, o.epoch, s.epoch AS shard_epoch
        FROM outcome o JOIN shard s ON s.id = o.shard_id
        WHERE (CAST(:run AS bigint) IS NULL OR o.run_id = :run)
          AND (s.state <> 'done' OR o.epoch <> s.epoch OR o.idx < s.start OR o.idx >= s.stop) LIMIT 5""",
    "an answer comes from a finished chunk, in the epoch that settled it": """
        SELECT a.run_id, a.idx, c.state, a.epoch, c.epoch AS chunk_epoch FROM answer a JOIN chunk c ON c.id = a.chunk_id
        WHERE (CAST(:run AS bigint) IS NULL OR a.run_id = :run)
          AND (c.state NOT IN ('done', 'dead') OR a.epoch <> c.epoch OR NOT a.idx = ANY(c.idxs)) LIMIT 5""",
    "every finished chunk has exactly its answers": """
        SELECT c.id, cardinality(c.idxs) AS queries, count(a.idx) AS answers FROM chunk c
        LEFT JOIN answer a ON a.chunk_id = c.id
        JOIN run r ON r.id = c.run_id
        WHERE c.state IN ('done', 'dead') AND r.generation = 1 AND (CAST(:run AS bigint) IS NULL OR c.run_id = :run)
        GROUP BY c.id HAVING count(a.idx) <> cardinality(c.idxs) LIMIT 5""",
    "a shard counts its open chunks": """
        SELECT s.id, s.chunks_left, count(c.id) AS open FROM shard s
        LEFT JOIN chunk c ON c.shard_id = s.id AND c.state IN ('queued', 'leased')
        WHERE s.state = 'answering' AND s.depth = 0 AND (CAST(:run AS bigint) IS NULL OR s.run_id = :run)
        GROUP BY s.id HAVING s.chunks_left <> count(c.id) LIMIT 5""",
    "an ended run has nothing open": f"""
        SELECT r.public_id, part.what, part.id, part.state FROM run r JOIN (
            SELECT 'shard' AS what, run_id, id, state FROM shard WHERE state IN ({in_list(SHARD_OPEN)})
            UNION ALL SELECT 'chunk', run_id, id, state FROM chunk WHERE state IN ({in_list(CHUNK_OPEN)})
        ) part ON part.run_id = r.id
        WHERE r.state IN ({in_list(RUN_ENDED)}) AND (CAST(:run AS bigint) IS NULL OR r.id = :run) LIMIT 5""",
    "every open line of a run in progress lies in an open shard": f"""
        SELECT q.run_id, q.idx FROM query q JOIN run r ON r.id = q.run_id
        WHERE r.state = 'in_progress' AND r.kind <> 'preview' AND (CAST(:run AS bigint) IS NULL OR r.id = :run)
          AND NOT q.rejected
          AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.run_id = q.run_id AND o.idx = q.idx)
          AND NOT EXISTS (SELECT 1 FROM shard s WHERE s.run_id = q.run_id AND q.idx >= s.start AND q.idx < s.stop
                          AND s.state IN ({in_list(SHARD_OPEN)})) LIMIT 5""",
}


def breaches(connection: Connection, run_id: int | None = None) -> list[Breach]:
    """The invariants that do not hold, for one run or for all; empty when all is well."""
    found = []
    for name, query in INVARIANTS.items():
        rows = connection.execute(text(query), {"run": run_id}).mappings().all()
        if rows:
            found.append(Breach(name, [dict(row) for row in rows[:5]]))
    return found


def overdue_leases(connection: Connection, *, older_than_s: float) -> int:
    """How many leases ran out longer ago than two sweeps should allow."""
    query = " UNION ALL ".join(
        f"SELECT count(*) AS n FROM {table} WHERE lease_until < clock_timestamp() - make_interval(secs => :age)"
        for table in ("run", "shard", "chunk", "job")
    )
    return int(connection.execute(text(f"SELECT sum(n) FROM ({query}) counts"), {"age": older_than_s}).scalar_one())
