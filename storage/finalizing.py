"""The last step of a run: closing what is still open, and writing its files, once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json
from storage.leases import Lease, settle
from storage.lines import CANCELLED, ERROR_LINE_SQL, EXPIRED
from storage.shards import OPEN_LINE
from storage.states import CHUNK_OPEN, SHARD_OPEN, in_list

_CLAIM = """
UPDATE run SET epoch = epoch + 1, attempts = attempts + 1, owner = :owner,
    lease_until = clock_timestamp() + make_interval(secs => :ttl)
WHERE id = :id AND state = 'finalizing' AND not_before <= clock_timestamp()
  AND (lease_until IS NULL OR lease_until < clock_timestamp())
RETURNING id, epoch, attempts, public_id, generation, ending, n_total, n_ok, n_error, kind
"""


@dataclass(frozen=True, slots=True)
class FinalizingRun:
    lease: Lease
    public_id: str
    generation: int
    ending: str
    n_total: int
    n_ok: int
    n_error: int


def folder_of(public_id: str) -> str:
    """Where a run's files lie in the store, one folder per generation."""
    return f"runs/{public_id}"


def close_open_lines(connection: Connection, run_id: int) -> bool:
    """Give every line of a cancelling or expiring run that has no outcome one that says so; the run then finalises.

    One transaction, safe to repeat. Work in progress is fenced out: its chunk or shard is cancelled first, so whoever
    holds the lease can no longer settle. False when the run was not waiting for this.
    """
    run = connection.execute(
        text("SELECT state FROM run WHERE id = :run AND state IN ('cancelling', 'expiring')"), {"run": run_id}
    ).one_or_none()
    if run is None:
        return False
    code, message = EXPIRED if run.state == "expiring" else CANCELLED
    # Chunks twice: a router that was settling held its shard, and its new chunks are seen only by a statement that
    # begins after this one has waited for the shard.
    for table, open_states in (("chunk", CHUNK_OPEN), ("shard", SHARD_OPEN), ("chunk", CHUNK_OPEN)):
        connection.execute(
            text(
                f"UPDATE {table} SET state = 'cancelled', lease_until = NULL, owner = NULL"
                f" WHERE run_id = :run AND state IN ({in_list(open_states)})"
            ),
            {"run": run_id},
        )
    # The run's row after its parts, as when they are settled; of two that close at once the second finds it moved.
    moved = connection.execute(
        text(
            "UPDATE run SET state = 'finalizing', attempts = 0, not_before = clock_timestamp(),"
            " published_at = clock_timestamp(), started_at = coalesce(started_at, clock_timestamp())"
            " WHERE id = :run AND state IN ('cancelling', 'expiring')"
        ),
        {"run": run_id},
    )
    if moved.rowcount == 0:
        return False
    closed = connection.execute(
        text(
            f"""INSERT INTO outcome (run_id, idx, ok, error_code, error_message, line)
                SELECT q.run_id, q.idx, false, CAST(:code AS text), CAST(:message AS text), {ERROR_LINE_SQL}
                FROM query q JOIN run r ON r.id = q.run_id
                WHERE q.run_id = :run AND {OPEN_LINE}"""
        ),
        {"run": run_id, "code": code, "message": message},
    )
    connection.execute(
        text("UPDATE run SET n_error = n_error + :n WHERE id = :run"), {"n": closed.rowcount, "run": run_id}
    )
    return True


def claim(connection: Connection, run_id: int, *, owner: str, ttl_s: float) -> FinalizingRun | None:
    """The run, ours to write the files of; None when it is not due or somebody else is at it."""
    row = connection.execute(text(_CLAIM), {"id": run_id, "owner": owner, "ttl": ttl_s}).one_or_none()
    if row is None:
        return None
    return FinalizingRun(
        lease=Lease("run", row.id, row.epoch, row.attempts, ttl_s),
        public_id=row.public_id,
        generation=row.generation,
        ending=row.ending,
        n_total=row.n_total,
        n_ok=row.n_ok,
        n_error=row.n_error,
    )


def lines(connection: Connection, run_id: int, *, ok: bool, batch: int = 500) -> Iterator[list[str]]:
    """The finished lines in the order of the input, in batches; memory does not grow with the run."""
    result = connection.execution_options(stream_results=True, max_row_buffer=batch).execute(
        text("SELECT line::text FROM outcome WHERE run_id = :run AND ok = :ok ORDER BY idx"), {"run": run_id, "ok": ok}
    )
    for part in result.scalars().partitions(batch):
        yield list(part)


def settle_files(connection: Connection, run: FinalizingRun, output: dict[str, Any], errors: dict[str, Any]) -> bool:
    """Record the two files and end the run; raises LeaseLost, and ValueError when the lines do not add up."""
    if output["lines"] + errors["lines"] != run.n_total:
        raise ValueError(
            f"{output['lines']} output lines and {errors['lines']} error lines do not make {run.n_total} lines"
        )
    settled = settle(connection, run.lease, run.ending, output=as_json(output), errors=as_json(errors))
    if settled:
        connection.execute(
            text("UPDATE run SET finished_at = clock_timestamp() WHERE id = :run"), {"run": run.lease.id}
        )
    return settled
