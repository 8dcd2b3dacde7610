"""Training jobs and what they report."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from storage.states import JobState, in_list
from storage.tables.columns import Leased, identity, moment


class Job(Leased, table=True):
    """Work for the training queue: for now, bringing indexes and router in line with the catalogue."""

    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint(f"state IN ({in_list(JobState)})", name="state_is_known"),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="leased_while_running"),
        CheckConstraint("(lease_until IS NULL) = (owner IS NULL)", name="lease_has_an_owner"),
        Index("job_open", "state", "id", postgresql_where=text("state IN ('queued', 'running')")),
    )

    id: int | None = identity()
    kind: str
    params: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    state: str = JobState.QUEUED
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
