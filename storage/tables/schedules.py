"""Work that is asked for on a clock, or once enough feedback has gathered."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Double
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from storage.tables.columns import identity, moment


class Schedule(SQLModel, table=True):
    """A job that is queued again and again. Read at every sweep, so a change needs no restart."""

    __tablename__ = "schedule"
    __table_args__ = (
        CheckConstraint("every_s >= 60", name="at_most_each_minute"),
        CheckConstraint("min_feedback >= 0", name="feedback_is_counted"),
    )

    id: int | None = identity()
    name: str = Field(unique=True)
    kind: str
    params: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
    subject: str | None = None
    every_s: float = Field(sa_type=Double)
    # New pieces of feedback on the expert without which a run is passed over.
    min_feedback: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    paused_at: datetime | None = moment()
    next_at: datetime | None = moment(now=True)
    last_at: datetime | None = moment()
    # The last job it queued, or why it queued none.
    last_job_id: int | None = Field(default=None, sa_type=BigInteger)
    last_said: str | None = None
    created_at: datetime | None = moment(now=True)
