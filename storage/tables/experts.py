"""Experts, what they know, and the routers that choose between them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from storage.states import RouterState, in_list
from storage.tables.columns import moment, zero


def _id() -> Any:
    return Field(default=None, sa_column=Column(Integer, Identity(always=True), primary_key=True))


def _expert_id(**kwargs: Any) -> Any:
    return Field(sa_column=Column(Integer, ForeignKey("expert.id", ondelete="CASCADE"), nullable=False, **kwargs))


class Expert(SQLModel, table=True):
    """A domain and who answers for it now."""

    __tablename__ = "expert"
    __table_args__ = (
        CheckConstraint("name ~ '^[a-z][a-z0-9_]{0,49}$'", name="name_is_plain"),
        # Served from the first router version that knows it, and never without a version of its own.
        CheckConstraint("NOT serving OR live_version_id IS NOT NULL", name="serving_needs_a_version"),
    )

    id: int | None = _id()
    name: str = Field(unique=True)
    serving: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    live_version_id: int | None = Field(default=None, sa_type=Integer)
    live_knowledge_id: int | None = Field(default=None, sa_type=Integer)
    # Since when no router is to know it; everything it was stays stored.
    retired_at: datetime | None = moment()
    created_at: datetime | None = moment(now=True)


class ExpertVersion(SQLModel, table=True):
    """One state of an expert's card, engine and adapter. Never changed, only followed by the next.

    A version that was never promoted is a candidate; ``verdict`` says why.
    """

    __tablename__ = "expert_version"
    __table_args__ = (
        UniqueConstraint("expert_id", "number"),
        CheckConstraint(
            "num_nulls(adapter, adapter_tree_sha256, adapter_sha256, base_sha256) IN (0, 4)",
            name="adapter_has_its_hashes",
        ),
    )

    id: int | None = _id()
    expert_id: int = _expert_id()
    number: int = Field(sa_type=Integer)
    engine: str
    card: dict[str, Any] = Field(sa_type=JSONB)
    # The artefact of the LoRA adapter and the hash of its files; the hash of its numbers, and of its base's.
    adapter: str | None = None
    adapter_tree_sha256: str | None = None
    adapter_sha256: str | None = None
    base_sha256: str | None = None
    metrics: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    verdict: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    job_id: int | None = Field(default=None, sa_type=BigInteger)
    # When it last went live; null for a candidate, or one that somebody went back from.
    promoted_at: datetime | None = moment()
    created_at: datetime | None = moment(now=True)


class TrainingSet(SQLModel, table=True):
    """Examples an expert learns from, or is measured on. Never changed; the newest of a purpose is in use."""

    __tablename__ = "training_set"
    __table_args__ = (
        CheckConstraint("purpose IN ('train', 'validation', 'evaluation')", name="purpose_is_known"),
        Index("training_set_expert", "expert_id", "purpose", "id"),
    )

    id: int | None = _id()
    expert_id: int = _expert_id()
    purpose: str
    artefact: str
    sha256: str
    n_examples: int = Field(sa_type=Integer)
    job_id: int | None = Field(default=None, sa_type=BigInteger)
    created_at: datetime | None = moment(now=True)


class Exemplar(SQLModel, table=True):
    """A query that belongs to an expert, or, without an expert, to none of them."""

    __tablename__ = "exemplar"
    __table_args__ = (
        Index("exemplar_text", text("coalesce(expert_id, 0)"), text("md5(text)"), unique=True),
        Index("exemplar_expert", "expert_id"),
    )

    id: int | None = _id()
    expert_id: int | None = Field(
        default=None, sa_column=Column(Integer, ForeignKey("expert.id", ondelete="CASCADE"), nullable=True)
    )
    text: str


class Document(SQLModel, table=True):
    """One document of an expert's knowledge base."""

    __tablename__ = "document"
    __table_args__ = (UniqueConstraint("expert_id", "name"),)

    id: int | None = _id()
    expert_id: int = _expert_id()
    name: str
    title: str
    text: str
    sha256: str
    added_at: datetime | None = moment(now=True)


class Knowledge(SQLModel, table=True):
    """A built index over the documents an expert had at one time. Never changed."""

    __tablename__ = "knowledge"
    __table_args__ = (UniqueConstraint("expert_id", "number"),)

    id: int | None = _id()
    expert_id: int = _expert_id()
    number: int = Field(sa_type=Integer)
    # Of the documents and of how they were cut and embedded: the same content is not built twice.
    content_sha256: str
    artefact: str
    artefact_sha256: str
    n_documents: int = Field(sa_type=Integer)
    n_passages: int = Field(sa_type=Integer)
    created_at: datetime | None = moment(now=True)


class RouterVersion(SQLModel, table=True):
    """A trained router. The live one routes; retired ones are kept."""

    __tablename__ = "router_version"
    __table_args__ = (
        CheckConstraint(f"state IN ({in_list(RouterState)})", name="state_is_known"),
        Index("router_version_live", "state", unique=True, postgresql_where=text("state = 'live'")),
    )

    id: int | None = _id()
    kind: str
    state: str = RouterState.TRAINED
    encoder: str | None = None
    artefact: str
    artefact_sha256: str
    # Of the exemplars, cards and settings it was trained from: the same content is not trained twice.
    content_sha256: str
    experts: list[str] = Field(sa_type=JSONB)
    metrics: dict[str, Any] = Field(sa_type=JSONB)
    created_at: datetime | None = moment(now=True)
    # When it last went live; null for one that never did, or that somebody went back from.
    promoted_at: datetime | None = moment()


class ExpertHour(SQLModel, table=True):
    """What an expert did in one hour, added up as its chunks are settled."""

    __tablename__ = "expert_hour"

    expert_id: int = _expert_id(primary_key=True)
    hour: datetime = Field(sa_column=Column(DateTime(timezone=True), primary_key=True))
    n_queries: int = zero()
    n_answered: int = zero()
    n_errors: int = zero()
    n_chunks: int = zero()
    busy_ms: float = zero(Double)
    confidence_sum: float = zero(Double)


class Feedback(SQLModel, table=True):
    """What a person said of one answered line."""

    __tablename__ = "feedback"
    __table_args__ = (
        CheckConstraint(
            "positive IS NOT NULL OR correct_expert IS NOT NULL OR correct_answer IS NOT NULL", name="says_something"
        ),
        Index("feedback_run", "run_id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    run_id: int = Field(sa_column=Column(BigInteger, ForeignKey("run.id", ondelete="CASCADE"), nullable=False))
    idx: int = Field(sa_type=Integer)
    # The expert whose answer was shown.
    expert: str
    positive: bool | None = None
    correct_expert: str | None = None
    correct_answer: str | None = None
    created_at: datetime | None = moment(now=True)
