"""Examples that experts learn from, or are measured on: where they lie."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

Purpose = Literal["train", "validation", "evaluation"]


@dataclass(frozen=True, slots=True)
class NewSet:
    """Examples as one file of the artefact store, under ``artefact``."""

    purpose: Purpose
    artefact: str
    sha256: str
    n_examples: int


@dataclass(frozen=True, slots=True)
class StoredSet:
    id: int
    expert: str
    purpose: Purpose
    artefact: str
    sha256: str
    n_examples: int
    created_at: datetime


def add(connection: Connection, expert_id: int, new: NewSet, *, job_id: int | None = None) -> None:
    """Store it as the expert's newest of its purpose; what is so already is not stored again."""
    connection.execute(
        text(
            """INSERT INTO training_set (expert_id, purpose, artefact, sha256, n_examples, job_id)
               SELECT :expert, CAST(:purpose AS varchar), :artefact, CAST(:sha256 AS varchar), :n, :job
               WHERE NOT EXISTS (
                   SELECT 1 FROM (SELECT sha256 FROM training_set WHERE expert_id = :expert AND purpose = :purpose
                                  ORDER BY id DESC LIMIT 1) last WHERE last.sha256 = :sha256)"""
        ),
        {
            "expert": expert_id,
            "purpose": new.purpose,
            "artefact": new.artefact,
            "sha256": new.sha256,
            "n": new.n_examples,
            "job": job_id,
        },
    )


def newest(connection: Connection, *, purpose: Purpose, expert: str | None = None) -> list[StoredSet]:
    """The newest set of this purpose of each expert that is not retired (or of one expert), by name."""
    rows = connection.execute(
        text(
            """SELECT DISTINCT ON (e.name) s.id, e.name, s.purpose, s.artefact, s.sha256, s.n_examples, s.created_at
               FROM training_set s JOIN expert e ON e.id = s.expert_id
               WHERE s.purpose = :purpose AND (CAST(:expert AS text) IS NULL OR e.name = :expert)
                 AND (e.retired_at IS NULL OR e.name = :expert)
               ORDER BY e.name, s.id DESC"""
        ),
        {"purpose": purpose, "expert": expert},
    )
    return [StoredSet(*row) for row in rows]
