"""Cancelling, pausing and resuming training jobs.

One that waits is moved at once. One that runs is asked: its worker looks, keeps what it has, and settles.
"""

from typing import Literal

from sqlalchemy import Connection, text

from storage import jobs
from storage.errors import NotAllowed, NotFound
from storage.jobs import ClaimedJob, JobView
from storage.leases import settle
from storage.states import JobState

Wanted = Literal["cancel", "pause"]

_BECOMES: dict[Wanted, JobState] = {"cancel": JobState.CANCELLED, "pause": JobState.PAUSED}


def stop(connection: Connection, job_id: int, wanted: Wanted) -> JobView:
    """Cancel or pause the job, or ask its worker to; as it stands now. Raises NotFound, NotAllowed.

    Asked twice nothing more happens; who asks to cancel what was asked to pause gets it cancelled.
    """
    state, asked = _locked(connection, job_id)
    wanted = "cancel" if asked == "cancel" else wanted  # also where its worker gave it back before it looked
    if state == JobState.RUNNING:
        connection.execute(text("UPDATE job SET wanted = :wanted WHERE id = :id"), {"id": job_id, "wanted": wanted})
    elif state == JobState.QUEUED or (state, wanted) == (JobState.PAUSED, "cancel"):
        connection.execute(
            text(
                "UPDATE job SET state = :state, wanted = NULL,"
                " finished_at = CASE WHEN CAST(:state AS varchar) = 'cancelled' THEN clock_timestamp() END"
                " WHERE id = :id"
            ),
            {"id": job_id, "state": _BECOMES[wanted]},
        )
    elif state != _BECOMES[wanted]:
        raise NotAllowed(f"job {job_id} is {state}; only open jobs can be stopped")
    return jobs.view(connection, job_id)


def resume(connection: Connection, job_id: int) -> JobView:
    """Let a paused job go on, or take back a pause that was asked for. Raises NotFound, NotAllowed."""
    state, asked = _locked(connection, job_id)
    if state == JobState.PAUSED:
        connection.execute(
            text(
                "UPDATE job SET state = 'queued', attempts = 0, published_at = clock_timestamp(),"
                " not_before = clock_timestamp() WHERE id = :id"
            ),
            {"id": job_id},
        )
    elif asked == "pause":
        connection.execute(text("UPDATE job SET wanted = NULL WHERE id = :id"), {"id": job_id})
    elif state != JobState.QUEUED:
        raise NotAllowed(f"job {job_id} is {state}; only paused jobs can be resumed")
    return jobs.view(connection, job_id)


def _locked(connection: Connection, job_id: int) -> tuple[JobState, Wanted | None]:
    """The job's state and what was asked of it, both of which stay so until we commit."""
    row = connection.execute(
        text("SELECT state, wanted FROM job WHERE id = :id FOR UPDATE"), {"id": job_id}
    ).one_or_none()
    if row is None:
        raise NotFound("job", str(job_id))
    return JobState(row.state), row.wanted


def wanted(connection: Connection, job_id: int) -> Wanted | None:
    """What somebody asked of the running job."""
    found: Wanted | None = connection.execute(
        text("SELECT wanted FROM job WHERE id = :id"), {"id": job_id}
    ).scalar_one_or_none()
    return found


def settle_stopped(connection: Connection, job: ClaimedJob, asked: Wanted) -> None:
    """The worker has stopped for what it saw was ``asked``: end or pause the job. Raises LeaseLost.

    What is wanted by now counts: it may have become a cancel since, or a pause that was taken back, with which the job
    is due again at once.
    """
    row = connection.execute(
        text("SELECT wanted FROM job WHERE id = :id AND epoch = :epoch AND state = 'running' FOR UPDATE"),
        {"id": job.lease.id, "epoch": job.lease.epoch},
    ).one_or_none()
    if row is not None and row.wanted is None and asked == "pause":
        settle(connection, job.lease, JobState.QUEUED, attempts=0, published_at=None)
        return
    if row is not None and row.wanted == "cancel":
        asked = "cancel"
    if settle(connection, job.lease, _BECOMES[asked], wanted=None) and asked == "cancel":
        connection.execute(text("UPDATE job SET finished_at = clock_timestamp() WHERE id = :id"), {"id": job.lease.id})
