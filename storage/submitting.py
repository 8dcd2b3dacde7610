"""Taking a run in: every line of it in one transaction, or nothing."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json, copy_rows
from storage.errors import NotAllowed
from storage.hints import Hint, PlanHint, RouteHint
from storage.lines import error_line
from storage.shards import INTERACTIVE


@dataclass(frozen=True, slots=True)
class AcceptedLine:
    line_no: int
    custom_id: str
    text: str
    request: dict[str, Any] | None = None
    pinned: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that cannot be answered; it goes straight to the error file."""

    line_no: int
    code: str
    message: str
    custom_id: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class RunOptions:
    kind: str = "batch"
    name: str | None = None
    top_k: int = 2
    strategy: str = "weighted"
    priority: int = 2
    deadline: datetime | None = None
    source: str | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None


@dataclass(frozen=True, slots=True)
class SubmittedRun:
    id: int
    public_id: str
    n_total: int
    n_rejected: int
    # False when the idempotency key was known and the run was there already.
    created: bool
    hints: tuple[Hint, ...]


class KeyReused(NotAllowed):
    """The idempotency key came again with another request."""

    code = "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        super().__init__(f"idempotency key {key!r} was used before for a different request; use a new key")


class NoLines(NotAllowed):
    """There was not one line to take in."""

    code = "no_lines"

    def __init__(self, source: str | None) -> None:
        super().__init__(f"{source or 'the input'} holds no lines")


_STAGE = """CREATE TEMP TABLE incoming (
    idx integer, line_no bigint, custom_id text, text text, request text, pinned text,
    code text, message text, param text, line json
) ON COMMIT DROP"""

# The first use of a custom_id is the line; every later one is an error of its own. Only the narrow columns are sorted.
_STORE = """
WITH twice AS (
    SELECT idx FROM (
        SELECT idx, row_number() OVER (PARTITION BY custom_id COLLATE "C" ORDER BY idx) AS use
        FROM incoming WHERE code IS NULL
    ) uses WHERE use > 1
)
INSERT INTO query (run_id, idx, line_no, custom_id, rejected, text, request, pinned)
SELECT :run, i.idx, i.line_no, i.custom_id, i.code IS NOT NULL OR t.idx IS NOT NULL,
       CASE WHEN t.idx IS NULL THEN i.text END, CAST(i.request AS jsonb), i.pinned
FROM incoming i LEFT JOIN twice t ON t.idx = i.idx
"""

# Outcomes of the lines that were rejected while they were read. Those the statement above found to be used twice have
# no line yet; it is built here, naming the line that used the id first.
_REJECT = """
INSERT INTO outcome (run_id, idx, ok, error_code, error_message, line)
SELECT :run, i.idx, false, i.code, i.message, i.line FROM incoming i WHERE i.code IS NOT NULL
"""
_TWICE = """
WITH twice AS (
    SELECT q.idx, q.line_no, q.custom_id,
           'custom_id ' || to_json(q.custom_id)::text || ' was used before, on line ' || f.line_no AS message
    FROM query q
    JOIN query f ON f.run_id = q.run_id AND f.custom_id = q.custom_id AND NOT f.rejected
    WHERE q.run_id = :run AND q.rejected AND NOT EXISTS (
        SELECT 1 FROM outcome o WHERE o.run_id = q.run_id AND o.idx = q.idx)
)
INSERT INTO outcome (run_id, idx, ok, error_code, error_message, line)
SELECT :run, idx, false, 'duplicate_custom_id', message, json_build_object(
    'id', replace(CAST(:public AS text), 'batch_', 'batch_req_') || '_' || idx, 'custom_id', custom_id,
    'response', NULL,
    'error', json_build_object('code', 'duplicate_custom_id', 'message', message, 'param', 'custom_id',
                               'line', line_no),
    'moe', json_build_object('line', line_no))
FROM twice
"""


def new_public_id() -> str:
    """``batch_`` and 96 random bits; nobody guesses another one's."""
    return f"batch_{secrets.token_hex(12)}"


def submit(connection: Connection, options: RunOptions, lines: Iterable[AcceptedLine | RejectedLine]) -> SubmittedRun:
    """Store a run with all its lines; the messages to send once this is committed.

    Reads ``lines`` as a stream. Raises NoLines when there are none, KeyReused when the idempotency key came with
    another request before; the caller's transaction is then rolled back and nothing is stored.
    """
    if options.idempotency_key is not None:
        known = _same_key(connection, options)
        if known is not None:
            return known
    public_id = new_public_id()
    run_id: int = connection.execute(
        text(
            "INSERT INTO run (public_id, kind, name, state, ending, generation, priority, top_k, strategy, deadline,"
            " source, idempotency_key, request_hash) VALUES (:public, :kind, :name, 'validating', 'completed', 1,"
            " :priority, :top_k, :strategy, :deadline, :source, :key, :hash) RETURNING id"
        ),
        {
            "public": public_id,
            "kind": options.kind,
            "name": options.name,
            "priority": options.priority,
            "top_k": options.top_k,
            "strategy": options.strategy,
            "deadline": options.deadline,
            "source": options.source,
            "key": options.idempotency_key,
            "hash": options.request_hash,
        },
    ).scalar_one()
    n_total = _stage(connection, public_id, lines)
    if n_total == 0:
        raise NoLines(options.source)
    parameters = {"run": run_id, "public": public_id}
    connection.execute(text(_STORE), parameters)
    connection.execute(text(_REJECT), parameters)
    connection.execute(text(_TWICE), parameters)
    n_rejected: int = connection.execute(
        text(
            "UPDATE run SET n_total = :total, (n_rejected, n_error) ="
            " (SELECT count(*), count(*) FROM outcome WHERE run_id = :run) WHERE id = :run RETURNING n_rejected"
        ),
        {"total": n_total, **parameters},
    ).scalar_one()
    hints = _start(connection, run_id, options, n_total - n_rejected)
    return SubmittedRun(run_id, public_id, n_total, n_rejected, True, hints)


def _same_key(connection: Connection, options: RunOptions) -> SubmittedRun | None:
    # Two requests with one key at the same moment take turns.
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 42))"), {"key": options.idempotency_key}
    )
    row = connection.execute(
        text("SELECT id, public_id, n_total, n_rejected, request_hash FROM run WHERE idempotency_key = :key"),
        {"key": options.idempotency_key},
    ).one_or_none()
    if row is None:
        return None
    if row.request_hash != options.request_hash:
        raise KeyReused(options.idempotency_key or "")
    return SubmittedRun(row.id, row.public_id, row.n_total, row.n_rejected, False, ())


def _stage(connection: Connection, public_id: str, lines: Iterable[AcceptedLine | RejectedLine]) -> int:
    connection.execute(text(_STAGE))

    def rows() -> Iterable[tuple[Any, ...]]:
        for idx, line in enumerate(lines):
            if isinstance(line, AcceptedLine):
                request = None if line.request is None else as_json(line.request)
                yield (idx, line.line_no, line.custom_id, line.text, request, line.pinned, None, None, None, None)
            else:
                rendered = error_line(
                    run=public_id,
                    idx=idx,
                    custom_id=line.custom_id,
                    line_no=line.line_no,
                    code=line.code,
                    message=line.message,
                    param=line.param,
                )
                yield (
                    idx,
                    line.line_no,
                    line.custom_id,
                    None,
                    None,
                    None,
                    line.code,
                    line.message,
                    line.param,
                    rendered,
                )

    columns = ("idx", "line_no", "custom_id", "text", "request", "pinned", "code", "message", "param", "line")
    return copy_rows(connection, "incoming", columns, rows())


def _start(connection: Connection, run_id: int, options: RunOptions, n_open: int) -> tuple[Hint, ...]:
    """A single question skips planning: its one shard is queued at once."""
    if options.priority < INTERACTIVE or n_open != 1:
        return (PlanHint(run_id),)
    shard_id: int = connection.execute(
        text(
            "INSERT INTO shard (run_id, start, stop, state, n_queries, published_at)"
            " SELECT run_id, idx, idx + 1, 'queued', 1, clock_timestamp() FROM query"
            " WHERE run_id = :run AND NOT rejected RETURNING id"
        ),
        {"run": run_id},
    ).scalar_one()
    connection.execute(
        text("UPDATE run SET state = 'in_progress', started_at = clock_timestamp() WHERE id = :run"), {"run": run_id}
    )
    return (RouteHint(shard_id, True),)
