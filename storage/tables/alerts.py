"""What people should look at."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel, col

from storage.tables.columns import identity, moment
from storage.tables.experts import Feedback
from storage.tables.runs import Run


class RouterAlert(SQLModel, table=True):
    """Something unusual about a run, an expert or the router, until somebody has seen it and after."""

    __tablename__ = "router_alert"
    __table_args__ = (
        Index(
            "router_alert_unseen",
            "kind",
            text("coalesce(run_id, 0)"),
            text("coalesce(expert, '')"),
            unique=True,
            postgresql_where=text("seen_at IS NULL"),
        ),
        Index("router_alert_run", "run_id"),  # for the foreign key: a run is deleted with its parts
    )

    id: int | None = identity()
    kind: str
    run_id: int | None = Field(
        default=None, sa_column=Column(BigInteger, ForeignKey("run.id", ondelete="CASCADE"), nullable=True)
    )
    expert: str | None = None
    message: str
    detail: dict[str, Any] = Field(sa_type=JSONB)
    created_at: datetime | None = moment(now=True)
    seen_at: datetime | None = moment()


# What alerts are found from is read all the time: what people said lately, and the runs that ended last.
Index(
    "feedback_said",
    col(Feedback.created_at),
    col(Feedback.expert),
    col(Feedback.positive),
    postgresql_where=text("positive IS NOT NULL"),
)
Index("run_ended", col(Run.finished_at), postgresql_where=text("finished_at IS NOT NULL AND kind <> 'preview'"))
