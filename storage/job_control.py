"""Cancelling, pausing and resuming training jobs.

One that waits is moved at once. One that runs is asked: its worker looks, keeps what it has, and settles.
"""

from typing import Literal

from sqlalchemy import Connection, text

from storage import jobs
from storage.errors import NotAllowed
from storage.jobs import ClaimedJob, JobView
from storage.leases import settle
from storage.states import JobState

Wanted = Literal["cancel", "pause"]

_BECOMES: dict[Wanted, JobState] = {"cancel": JobState.CANCELLED, "pause": JobState.PAUSED}
_MAY = {
    "cancel": (JobState.QUEUED, JobState.PAUSED),
    "pause": (JobState.QUEUED,),
}


def stop(connection: Connection, job_id: int, wanted: Wanted) -> JobView:
    """Cancel or pause the job, or ask its worker to; as it stands now. Raises NotFound, NotAllowed.

    Asked twice nothing more happens; who asks to cancel what was asked to pause gets it cancelled.
    """
    view = jobs.view(connection, job_id)
    states = ", ".join(f"'{state}'" for state in _MAY[wanted])
    moved = connection.execute(
        text(
            f"UPDATE job SET state = :state, wanted = NULL, finished_at = CASE WHEN :state = 'cancelled'"
            f" THEN clock_timestamp() END WHERE id = :id AND state IN ({states})"
        ),
        {"id": job_id, "state": _BECOMES[wanted]},
    ).rowcount
    if not moved:
        moved = connection.execute(
            text(
                "UPDATE job SET wanted = :wanted WHERE id = :id AND state = 'running'"
                " AND wanted IS DISTINCT FROM 'cancel'"
            ),
            {"id": job_id, "wanted": wanted},
        ).rowcount
    now = jobs.view(connection, job_id)
    if not moved and now.state != _BECOMES[wanted] and now.wanted is None:
        raise NotAllowed(f"job {job_id} is {view.state}; only open jobs can be stopped")
    return now


def resume(connection: Connection, job_id: int) -> JobView:
    """Let a paused job go on, or take back a pause that was asked for. Raises NotFound, NotAllowed."""
    jobs.view(connection, job_id)
    moved = connection.execute(
        text(
            "UPDATE job SET state = 'queued', attempts = 0, published_at = clock_timestamp(),"
            " not_before = clock_timestamp() WHERE id = :id AND state = 'paused'"
        ),
        {"id": job_id},
    ).rowcount
    taken_back = connection.execute(
        text("UPDATE job SET wanted = NULL WHERE id = :id AND state = 'running' AND wanted = 'pause'"), {"id": job_id}
    ).rowcount
    now = jobs.view(connection, job_id)
    if not moved and not taken_back and now.state != JobState.QUEUED:
        raise NotAllowed(f"job {job_id} is {now.state}; only paused jobs can be resumed")
    return now


def wanted(connection: Connection, job_id: int) -> Wanted | None:
    """What somebody asked of the running job."""
    found: Wanted | None = connection.execute(
        text("SELECT wanted FROM job WHERE id = :id"), {"id": job_id}
    ).scalar_one_or_none()
    return found


def settle_stopped(connection: Connection, job: ClaimedJob, asked: Wanted) -> None:
    """The worker has stopped: end or pause the job. Raises LeaseLost."""
    if settle(connection, job.lease, _BECOMES[asked], wanted=None) and asked == "cancel":
        connection.execute(text("UPDATE job SET finished_at = clock_timestamp() WHERE id = :id"), {"id": job.lease.id})
