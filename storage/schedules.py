"""Schedules: jobs that are queued again and again, on a clock or once enough feedback has gathered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from storage import jobs
from storage.copying import as_json
from storage.errors import NotAllowed, NotFound
from storage.states import JOB_OPEN, in_list


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """``subject`` is what the job works on (``expert:finance``); with ``min_feedback`` it waits for that much."""

    name: str
    kind: str
    params: Mapping[str, Any]
    subject: str | None
    every_s: float
    min_feedback: int = 0


@dataclass(frozen=True, slots=True)
class ScheduleView:
    id: int
    name: str
    kind: str
    params: dict[str, Any]
    subject: str | None
    every_s: float
    min_feedback: int
    paused_at: datetime | None
    next_at: datetime
    last_at: datetime | None
    last_job_id: int | None
    last_said: str | None
    # What came of the last job: its state, and its result where it ended well.
    job_state: str | None
    job_result: dict[str, Any] | None


_VIEW = """
SELECT s.id, s.name, s.kind, s.params, s.subject, s.every_s, s.min_feedback, s.paused_at, s.next_at, s.last_at,
       s.last_job_id, s.last_said, j.state, j.result
FROM schedule s LEFT JOIN job j ON j.id = s.last_job_id
"""


def put(connection: Connection, new: NewSchedule) -> ScheduleView:
    """Add a schedule, or change the one of that name; the clock starts anew."""
    connection.execute(
        text(
            """INSERT INTO schedule (name, kind, params, subject, every_s, min_feedback, next_at)
               VALUES (:name, :kind, CAST(:params AS jsonb), :subject, :every, :feedback,
                       clock_timestamp() + make_interval(secs => :every))
               ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, params = excluded.params,
                   subject = excluded.subject, every_s = excluded.every_s, min_feedback = excluded.min_feedback,
                   next_at = excluded.next_at, paused_at = NULL"""
        ),
        {
            "name": new.name,
            "kind": new.kind,
            "params": as_json(dict(new.params)),
            "subject": new.subject,
            "every": new.every_s,
            "feedback": new.min_feedback,
        },
    )
    return view(connection, new.name)


def views(connection: Connection) -> list[ScheduleView]:
    """Every schedule by name."""
    return [ScheduleView(*row) for row in connection.execute(text(f"{_VIEW} ORDER BY s.name"))]


def view(connection: Connection, name: str) -> ScheduleView:
    """One schedule; raises NotFound with the names there are."""
    row = connection.execute(text(f"{_VIEW} WHERE s.name = :name"), {"name": name}).one_or_none()
    if row is None:
        raise NotFound("schedule", name, known=[schedule.name for schedule in views(connection)])
    return ScheduleView(*row)


def pause(connection: Connection, name: str, *, paused: bool) -> ScheduleView:
    """Hold a schedule, or let it go on. Raises NotFound."""
    connection.execute(
        text(
            "UPDATE schedule SET paused_at = CASE WHEN :paused THEN coalesce(paused_at, clock_timestamp()) END,"
            " next_at = greatest(next_at, clock_timestamp()) WHERE name = :name"
        ),
        {"name": name, "paused": paused},
    )
    return view(connection, name)


def remove(connection: Connection, name: str) -> None:
    """Delete a schedule. Raises NotFound."""
    view(connection, name)
    connection.execute(text("DELETE FROM schedule WHERE name = :name"), {"name": name})


def run_now(connection: Connection, name: str) -> int:
    """Queue a schedule's job at once, whatever the clock and the feedback say; its id. Raises NotFound, NotAllowed."""
    row = connection.execute(text("SELECT * FROM schedule WHERE name = :name FOR UPDATE"), {"name": name}).one_or_none()
    if row is None:
        view(connection, name)
    assert row is not None
    job_id = jobs.add(connection, row.kind, {**row.params, "schedule": row.name}, subject=row.subject)
    _said(connection, row, job_id, None)
    return job_id


def fire_due(connection: Connection, *, limit: int = 20) -> list[int]:
    """Queue the jobs that are due; their ids. Safe with any number of sweepers: each row is taken by one.

    A schedule whose last job is still open, or for which too little feedback has gathered, waits for its next time.
    """
    due = connection.execute(
        text(
            "SELECT * FROM schedule WHERE paused_at IS NULL AND next_at <= clock_timestamp()"
            " ORDER BY next_at LIMIT :limit FOR UPDATE SKIP LOCKED"
        ),
        {"limit": limit},
    ).all()
    return [job_id for row in due if (job_id := _fire(connection, row)) is not None]


def _fire(connection: Connection, row: Row[Any]) -> int | None:
    gathered = _new_feedback(connection, row) if row.min_feedback else 0
    job_id = None
    if gathered < row.min_feedback:
        said = f"passed over: {gathered} of {row.min_feedback} new pieces of feedback"
    elif row.subject is None and (state := _open(connection, row.last_job_id)) is not None:
        said = f"passed over: its last job {row.last_job_id} is still {state}"
    else:
        try:
            with connection.begin_nested():
                job_id = jobs.add(connection, row.kind, {**row.params, "schedule": row.name}, subject=row.subject)
            said = None
        except NotAllowed as busy:
            said = f"passed over: {busy}"
    _said(connection, row, job_id, said)
    return job_id


def _open(connection: Connection, job_id: int | None) -> str | None:
    state: str | None = connection.execute(
        text(f"SELECT state FROM job WHERE id = :id AND state IN ({in_list(JOB_OPEN)})"), {"id": job_id}
    ).scalar_one_or_none()
    return state


def _said(connection: Connection, row: Row[Any], job_id: int | None, said: str | None) -> None:
    connection.execute(
        text(
            "UPDATE schedule SET next_at = clock_timestamp() + make_interval(secs => every_s), last_said = :said,"
            " last_at = CASE WHEN CAST(:job AS bigint) IS NULL THEN last_at ELSE clock_timestamp() END,"
            " last_job_id = coalesce(:job, last_job_id) WHERE id = :id"
        ),
        {"id": row.id, "job": job_id, "said": said},
    )


def _new_feedback(connection: Connection, row: Row[Any]) -> int:
    expert = (row.subject or "").removeprefix("expert:")
    found: int = connection.execute(
        text(
            "SELECT count(*) FROM feedback WHERE (expert = :expert OR correct_expert = :expert)"
            " AND (CAST(:since AS timestamptz) IS NULL OR created_at > :since)"
        ),
        {"expert": expert, "since": row.last_at},
    ).scalar_one()
    return found
