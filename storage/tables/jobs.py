"""Training jobs and what they report."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from storage.states import JOB_OPEN, JobState, in_list
from storage.tables.columns import Leased, identity, moment


class Job(Leased, table=True):
    """Work for the training queue: indexes, routers, adapters, and what measures them."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(f"state IN ({in_list(JobState)})", name="state_is_known"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="leased_while_running"),
        CheckConstraint("(lease_until IS NULL) = (owner IS NULL)", name="lease_has_an_owner"),
        CheckConstraint("wanted IS NULL OR wanted IN ('cancel', 'pause')", name="wanted_is_known"),
        Index("job_open", "state", "id", postgresql_where=text("state IN ('queued', 'running')")),
        Index("job_subject", "subject", unique=True, postgresql_where=text(f"state IN ({in_list(JOB_OPEN)})")),
    )

    id: int | None = identity()
    kind: str
    # What no two open jobs may work on at once, such as "expert:finance"; null where any number may.
    subject: str | None = None
    params: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    state: str = JobState.QUEUED
    # What a person asked of it while it ran.
    wanted: str | None = None
    # How far it is: steps, losses, seconds left.
    progress: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    result: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    error_code: str | None = None
    error_message: str | None = None
    created_at: datetime | None = moment(now=True)
    finished_at: datetime | None = moment()


class JobEvent(SQLModel, table=True):
    """One line of a job's story, for people to follow it."""

    __tablename__ = "job_event"
    __table_args__ = (Index("job_event_job", "job_id", "id"),)

    id: int | None = identity()
    job_id: int = Field(sa_column=Column(BigInteger, ForeignKey("job.id", ondelete="CASCADE"), nullable=False))
    at: datetime | None = moment(now=True)
    message: str
    data: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
