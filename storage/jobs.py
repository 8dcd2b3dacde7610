"""Training jobs: asking for one, working on it, following it. Stopping one is ``storage.job_control``."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json
from storage.errors import NotAllowed, NotFound
from storage.leases import Lease, settle
from storage.states import JOB_OPEN, JobState, in_list


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    lease: Lease
    kind: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobView:
    id: int
    kind: str
    subject: str | None
    state: str
    wanted: str | None
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error_code: str | None
    error_message: str | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        return self.state not in JOB_OPEN


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a job's story, with the figures it tells of."""

    id: int
    at: datetime
    message: str
    data: dict[str, Any] | None


_VIEW = """SELECT id, kind, subject, state, wanted, progress, result, error_code, error_message, created_at, finished_at
    FROM job"""


def add(
    connection: Connection, kind: str, params: Mapping[str, Any] | None = None, *, subject: str | None = None
) -> int:
    """Queue a job; its id. Send its hint after the commit.

    Raises NotAllowed where another open job works on the same ``subject``; of two that come at once one is told so.
    """
    job_id: int | None = connection.execute(
        text(
            "INSERT INTO job (kind, subject, params, state, published_at)"
            " VALUES (:kind, :subject, CAST(:params AS jsonb), 'queued', clock_timestamp())"
            f" ON CONFLICT (subject) WHERE state IN ({in_list(JOB_OPEN)}) DO NOTHING RETURNING id"
        ),
        {"kind": kind, "subject": subject, "params": as_json(dict(params or {}))},
    ).scalar_one_or_none()
    if job_id is None:
        raise NotAllowed(_busy(connection, subject))
    return job_id


def add_refresh(connection: Connection) -> int:
    """Ask for indexes and router to be brought in line; the id of the job, which may be one that waits already."""
    waiting: int | None = connection.execute(
        text("SELECT id FROM job WHERE kind = 'refresh' AND state = 'queued' ORDER BY id LIMIT 1 FOR UPDATE")
    ).scalar_one_or_none()
    return add(connection, "refresh") if waiting is None else waiting


def open_on(connection: Connection, subject: str) -> int | None:
    """The open job that works on the subject; None where there is none."""
    found: int | None = connection.execute(
        text(f"SELECT id FROM job WHERE subject = :subject AND state IN ({in_list(JOB_OPEN)})"), {"subject": subject}
    ).scalar_one_or_none()
    return found


def _busy(connection: Connection, subject: str | None) -> str:
    other = connection.execute(
        text(f"SELECT id, kind, state FROM job WHERE subject = :subject AND state IN ({in_list(JOB_OPEN)})"),
        {"subject": subject},
    ).one_or_none()
    who = "another job" if other is None else f"job {other.id} ({other.kind}, {other.state})"
    return f"{who} works on {subject}; wait for it, or end it with `moe jobs cancel`"


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
    if settle(connection, job.lease, JobState.SUCCEEDED, wanted=None, result=as_json(dict(result))):
        _finished(connection, job.lease.id)


def fail(connection: Connection, job: ClaimedJob, code: str, message: str) -> None:
    """End the job with an error that trying again would not mend. Raises LeaseLost."""
    if settle(connection, job.lease, JobState.FAILED, wanted=None, error_code=code, error_message=message):
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
    row = connection.execute(text(f"{_VIEW} WHERE id = :id"), {"id": job_id}).one_or_none()
    if row is None:
        raise NotFound("job", str(job_id))
    return JobView(*row)


def views(connection: Connection, *, only_open: bool = False, limit: int = 50) -> list[JobView]:
    """The newest jobs, the newest first."""
    where = f"WHERE state IN ({in_list(JOB_OPEN)})" if only_open else ""
    rows = connection.execute(text(f"{_VIEW} {where} ORDER BY id DESC LIMIT :limit"), {"limit": limit})
    return [JobView(*row) for row in rows]


def progress(connection: Connection, lease: Lease, how_far: Mapping[str, Any], *, kept: bool = False) -> None:
    """Note how far the job is. With ``kept`` nothing up to here is lost with the worker: its tries count anew."""
    connection.execute(
        text(
            "UPDATE job SET progress = CAST(:progress AS jsonb), attempts = CASE WHEN :kept THEN 1 ELSE attempts END"
            " WHERE id = :id AND epoch = :epoch AND lease_until IS NOT NULL"
        ),
        {"progress": as_json(dict(how_far)), "kept": kept, "id": lease.id, "epoch": lease.epoch},
    )


def last_result(connection: Connection, kind: str) -> dict[str, Any] | None:
    """What the newest job of this kind came to that ended well; None before there was any."""
    found: dict[str, Any] | None = connection.execute(
        text("SELECT result FROM job WHERE kind = :kind AND state = 'succeeded' ORDER BY id DESC LIMIT 1"),
        {"kind": kind},
    ).scalar_one_or_none()
    return found


def events(connection: Connection, job_id: int, *, after: int = 0) -> list[Event]:
    """The job's story, the part after event ``after``."""
    rows = connection.execute(
        text("SELECT id, at, message, data FROM job_event WHERE job_id = :job AND id > :after ORDER BY id"),
        {"job": job_id, "after": after},
    )
    return [Event(*row) for row in rows]
