"""A run and what hangs on it: queries, shards, chunks, decisions, answers, outcomes."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, REAL, ExcludeConstraint
from sqlmodel import Field, SQLModel

from storage.states import CHUNK_OPEN, RUN_ENDED, SHARD_OPEN, ChunkState, RunState, ShardState, in_list
from storage.tables.columns import Leased, identity, moment, zero


def _run_id(**kwargs: Any) -> Any:
    return Field(sa_column=Column(BigInteger, ForeignKey("run.id", ondelete="CASCADE"), nullable=False, **kwargs))


def _state(enum: type[RunState] | type[ShardState] | type[ChunkState]) -> CheckConstraint:
    return CheckConstraint(f"state IN ({in_list(enum)})", name="state_is_known")


LEASE_IS_PAIRED = "(lease_until IS NULL) = (owner IS NULL)"


class Run(Leased, table=True):
    """One submitted batch (or one question, or one preview) from its lines to its files."""

    __tablename__ = "run"
    __table_args__ = (
        _state(RunState),
        CheckConstraint("kind IN ('batch', 'ask', 'preview')", name="kind_is_known"),
        CheckConstraint("n_ok + n_error <= n_total", name="no_more_outcomes_than_lines"),
        CheckConstraint("n_rejected <= n_error", name="rejected_lines_are_errors"),
        CheckConstraint(
            f"state NOT IN ({in_list(RUN_ENDED)}) OR n_ok + n_error = n_total",
            name="ended_means_every_line_has_an_outcome",
        ),
        CheckConstraint(
            f"state NOT IN ({in_list(RUN_ENDED)}) OR kind = 'preview' OR (output IS NOT NULL AND errors IS NOT NULL)",
            name="ended_means_files_are_written",
        ),
        CheckConstraint("(state = 'finalizing') OR lease_until IS NULL", name="leased_only_while_finalizing"),
        CheckConstraint(LEASE_IS_PAIRED, name="lease_has_an_owner"),
        Index("run_open", "state", "id", postgresql_where=text(f"state NOT IN ({in_list(RUN_ENDED)})")),
        Index("run_name", "name", postgresql_where=text("name IS NOT NULL")),
        Index("run_preview", "created_at", postgresql_where=text("kind = 'preview'")),
        Index("run_lease", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
    )

    id: int | None = identity()
    public_id: str = Field(unique=True)
    name: str | None = None
    kind: str
    state: str = RunState.VALIDATING
    # Which of the ended states finalising leads to.
    ending: str = RunState.COMPLETED
    # Goes up each time failed lines are sent round again; each generation has its own files.
    generation: int = Field(default=1, sa_type=Integer)
    # Share of the workers against other runs: 1 low, 2 normal, 4 high.
    priority: int = Field(default=2, sa_type=SmallInteger)
    top_k: int = Field(default=2, sa_type=SmallInteger)
    strategy: str = "weighted"
    deadline: datetime | None = moment()
    paused_at: datetime | None = moment()
    # A caller's own key: the same key again returns the same run.
    idempotency_key: str | None = Field(default=None, unique=True)
    request_hash: str | None = None
    source: str | None = None
    n_total: int = zero()
    n_rejected: int = zero()
    n_ok: int = zero()
    n_error: int = zero()
    created_at: datetime | None = moment(now=True)
    started_at: datetime | None = moment()
    finished_at: datetime | None = moment()
    # {"path", "sha256", "bytes", "lines"} of each finished file.
    output: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    errors: dict[str, Any] | None = Field(default=None, sa_type=JSONB)


class Query(SQLModel, table=True):
    """One input line. A line that could not be accepted is kept as `rejected`, without a text."""

    __tablename__ = "query"
    __table_args__ = (
        CheckConstraint("rejected = (text IS NULL)", name="rejected_lines_have_no_text"),
        Index("query_custom_id", "run_id", "custom_id", unique=True, postgresql_where=text("NOT rejected")),
    )

    run_id: int = _run_id(primary_key=True)
    # Place among the lines that are not blank, from 0.
    idx: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    # Line number in the file, from 1, blank lines counted.
    line_no: int = Field(sa_type=BigInteger)
    custom_id: str | None = Field(default=None)
    rejected: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    text: str | None = Field(default=None)
    # What the request held besides the text: system prompt, earlier turns, parameters, metadata.
    request: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    # Name of the one expert the line asked for, instead of being routed.
    pinned: str | None = Field(default=None)


class Shard(Leased, table=True):
    """A stretch of a run's lines that is routed and combined together."""

    __tablename__ = "shard"
    __table_args__ = (
        _state(ShardState),
        CheckConstraint("start < stop", name="holds_at_least_one_line"),
        CheckConstraint("chunks_left >= 0", name="chunks_left_is_a_count"),
        CheckConstraint(
            "(state IN ('routing', 'combining')) = (lease_until IS NOT NULL)", name="leased_while_routing_or_combining"
        ),
        CheckConstraint(LEASE_IS_PAIRED, name="lease_has_an_owner"),
        # Open shards of a run never share a line.
        ExcludeConstraint(
            (text("int8range(run_id * 2147483648 + start, run_id * 2147483648 + stop)"), "&&"),
            name="open_shards_do_not_overlap",
            using="gist",
            where=text(f"state IN ({in_list(SHARD_OPEN)})"),
        ),
        Index("shard_run", "run_id"),  # for the foreign key: a run is deleted with its parts
        Index("shard_planned", "run_id", "id", postgresql_where=text("state = 'planned'")),
        Index("shard_open", "run_id", "state", postgresql_where=text(f"state IN ({in_list(SHARD_OPEN)})")),
        Index("shard_lease", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
    )

    id: int | None = identity()
    run_id: int = _run_id()
    start: int = Field(sa_type=Integer)  # first idx
    stop: int = Field(sa_type=Integer)  # one past the last idx
    state: str = ShardState.PLANNED
    depth: int = zero(SmallInteger)  # how often it was halved
    chunks_left: int = zero(Integer)
    n_queries: int = zero(Integer)
    route_ms: float | None = Field(default=None, sa_type=REAL)
    combine_ms: float | None = Field(default=None, sa_type=REAL)


class Chunk(Leased, table=True):
    """The queries of one shard that one expert answers together."""

    __tablename__ = "chunk"
    __table_args__ = (
        _state(ChunkState),
        CheckConstraint("cardinality(idxs) > 0", name="holds_at_least_one_query"),
        CheckConstraint("(state = 'leased') = (lease_until IS NOT NULL)", name="leased_has_a_lease"),
        CheckConstraint(LEASE_IS_PAIRED, name="lease_has_an_owner"),
        Index("chunk_shard", "shard_id"),
        Index("chunk_run", "run_id"),  # for the foreign key
        Index("chunk_queued", "expert_id", "id", postgresql_where=text("state = 'queued'")),
        Index("chunk_open", "run_id", postgresql_where=text(f"state IN ({in_list(CHUNK_OPEN)})")),
        Index("chunk_lease", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
    )

    id: int | None = identity()
    run_id: int = _run_id()
    shard_id: int = Field(sa_column=Column(BigInteger, ForeignKey("shard.id", ondelete="CASCADE"), nullable=False))
    expert_id: int = Field(sa_column=Column(Integer, ForeignKey("expert.id"), nullable=False))
    # Pinned at routing time, so that a change of the expert in the middle does not mix versions inside a chunk.
    expert_version_id: int = Field(sa_column=Column(Integer, ForeignKey("expert_version.id"), nullable=False))
    knowledge_id: int | None = Field(default=None, sa_column=Column(Integer, ForeignKey("knowledge.id")))
    idxs: list[int] = Field(sa_column=Column(ARRAY(Integer), nullable=False))
    state: str = ChunkState.QUEUED
    depth: int = zero(SmallInteger)
    busy_ms: float | None = Field(default=None, sa_type=REAL)


class Decision(SQLModel, table=True):
    """Where one query was sent, how sure the router was, and why."""

    __tablename__ = "decision"
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "idx"], ["query.run_id", "query.idx"], ondelete="CASCADE"),
        CheckConstraint("confidence BETWEEN 0 AND 1 AND coverage BETWEEN 0 AND 1", name="probabilities"),
        Index("decision_outside", "run_id", "idx", postgresql_where=text("NOT in_scope")),
    )

    run_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    idx: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    router_version_id: int = Field(sa_column=Column(Integer, nullable=False))
    # [{"name", "version", "weight"}], best first; weights sum to 1.
    experts: list[dict[str, Any]] = Field(sa_type=JSONB)
    confidence: float = Field(sa_type=REAL)
    coverage: float = Field(sa_type=REAL)
    in_scope: bool
    reason: str
    # {"scores": {expert: {"gate", "self", "load", "final"}}, "nearest": […], "analysis": {…}}
    explanation: dict[str, Any] = Field(sa_type=JSONB)
    # float16[dimension] of the query, so that no later stage embeds it again.
    embedding: bytes | None = Field(default=None, sa_type=LargeBinary)


class Answer(SQLModel, table=True):
    """What one expert said to one query, or why it could not."""

    __tablename__ = "answer"
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "idx"], ["query.run_id", "query.idx"], ondelete="CASCADE"),
        CheckConstraint("(text IS NULL) = (error_code IS NOT NULL)", name="a_text_or_an_error"),
        CheckConstraint("confidence BETWEEN 0 AND 1", name="probability"),
    )

    run_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    idx: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    expert_id: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    chunk_id: int = Field(sa_type=BigInteger)
    # Epoch of the chunk's lease that wrote this.
    epoch: int = Field(sa_type=Integer)
    text: str | None = None
    answered: bool = False
    confidence: float = Field(default=0.0, sa_type=REAL)
    # [{"expert", "document", "title", "start", "end", "score"}]; the spans count characters of the document.
    passages: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSONB)
    ms: float = Field(default=0.0, sa_type=REAL)
    # Of engines that generate.
    prompt_tokens: int | None = Field(default=None, sa_type=Integer)
    completion_tokens: int | None = Field(default=None, sa_type=Integer)
    finish_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class Outcome(SQLModel, table=True):
    """The one recorded end of one query: exactly one line of the output file or of the error file."""

    __tablename__ = "outcome"
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "idx"], ["query.run_id", "query.idx"], ondelete="CASCADE"),
        CheckConstraint("ok = (error_code IS NULL)", name="an_error_has_a_code"),
        Index("outcome_error", "run_id", "error_code", postgresql_where=text("NOT ok")),
    )

    run_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    idx: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    ok: bool
    error_code: str | None = None
    error_message: str | None = None
    # Shard and epoch of the lease that recorded this; null where no worker did (rejected, cancelled, expired lines).
    shard_id: int | None = Field(default=None, sa_type=BigInteger)
    epoch: int | None = Field(default=None, sa_type=Integer)
    # The finished line as it goes into the file.
    line: str = Field(sa_column=Column(JSON, nullable=False))


class PastOutcome(SQLModel, table=True):
    """An error that a later generation of the run tried again."""

    __tablename__ = "past_outcome"

    run_id: int = _run_id(primary_key=True)
    idx: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    generation: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    error_code: str
    error_message: str
    line: str = Field(sa_column=Column(JSON, nullable=False))
