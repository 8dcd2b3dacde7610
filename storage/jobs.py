"""Training jobs: asking for one, working on it, following it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json
from storage.errors import NotFound
from storage.leases import Lease, settle
from storage.states import JobState


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    lease: Lease
    kind: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobView:
    id: int
    kind: str
    state: str
    result: dict[str, Any] | None
    error_code: str | None
    error_message: str | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        return self.state in (JobState.SUCCEEDED, JobState.FAILED)


def add(connection: Connection, kind: str, params: Mapping[str, Any] | None = None) -> int:
    """Queue a job; its id. Send its hint after the commit."""
    job_id: int = connection.execute(
        text(
            "INSERT INTO job (kind, params, state, published_at)"
            " VALUES (:kind, CAST(:params AS jsonb), 'queued', clock_timestamp()) RETURNING id"
        ),
        {"kind": kind, "params": as_json(dict(params or {}))},
    ).scalar_one()
    return job_id


def claim(connection: Connection, job_id: int, *, owner: str, ttl_s: float, max_attempts: int) -> ClaimedJob | None:
    """The job, ours until its lease ends; None when there is nothing to do."""
    row = connection.execute(
        text(
            """UPDATE job SET state = 'running', epoch = epoch + 1, attempts = attempts + 1, owner = :owner,
                   lease_until = clock_timestamp() + make_interval(secs => :ttl)
               WHERE id = :id AND ((state = 'queued' AND not_before <= clock_timestamp())
                   OR (state = 'running' AND lease_until < clock_timestamp() AND attempts < :max_attempts))
               RETURNING id, epoch, attempts, kind, params"""
        ),
        {"id": job_id, "owner": owner, "ttl": ttl_s, "max_attempts": max_attempts},
    ).one_or_none()
    if row is None:
        return None
    return ClaimedJob(Lease("job", row.id, row.epoch, row.attempts, ttl_s), row.kind, row.params)


def succeed(connection: Connection, job: ClaimedJob, result: Mapping[str, Any]) -> None:
    """End the job well. Raises LeaseLost."""
    if settle(connection, job.lease, JobState.SUCCEEDED, result=as_json(dict(result))):
        _finished(connection, job.lease.id)


def fail(connection: Connection, job: ClaimedJob, code: str, message: str) -> None:
    """End the job with an error that trying again would not mend. Raises LeaseLost."""
    if settle(connection, job.lease, JobState.FAILED, error_code=code, error_message=message):
        _finished(connection, job.lease.id)


def _finished(connection: Connection, job_id: int) -> None:
    connection.execute(text("UPDATE job SET finished_at = clock_timestamp() WHERE id = :id"), {"id": job_id})


def report(connection: Connection, job_id: int, message: str, data: Mapping[str, Any] | None = None) -> None:
    """Add a line to the job's story."""
    connection.execute(
        text("INSERT INTO job_event (job_id, message, data) VALUES (:job, :message, CAST(:data AS jsonb))"),
        {"job": job_id, "message": message, "data": None if data is None else as_json(dict(data))},
    )


def view(connection: Connection, job_id: int) -> JobView:
    """The job as it stands; raises NotFound."""
    row = connection.execute(
        text(
            "SELECT id, kind, state, result, error_code, error_message, created_at, finished_at FROM job WHERE id = :id"
        ),
        {"id": job_id},
    ).one_or_none()
    if row is None:
        raise NotFound("job", str(job_id))
    return JobView(*row)


def last_result(connection: Connection, kind: str) -> dict[str, Any] | None:
    """What the newest job of this kind came to that ended well; None before there was any."""
    found: dict[str, Any] | None = connection.execute(
        text("SELECT result FROM job WHERE kind = :kind AND state = 'succeeded' ORDER BY id DESC LIMIT 1"),
        {"kind": kind},
    ).scalar_one_or_none()
    return found


def events(connection: Connection, job_id: int, *, after: int = 0) -> list[tuple[int, str]]:
    """(id, message) of the job's story, the part after event ``after``."""
    rows = connection.execute(
        text("SELECT id, message FROM job_event WHERE job_id = :job AND id > :after ORDER BY id"),
        {"job": job_id, "after": after},
    )
    return [(event, message) for event, message in rows]
