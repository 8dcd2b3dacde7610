"""Built knowledge and trained routers: what is live, and how the next becomes so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json
from storage.errors import NotFound


@dataclass(frozen=True, slots=True)
class RouterView:
    id: int
    kind: str
    state: str
    encoder: str | None
    artefact: str
    artefact_sha256: str
    content_sha256: str
    experts: list[str]
    metrics: dict[str, Any]
    created_at: datetime
    promoted_at: datetime | None


_ROUTER = """SELECT id, kind, state, encoder, artefact, artefact_sha256, content_sha256, experts, metrics, created_at,
    promoted_at FROM router_version"""


def live_router(connection: Connection) -> RouterView | None:
    """The router that routes now; None before the first was trained."""
    row = connection.execute(text(f"{_ROUTER} WHERE state = 'live'")).one_or_none()
    return None if row is None else RouterView(*row)


def knowledge_is_built(connection: Connection, expert_id: int, content_sha256: str) -> bool:
    """Whether the expert's live index is of this very content."""
    live = connection.execute(
        text(
            "SELECT k.content_sha256 FROM expert e JOIN knowledge k ON k.id = e.live_knowledge_id WHERE e.id = :expert"
        ),
        {"expert": expert_id},
    ).scalar_one_or_none()
    return live == content_sha256


def add_knowledge(
    connection: Connection,
    expert_id: int,
    *,
    content_sha256: str,
    artefact: str,
    artefact_sha256: str,
    n_documents: int,
    n_passages: int,
) -> int:
    """Store a built index as the expert's next and make it live; its number."""
    number: int = connection.execute(
        text(
            """WITH added AS (
                   INSERT INTO knowledge (expert_id, number, content_sha256, artefact, artefact_sha256, n_documents,
                                          n_passages)
                   SELECT :expert, coalesce(max(number), 0) + 1, :content, :artefact, :sha256, :documents, :passages
                   FROM knowledge WHERE expert_id = :expert RETURNING id, number)
               UPDATE expert SET live_knowledge_id = added.id FROM added WHERE expert.id = :expert
               RETURNING added.number"""
        ),
        {
            "expert": expert_id,
            "content": content_sha256,
            "artefact": artefact,
            "sha256": artefact_sha256,
            "documents": n_documents,
            "passages": n_passages,
        },
    ).scalar_one()
    return number


def drop_knowledge(connection: Connection, expert_id: int) -> None:
    """An expert without documents has no live index."""
    connection.execute(text("UPDATE expert SET live_knowledge_id = NULL WHERE id = :expert"), {"expert": expert_id})


def add_router(
    connection: Connection,
    *,
    kind: str,
    encoder: str | None,
    artefact: str,
    artefact_sha256: str,
    content_sha256: str,
    experts: Sequence[str],
    metrics: Mapping[str, Any],
) -> int:
    """Store a trained router, which routes nothing yet; its version number."""
    version: int = connection.execute(
        text(
            """INSERT INTO router_version (kind, state, encoder, artefact, artefact_sha256, content_sha256, experts,
                                           metrics)
               VALUES (:kind, 'trained', :encoder, :artefact, :sha256, :content, CAST(:experts AS jsonb),
                       CAST(:metrics AS jsonb)) RETURNING id"""
        ),
        {
            "kind": kind,
            "encoder": encoder,
            "artefact": artefact,
            "sha256": artefact_sha256,
            "content": content_sha256,
            "experts": as_json(list(experts)),
            "metrics": as_json(dict(metrics)),
        },
    ).scalar_one()
    return version


def promote_router(connection: Connection, version: int) -> RouterView:
    """Make a stored router live in one move, and its experts serving; raises NotFound.

    Shards that were claimed before go on with the router they were claimed under.
    """
    connection.execute(text("LOCK TABLE router_version IN SHARE ROW EXCLUSIVE MODE"))
    view = router(connection, version)
    connection.execute(
        text("UPDATE router_version SET state = 'retired' WHERE state = 'live' AND id <> :version"),
        {"version": version},
    )
    connection.execute(
        text("UPDATE router_version SET state = 'live', promoted_at = clock_timestamp() WHERE id = :version"),
        {"version": version},
    )
    connection.execute(
        text(
            "UPDATE expert SET serving = NOT serving WHERE serving <>"
            " (name = ANY(:experts) AND live_version_id IS NOT NULL AND retired_at IS NULL)"
        ),
        {"experts": view.experts},
    )
    return router(connection, version)


def rollback_router(connection: Connection) -> RouterView | None:
    """Make the router live that was so before the present one; None where there was none.

    The present one loses its place in the order, so that going back again goes further back.
    """
    present = live_router(connection)
    before = connection.execute(
        text(
            "SELECT id FROM router_version WHERE state = 'retired' AND promoted_at IS NOT NULL"
            " ORDER BY promoted_at DESC, id DESC LIMIT 1"
        )
    ).scalar_one_or_none()
    if before is None or present is None:
        return None
    found = promote_router(connection, before)
    connection.execute(text("UPDATE router_version SET promoted_at = NULL WHERE id = :id"), {"id": present.id})
    return found


def routers(connection: Connection) -> list[RouterView]:
    """Every stored router, the newest first."""
    return [RouterView(*row) for row in connection.execute(text(f"{_ROUTER} ORDER BY id DESC"))]


def router(connection: Connection, version: int) -> RouterView:
    """One stored router; raises NotFound with the numbers there are."""
    row = connection.execute(text(f"{_ROUTER} WHERE id = :version"), {"version": version}).one_or_none()
    if row is None:
        known = [str(view.id) for view in routers(connection)[:20]]
        raise NotFound("router version", str(version), known=known)
    return RouterView(*row)


def router_of_content(connection: Connection, content_sha256: str) -> RouterView | None:
    """The newest router trained from this very content, live or not."""
    row = connection.execute(
        text(f"{_ROUTER} WHERE content_sha256 = :content ORDER BY id DESC LIMIT 1"), {"content": content_sha256}
    ).one_or_none()
    return None if row is None else RouterView(*row)
