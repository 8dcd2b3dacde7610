"""Which shards may be under way: a bounded window per run, shared fairly between runs."""

from sqlalchemy import Connection, text

from storage.hints import RouteHint
from storage.states import SHARD_IN_WINDOW, in_list

# One dispatcher at a time, so that two of them do not fill the same window twice.
_DISPATCH_LOCK = 5_020_251_002

# Runs with shards to hand out, and how many each has under way already.
_RUNS = f"""
SELECT r.id, r.priority, r.priority >= 8 AS interactive,
       (SELECT count(*) FROM shard s WHERE s.run_id = r.id AND s.state IN ({in_list(SHARD_IN_WINDOW)})) AS under_way
FROM run r
WHERE r.state = 'in_progress' AND r.paused_at IS NULL
  AND EXISTS (SELECT 1 FROM shard s WHERE s.run_id = r.id AND s.state = 'planned')
ORDER BY r.priority DESC, r.id
"""

# Chosen apart, and so once: inside a condition the choice may be made again for every row, and then hold for more.
_QUEUE = """
WITH chosen AS MATERIALIZED (
    SELECT id FROM shard WHERE run_id = :run AND state = 'planned' ORDER BY id LIMIT :n FOR UPDATE SKIP LOCKED)
UPDATE shard SET state = 'queued', published_at = clock_timestamp(), not_before = clock_timestamp()
FROM chosen WHERE shard.id = chosen.id RETURNING shard.id
"""


def fill(connection: Connection, *, window: int) -> list[RouteHint]:
    """Queue planned shards until every run has its share of ``window``; the messages to send after the commit.

    The window is divided by priority among the runs that have work, and no run gets less than two shards: a run
    whose expert has no worker holds its own share and nobody else's.
    """
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _DISPATCH_LOCK}).scalar_one():
        return []  # another dispatcher is at it; what it does not see yet, the next sweep does
    runs = connection.execute(text(_RUNS)).all()
    total = sum(run.priority for run in runs)
    hints = []
    for run in runs:
        share = max(2, round(window * run.priority / total))
        free = share - run.under_way
        if free <= 0:
            continue
        queued = connection.execute(text(_QUEUE), {"run": run.id, "n": free}).scalars().all()
        hints += [RouteHint(shard_id, run.interactive) for shard_id in sorted(queued)]
    return hints
