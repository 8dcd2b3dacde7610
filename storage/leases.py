"""Leases: how exactly one worker at a time may write the result of a piece of work.

A claim raises ``epoch`` and sets ``lease_until`` by the database clock, so the clocks of the workers do not matter.
A heartbeat renews the lease; whoever settles must still hold it. A worker that was stopped, cut off or thought dead
finds the epoch changed and can write nothing.
"""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, text

from storage.states import ChunkState, JobState, RunState, ShardState

Leasable = Literal["run", "shard", "chunk", "job"]

# What a leased row goes back to when it is given up, as SQL over its present state.
GIVEN_BACK: dict[Leasable, str] = {
    "run": f"'{RunState.FINALIZING}'",
    "shard": f"CASE state WHEN '{ShardState.ROUTING}' THEN '{ShardState.QUEUED}' ELSE '{ShardState.ANSWERING}' END",
    "chunk": f"'{ChunkState.QUEUED}'",
    "job": f"'{JobState.QUEUED}'",
}


class LeaseLost(Exception):
    """Somebody else holds the row now, or it was cancelled; nothing may be written."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to settle one row, as long as nobody has claimed it since."""

    table: Leasable
    id: int
    epoch: int
    attempts: int
    ttl_s: float


def renew(connection: Connection, lease: Lease) -> bool:
    """Hold the lease for another ``ttl_s`` from now; False when it is lost."""
    row = connection.execute(
        text(
            f"UPDATE {lease.table} SET lease_until = clock_timestamp() + make_interval(secs => :ttl)"
            " WHERE id = :id AND epoch = :epoch AND lease_until IS NOT NULL"
        ),
        {"ttl": lease.ttl_s, "id": lease.id, "epoch": lease.epoch},
    )
    return row.rowcount == 1


def settle(connection: Connection, lease: Lease, state: str, **columns: Any) -> bool:
    """Fence and finish: move the row to ``state`` and end the lease. Goes first in the settling transaction.

    True when the row moved now; False when this very lease had settled before (its commit was acknowledged to
    nobody), in which case the caller writes nothing more. Raises LeaseLost when the row belongs to somebody else.
    ``columns`` are further columns to set.
    """
    extra = "".join(f", {name} = :{name}" for name in columns)
    row = connection.execute(
        text(
            f"UPDATE {lease.table} SET state = :state, lease_until = NULL, owner = NULL{extra}"
            " WHERE id = :id AND epoch = :epoch AND lease_until IS NOT NULL"
        ),
        {"state": state, "id": lease.id, "epoch": lease.epoch, **columns},
    )
    if row.rowcount == 1:
        return True
    now = connection.execute(
        text(f"SELECT state, epoch FROM {lease.table} WHERE id = :id"), {"id": lease.id}
    ).one_or_none()
    if now is not None and now.epoch == lease.epoch and now.state == state:
        return False
    raise LeaseLost(f"{lease.table} {lease.id} is no longer held by epoch {lease.epoch}")


def give_back(connection: Connection, lease: Lease, delay_s: float) -> bool:
    """Let others try the row again, not before ``delay_s`` from now; False when it was not ours any more."""
    row = connection.execute(
        text(
            f"UPDATE {lease.table} SET state = {GIVEN_BACK[lease.table]}, lease_until = NULL, owner = NULL,"
            " published_at = NULL, not_before = clock_timestamp() + make_interval(secs => :delay)"
            " WHERE id = :id AND epoch = :epoch AND lease_until IS NOT NULL"
        ),
        {"delay": delay_s, "id": lease.id, "epoch": lease.epoch},
    )
    return row.rowcount == 1
