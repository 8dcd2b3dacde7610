"""Versions of an expert: candidates, the live one, and those before it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json
from storage.errors import NotAllowed, NotFound


@dataclass(frozen=True, slots=True)
class Adapter:
    """Where an adapter lies and what its files must hash to; the hash of its numbers, and of its base's."""

    artefact: str
    tree_sha256: str
    sha256: str
    base_sha256: str


@dataclass(frozen=True, slots=True)
class VersionView:
    id: int
    expert: str
    number: int
    state: str  # live, candidate (never promoted) or retired
    engine: str
    card: dict[str, Any]
    adapter: Adapter | None
    metrics: dict[str, Any] | None
    verdict: dict[str, Any] | None
    job_id: int | None
    created_at: datetime
    promoted_at: datetime | None


_VERSION = """
SELECT v.id, e.name, v.number, CASE WHEN e.live_version_id = v.id THEN 'live' WHEN v.promoted_at IS NULL
           THEN 'candidate' ELSE 'retired' END AS state, v.engine, v.card, v.adapter, v.adapter_tree_sha256,
       v.adapter_sha256, v.base_sha256, v.metrics, v.verdict, v.job_id, v.created_at, v.promoted_at
FROM expert_version v JOIN expert e ON e.id = v.expert_id
"""


def _view(row: Any) -> VersionView:
    adapter = (
        None
        if row.adapter is None
        else Adapter(row.adapter, row.adapter_tree_sha256, row.adapter_sha256, row.base_sha256)
    )
    return VersionView(
        row.id,
        row.name,
        row.number,
        row.state,
        row.engine,
        row.card,
        adapter,
        row.metrics,
        row.verdict,
        row.job_id,
        row.created_at,
        row.promoted_at,
    )


def versions(connection: Connection, expert: str) -> list[VersionView]:
    """Every version of the expert, the newest first. Raises NotFound for an expert that is not there."""
    _locked(connection, expert, share=True)
    rows = connection.execute(text(f"{_VERSION} WHERE e.name = :expert ORDER BY v.number DESC"), {"expert": expert})
    return [_view(row) for row in rows]


def version(connection: Connection, expert: str, number: int | None) -> VersionView:
    """One version (None: the live one). Raises NotFound with the numbers there are."""
    found = versions(connection, expert)
    for view in found:
        if view.number == number or (number is None and view.state == "live"):
            return view
    if number is None:
        raise NotFound("live version of expert", expert)
    raise NotFound(f"version of {expert}", str(number), known=[str(view.number) for view in found[:20]])


def ensure_expert(connection: Connection, name: str) -> int:
    """The expert's id; one that is new has no version yet and serves nothing."""
    expert_id: int = connection.execute(
        text(
            "INSERT INTO expert (name) VALUES (:name)"
            " ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id"
        ),
        {"name": name},
    ).scalar_one()
    return expert_id


def add_version(
    connection: Connection,
    expert_id: int,
    *,
    engine: str,
    card: Mapping[str, Any],
    adapter: Adapter | None,
    metrics: Mapping[str, Any] | None = None,
    verdict: Mapping[str, Any] | None = None,
    job_id: int | None = None,
) -> int:
    """Store the expert's next version, a candidate; its number. One that this job stored already is given back."""
    connection.execute(text("SELECT 1 FROM expert WHERE id = :expert FOR UPDATE"), {"expert": expert_id})
    done = connection.execute(
        text("SELECT number FROM expert_version WHERE expert_id = :expert AND job_id = :job"),
        {"expert": expert_id, "job": job_id},
    ).scalar_one_or_none()
    if done is not None:
        return int(done)
    number: int = connection.execute(
        text(
            """INSERT INTO expert_version (expert_id, number, engine, card, adapter, adapter_tree_sha256,
                                           adapter_sha256, base_sha256, metrics, verdict, job_id)
               SELECT :expert, coalesce(max(number), 0) + 1, :engine, CAST(:card AS jsonb), :adapter, :tree, :sha256,
                      :base, CAST(:metrics AS jsonb), CAST(:verdict AS jsonb), :job
               FROM expert_version WHERE expert_id = :expert RETURNING number"""
        ),
        {
            "expert": expert_id,
            "engine": engine,
            "card": as_json(dict(card)),
            "adapter": adapter and adapter.artefact,
            "tree": adapter and adapter.tree_sha256,
            "sha256": adapter and adapter.sha256,
            "base": adapter and adapter.base_sha256,
            "metrics": None if metrics is None else as_json(dict(metrics)),
            "verdict": None if verdict is None else as_json(dict(verdict)),
            "job": job_id,
        },
    ).scalar_one()
    return number


def promote(connection: Connection, expert: str, number: int) -> VersionView:
    """Make a version live in one move, and an expert that was retired active again. Raises NotFound.

    Chunks that were cut before go on with the version they were cut for.
    """
    _locked(connection, expert)
    connection.execute(text("UPDATE expert SET retired_at = NULL WHERE name = :expert"), {"expert": expert})
    return _live(connection, version(connection, expert, number))


def rollback(connection: Connection, expert: str) -> VersionView:
    """Make the version live that was so before. Raises NotFound, and NotAllowed where there was none.

    The present one loses its place in the order, so that going back again goes further back.
    """
    _locked(connection, expert)
    present = version(connection, expert, None)
    before = connection.execute(
        text(
            "SELECT v.number FROM expert_version v JOIN expert e ON e.id = v.expert_id WHERE e.name = :expert"
            " AND v.promoted_at IS NOT NULL AND v.id <> e.live_version_id"
            " ORDER BY v.promoted_at DESC, v.id DESC LIMIT 1"
        ),
        {"expert": expert},
    ).scalar_one_or_none()
    if before is None:
        raise NotAllowed(f"no version of {expert} was live before version {present.number}")
    found = _live(connection, version(connection, expert, before))
    connection.execute(text("UPDATE expert_version SET promoted_at = NULL WHERE id = :id"), {"id": present.id})
    return found


def _live(connection: Connection, view: VersionView) -> VersionView:
    connection.execute(
        text("UPDATE expert SET live_version_id = :version WHERE name = :expert"),
        {"version": view.id, "expert": view.expert},
    )
    connection.execute(
        text("UPDATE expert_version SET promoted_at = clock_timestamp() WHERE id = :version"), {"version": view.id}
    )
    return version(connection, view.expert, view.number)


def retire(connection: Connection, expert: str) -> bool:
    """Let the next router do without the expert; False where it was retired already. Raises NotFound."""
    _locked(connection, expert)
    moved = connection.execute(
        text("UPDATE expert SET retired_at = clock_timestamp() WHERE name = :expert AND retired_at IS NULL"),
        {"expert": expert},
    )
    return bool(moved.rowcount)


def _locked(connection: Connection, expert: str, *, share: bool = False) -> None:
    found = connection.execute(
        text(f"SELECT id FROM expert WHERE name = :expert FOR {'KEY SHARE' if share else 'UPDATE'}"), {"expert": expert}
    ).one_or_none()
    if found is None:
        known = connection.execute(text("SELECT name FROM expert ORDER BY name")).scalars()
        raise NotFound("expert", expert, known=list(known))
