"""Runs as people see and steer them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from storage.errors import NotAllowed, NotFound
from storage.run_routing import spread
from storage.states import RUN_ENDED, in_list


@dataclass(frozen=True, slots=True)
class RunView:
    id: int
    public_id: str
    name: str | None
    kind: str
    state: str
    generation: int
    priority: int
    top_k: int
    strategy: str
    deadline: datetime | None
    paused: bool
    source: str | None
    n_total: int
    n_rejected: int
    n_ok: int
    n_error: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    output: dict[str, Any] | None
    errors: dict[str, Any] | None

    @property
    def ended(self) -> bool:
        return self.state in RUN_ENDED


_VIEW = """SELECT id, public_id, name, kind, state, generation, priority, top_k, strategy, deadline,
    paused_at IS NOT NULL AS paused, source, n_total, n_rejected, n_ok, n_error, created_at, started_at, finished_at,
    output, errors FROM run"""


def find(connection: Connection, key: str) -> RunView:
    """The run with this id, this unambiguous beginning of an id, or this name (the newest of that name); no preview.

    Raises NotFound, and NotAllowed where the beginning fits several runs.
    """
    rows = connection.execute(
        text(
            f"{_VIEW} WHERE kind <> 'preview' AND (public_id = :key OR name = :key"
            " OR (length(:key) >= 4 AND (starts_with(public_id, :key) OR starts_with(public_id, 'batch_' || :key))))"
            " ORDER BY public_id = :key DESC, coalesce(name = :key, false) DESC, id DESC LIMIT 5"
        ),
        {"key": key},
    ).all()
    if not rows:
        raise NotFound("run", key)
    first = RunView(*rows[0])
    if len(rows) > 1 and key not in (first.public_id, first.name):
        raise NotAllowed(f"{key!r} is the beginning of several run ids: {', '.join(row.public_id for row in rows)}")
    return first


def view(connection: Connection, run_id: int) -> RunView:
    """The run with this internal id; raises NotFound."""
    row = connection.execute(text(f"{_VIEW} WHERE id = :id"), {"id": run_id}).one_or_none()
    if row is None:
        raise NotFound("run", str(run_id))
    return RunView(*row)


def recent(connection: Connection, *, limit: int, include_asks: bool = False) -> list[RunView]:
    """The newest runs first; single questions only where asked for."""
    kinds = "('batch', 'ask')" if include_asks else "('batch')"
    rows = connection.execute(text(f"{_VIEW} WHERE kind IN {kinds} ORDER BY id DESC LIMIT :n"), {"n": limit})
    return [RunView(*row) for row in rows]


def cancel(connection: Connection, run: RunView) -> bool:
    """Ask for the end of a run; False when it has ended or is ending already. Its finished lines are kept.

    A preview has no lines to keep and is not cancelled but removed.
    """
    moved = connection.execute(
        text(
            "UPDATE run SET state = 'cancelling', ending = 'cancelled', published_at = clock_timestamp()"
            " WHERE id = :run AND state IN ('validating', 'in_progress') AND kind <> 'preview'"
        ),
        {"run": run.id},
    )
    return moved.rowcount == 1


def pause(connection: Connection, run: RunView, *, paused: bool) -> bool:
    """Stop or resume handing out work; what is leased is finished. False when nothing changed."""
    if run.ended:
        raise NotAllowed(
            f"run {run.public_id} has ended ({run.state}); only a run in progress can be paused or resumed"
        )
    changed = connection.execute(
        text(
            "UPDATE run SET paused_at = CASE WHEN :paused THEN clock_timestamp() END"
            " WHERE id = :run AND (paused_at IS NULL) = :paused"
        ),
        {"run": run.id, "paused": paused},
    )
    if changed.rowcount and not paused:
        # The hints sent before the pause were dropped; these are due again at once.
        for table in ("chunk", "shard"):
            connection.execute(
                text(
                    f"UPDATE {table} SET published_at = NULL WHERE run_id = :run AND state IN ('queued', 'answering')"
                ),
                {"run": run.id},
            )
    return changed.rowcount == 1


def expire_overdue(connection: Connection) -> list[int]:
    """Mark runs whose deadline has passed; their ids."""
    rows = connection.execute(
        text(
            "UPDATE run SET state = 'expiring', ending = 'expired', published_at = clock_timestamp()"
            " WHERE state IN ('validating', 'in_progress') AND deadline < clock_timestamp() AND kind <> 'preview'"
            " RETURNING id"
        )
    )
    return list(rows.scalars())


def remove(connection: Connection, run_id: int) -> None:
    """Delete a preview with everything stored for it."""
    connection.execute(text("DELETE FROM run WHERE id = :run AND kind = 'preview'"), {"run": run_id})


def remove_stale_preview(connection: Connection, *, older_than_s: float) -> bool:
    """Delete one preview whose client went away before it could; False when there is none (or others are at it)."""
    removed = connection.execute(
        text(
            "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE kind = 'preview'"
            " AND created_at < clock_timestamp() - make_interval(secs => :age) LIMIT 1 FOR UPDATE SKIP LOCKED)"
        ),
        {"age": older_than_s},
    )
    return removed.rowcount == 1


def prune(connection: Connection, *, older_than_s: float, limit: int = 100) -> list[str]:
    """Delete some runs that ended longer ago, with everything stored for them; their public ids, for their files."""
    rows = connection.execute(
        text(
            f"DELETE FROM run WHERE id IN (SELECT id FROM run WHERE state IN ({in_list(RUN_ENDED)})"
            " AND finished_at < clock_timestamp() - make_interval(secs => :age)"
            " ORDER BY id LIMIT :n FOR UPDATE SKIP LOCKED) RETURNING public_id"
        ),
        {"age": older_than_s, "n": limit},
    )
    return list(rows.scalars())


@dataclass(frozen=True, slots=True)
class Cause:
    """Failed lines that failed for the same reason."""

    code: str
    message: str
    lines: int
    sample_lines: Sequence[int]
    sample_ids: Sequence[str]


def causes(connection: Connection, run: RunView) -> list[Cause]:
    """The run's failed lines grouped by cause, the commonest first. Numbers and quotes in messages do not count."""
    rows = connection.execute(
        text(
            r"""SELECT o.error_code, min(o.error_message), count(*),
                       (array_agg(q.line_no ORDER BY o.idx))[1:5],
                       array_remove((array_agg(q.custom_id ORDER BY o.idx))[1:5], NULL)
                FROM outcome o JOIN query q ON q.run_id = o.run_id AND q.idx = o.idx
                WHERE o.run_id = :run AND NOT o.ok
                GROUP BY o.error_code, regexp_replace(o.error_message, '"[^"]*"|''[^'']*''|\d+', '*', 'g')
                ORDER BY count(*) DESC, o.error_code"""
        ),
        {"run": run.id},
    )
    return [Cause(*row) for row in rows]


def experts_used(connection: Connection, run: RunView) -> list[tuple[str, int, float]]:
    """(expert, lines it was first choice for, mean weight there), the busiest first."""
    parts = spread(connection, run.id)
    chosen = [(part.expert, part.first, part.mean_weight) for part in parts if part.mean_weight is not None]
    return sorted(chosen, key=lambda part: (-part[1], part[0]))


def outside(connection: Connection, run: RunView) -> int:
    """How many lines no expert covers."""
    count: int = connection.execute(
        text("SELECT count(*) FROM decision WHERE run_id = :run AND NOT in_scope"), {"run": run.id}
    ).scalar_one()
    return count


def open_runs(connection: Connection) -> int:
    """How many runs have not ended."""
    count: int = connection.execute(
        text(f"SELECT count(*) FROM run WHERE state NOT IN ({in_list(RUN_ENDED)})")
    ).scalar_one()
    return count
