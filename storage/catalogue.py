"""Experts, their versions, exemplars and documents, as they are stored."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json
from storage.errors import NotFound


@dataclass(frozen=True, slots=True)
class NewDocument:
    name: str
    title: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.title}\n{self.text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class NewExpert:
    name: str
    engine: str
    card: Mapping[str, Any]
    exemplars: Sequence[str]
    documents: Sequence[NewDocument]


@dataclass(frozen=True, slots=True)
class ExpertView:
    id: int
    name: str
    serving: bool
    version: int
    version_id: int
    engine: str
    card: dict[str, Any]
    knowledge_id: int | None
    knowledge: int | None
    artefact: str | None
    artefact_sha256: str | None
    n_documents: int
    n_passages: int
    n_exemplars: int
    adapter_sha256: str | None = None
    retired: bool = False


@dataclass(frozen=True, slots=True)
class StoredDocument:
    name: str
    title: str
    text: str
    sha256: str


_EXPERTS = """
SELECT e.id, e.name, e.serving, v.number, v.id, v.engine, v.card, k.id, k.number, k.artefact, k.artefact_sha256,
       (SELECT count(*) FROM document d WHERE d.expert_id = e.id), coalesce(k.n_passages, 0),
       (SELECT count(*) FROM exemplar x WHERE x.expert_id = e.id), v.adapter_sha256, e.retired_at IS NOT NULL
FROM expert e JOIN expert_version v ON v.id = e.live_version_id LEFT JOIN knowledge k ON k.id = e.live_knowledge_id
"""


def experts(connection: Connection, *, serving: bool | None = None) -> list[ExpertView]:
    """All experts by name; with ``serving`` only those that do (or do not) answer yet."""
    rows = connection.execute(
        text(f"{_EXPERTS} WHERE CAST(:serving AS boolean) IS NULL OR e.serving = :serving ORDER BY e.name"),
        {"serving": serving},
    )
    return [ExpertView(*row) for row in rows]


def expert(connection: Connection, name: str) -> ExpertView:
    """One expert; raises NotFound with the names there are."""
    row = connection.execute(text(f"{_EXPERTS} WHERE e.name = :name"), {"name": name}).one_or_none()
    if row is None:
        raise NotFound("expert", name, known=names(connection))
    return ExpertView(*row)


def names(connection: Connection, *, serving: bool | None = None) -> list[str]:
    """The names of all experts (or of those that serve), sorted."""
    rows = connection.execute(
        text("SELECT name FROM expert WHERE CAST(:serving AS boolean) IS NULL OR serving = :serving ORDER BY name"),
        {"serving": serving},
    )
    return list(rows.scalars())


def names_to_answer_for(connection: Connection) -> list[str]:
    """The experts whose queues need a worker: those that serve, and those with work left from when they did."""
    rows = connection.execute(
        text(
            "SELECT name FROM expert e WHERE serving OR EXISTS ("
            " SELECT 1 FROM chunk c WHERE c.expert_id = e.id AND c.state = 'queued') ORDER BY name"
        )
    )
    return list(rows.scalars())


def put_expert(connection: Connection, new: NewExpert) -> bool:
    """Store an expert, or bring a stored one to this state; True when anything changed.

    A changed card or engine becomes the next version, which keeps the adapter. Exemplars are replaced as a whole; of
    documents those of the same name are, and others, which people added since, stay.
    """
    expert_id: int = connection.execute(
        text(
            "INSERT INTO expert (name) VALUES (:name)"
            " ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id"
        ),
        {"name": new.name},
    ).scalar_one()
    changed = _put_version(connection, expert_id, new)
    changed |= put_exemplars(connection, expert_id, new.exemplars)
    changed |= put_documents(connection, expert_id, new.documents)
    return changed


def _put_version(connection: Connection, expert_id: int, new: NewExpert) -> bool:
    card = as_json(dict(new.card))
    live = connection.execute(
        text(
            "SELECT v.engine = :engine AND v.card = CAST(:card AS jsonb) FROM expert e"
            " JOIN expert_version v ON v.id = e.live_version_id WHERE e.id = :expert"
        ),
        {"expert": expert_id, "engine": new.engine, "card": card},
    ).scalar_one_or_none()
    if live:
        return False
    connection.execute(
        text(
            """WITH added AS (
                   INSERT INTO expert_version (expert_id, number, engine, card, adapter, adapter_tree_sha256,
                                               adapter_sha256, base_sha256,
                                               metrics, promoted_at)
                   SELECT :expert, n.next, :engine, CAST(:card AS jsonb), live.adapter,
                          live.adapter_tree_sha256, live.adapter_sha256,
                          live.base_sha256, live.metrics, clock_timestamp()
                   FROM (SELECT coalesce(max(number), 0) + 1 AS next FROM expert_version WHERE expert_id = :expert) n
                   LEFT JOIN (SELECT v.* FROM expert e JOIN expert_version v ON v.id = e.live_version_id
                              WHERE e.id = :expert) live ON true
                   RETURNING id)
               UPDATE expert SET live_version_id = added.id FROM added WHERE expert.id = :expert"""
        ),
        {"expert": expert_id, "engine": new.engine, "card": card},
    )
    return True


def put_exemplars(connection: Connection, expert_id: int | None, texts: Sequence[str]) -> bool:
    """Make these the exemplars of the expert (None: of no expert); True when anything changed."""
    parameters = {"expert": expert_id, "texts": list(dict.fromkeys(texts))}
    gone = connection.execute(
        text("DELETE FROM exemplar WHERE expert_id IS NOT DISTINCT FROM :expert AND NOT text = ANY(:texts)"), parameters
    )
    new = connection.execute(
        text(
            "INSERT INTO exemplar (expert_id, text) SELECT CAST(:expert AS integer), t"
            " FROM unnest(CAST(:texts AS text[])) t ON CONFLICT DO NOTHING"
        ),
        parameters,
    )
    return bool(gone.rowcount or new.rowcount)


def put_documents(connection: Connection, expert_id: int, documents: Sequence[NewDocument]) -> bool:
    """Add documents or bring those of the same name up to date; True on change."""
    changed = False
    for document in documents:
        put = connection.execute(
            text(
                """INSERT INTO document AS d (expert_id, name, title, text, sha256)
                   VALUES (:expert, :name, :title, :text, :sha256)
                   ON CONFLICT (expert_id, name) DO UPDATE SET title = excluded.title, text = excluded.text,
                       sha256 = excluded.sha256, added_at = clock_timestamp()
                   WHERE d.sha256 <> excluded.sha256"""
            ),
            {
                "expert": expert_id,
                "name": document.name,
                "title": document.title,
                "text": document.text,
                "sha256": document.sha256,
            },
        )
        changed |= put.rowcount > 0
    return changed


def remove_documents(connection: Connection, expert_id: int, document_names: Sequence[str]) -> list[str]:
    """Remove documents by name; the names that were there."""
    rows = connection.execute(
        text("DELETE FROM document WHERE expert_id = :expert AND name = ANY(:names) RETURNING name"),
        {"expert": expert_id, "names": list(document_names)},
    )
    return sorted(rows.scalars())


def documents(connection: Connection, expert_id: int) -> list[StoredDocument]:
    """The expert's documents by name."""
    rows = connection.execute(
        text("SELECT name, title, text, sha256 FROM document WHERE expert_id = :expert ORDER BY name"),
        {"expert": expert_id},
    )
    return [StoredDocument(*row) for row in rows]


def exemplars(connection: Connection) -> list[tuple[str | None, str]]:
    """(expert or None for "no expert", text) of every exemplar, in a stable order."""
    rows = connection.execute(
        text("SELECT e.name, x.text FROM exemplar x LEFT JOIN expert e ON e.id = x.expert_id ORDER BY e.name, x.id")
    )
    return [(name, exemplar) for name, exemplar in rows]
