"""What people said of answers, and the questions no expert covers."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from storage.errors import NotAllowed, NotFound
from storage.runs import RunView


@dataclass(frozen=True, slots=True)
class Gap:
    """A question outside every domain; ``nearest`` is the expert it was sent to all the same."""

    run: str
    custom_id: str | None
    text: str
    coverage: float
    nearest: str | None
    asked_at: datetime


def add(
    connection: Connection,
    run: RunView,
    custom_id: str,
    *,
    positive: bool | None,
    correct_expert: str | None,
    correct_answer: str | None,
) -> str:
    """Store what was said of one answered line; the expert whose answer it was. Raises NotFound, NotAllowed."""
    row = connection.execute(
        text(
            "SELECT q.idx, o.ok, o.line #>> '{moe,answered_by}' AS expert FROM query q"
            " LEFT JOIN outcome o ON o.run_id = q.run_id AND o.idx = q.idx"
            " WHERE q.run_id = :run AND q.custom_id = :custom_id AND NOT q.rejected"
        ),
        {"run": run.id, "custom_id": custom_id},
    ).one_or_none()
    if row is None:
        raise NotFound("line with custom_id", custom_id)
    if not row.ok:
        raise NotAllowed(f"line {custom_id!r} of run {run.public_id} has no answer to judge")
    connection.execute(
        text(
            "INSERT INTO feedback (run_id, idx, expert, positive, correct_expert, correct_answer)"
            " VALUES (:run, :idx, :expert, :positive, :correct_expert, :correct_answer)"
        ),
        {
            "run": run.id,
            "idx": row.idx,
            "expert": row.expert,
            "positive": positive,
            "correct_expert": correct_expert,
            "correct_answer": correct_answer,
        },
    )
    return str(row.expert)


def gaps(connection: Connection, *, run_id: int | None, limit: int) -> list[Gap]:
    """Questions no expert covers, of one run or of all: the least covered first in a run, else the newest first."""
    order = "d.run_id DESC, d.idx" if run_id is None else "d.coverage, d.idx"
    rows = connection.execute(
        text(
            "SELECT r.public_id, q.custom_id, q.text, d.coverage, d.experts->0->>'name', r.created_at FROM decision d"
            " JOIN query q ON q.run_id = d.run_id AND q.idx = d.idx JOIN run r ON r.id = d.run_id"
            " WHERE NOT d.in_scope AND r.kind <> 'preview'"
            f" AND (CAST(:run AS bigint) IS NULL OR d.run_id = :run) ORDER BY {order} LIMIT :n"
        ),
        {"run": run_id, "n": limit},
    )
    return [Gap(*row) for row in rows]


def corrected(connection: Connection) -> list[tuple[str, str]]:
    """(text, right expert) of every line of which somebody said so; what was said last counts."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT ON (f.run_id, f.idx) q.text, f.correct_expert FROM feedback f"
            " JOIN query q ON q.run_id = f.run_id AND q.idx = f.idx"
            " WHERE f.correct_expert IS NOT NULL ORDER BY f.run_id, f.idx, f.id DESC"
        )
    )
    return [(asked, expert) for asked, expert in rows]


def answers(connection: Connection, expert: str) -> list[tuple[str, str]]:
    """(text, right answer) of every line the expert answered, or should have, of which somebody gave the answer."""
    rows = connection.execute(
        text(
            "SELECT DISTINCT ON (f.run_id, f.idx) q.text, f.correct_answer FROM feedback f"
            " JOIN query q ON q.run_id = f.run_id AND q.idx = f.idx"
            " WHERE f.correct_answer IS NOT NULL AND coalesce(f.correct_expert, f.expert) = :expert"
            " ORDER BY f.run_id, f.idx, f.id DESC"
        ),
        {"expert": expert},
    )
    return [(asked, answer) for asked, answer in rows]
