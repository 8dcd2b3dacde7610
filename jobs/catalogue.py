"""Loading experts, and changing their documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from experts import kinds
from experts.cards import CatalogueExpert, read_catalogue
from experts.reading.files import read_documents, readable
from jobs import learning
from jobs.errors import BadInput
from storage import catalogue, jobs
from storage.catalogue import NewDocument, NewExpert
from storage.database import transact
from storage.hints import JobHint
from worker.runtime import Runtime

SHIPPED = Path(__file__).parent.parent / "experts" / "catalogue"


def shipped_names() -> set[str]:
    """The experts of the shipped catalogue."""
    return {folder.name for folder in SHIPPED.iterdir() if folder.is_dir()}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading a catalogue came to: its experts, those that changed, and the jobs in which experts learn."""

    experts: list[str]
    changed: list[str]
    jobs: list[int]


def load(runtime: Runtime, folder: Path) -> Loaded:
    """Store the catalogue in ``folder``. Nothing is stored unless all is right.

    Experts that are stored already but not in the folder stay. One with examples to learn from is stored once it has
    learned; its training is queued here, unless it is under way. One that has learned, but of which no version is live
    yet, stays as it is: stored here, it would answer without what it learned. Raises BadCatalogue, BadInput,
    CannotTrain.
    """
    read = read_catalogue(folder)
    default = runtime.settings.engine.default
    known = set(transact(runtime.engine, catalogue.names))
    live = {expert.name for expert in transact(runtime.engine, catalogue.experts)}
    trainings = [
        learning.from_catalogue(runtime, expert)
        for expert in read.experts
        if expert.train is not None and expert.card.name not in known
    ]
    new = [_stored(expert, default) for expert in read.experts if expert.train is None or expert.card.name in live]

    def store(connection: Connection) -> tuple[list[str], list[int]]:
        changed = [expert.name for expert in new if catalogue.put_expert(connection, expert)]
        if read.outside:
            catalogue.put_exemplars(connection, None, read.outside)
        return changed, [learning.make_once(connection, training) for training in trainings]

    changed, queued = transact(runtime.engine, store)
    runtime.dispatcher.send([JobHint(job_id) for job_id in queued])
    return Loaded([expert.card.name for expert in read.experts], changed, queued)


def _stored(expert: CatalogueExpert, default_engine: str) -> NewExpert:
    default = default_engine if expert.train is None else learning.GENERATIVE
    return NewExpert(
        name=expert.card.name,
        engine=expert.card.engine or default,
        card=expert.card.model_dump(mode="json", exclude={"name", "engine"}),
        exemplars=expert.exemplars,
        documents=[NewDocument(d.name, d.title, d.text) for d in expert.documents],
    )


def add_documents(runtime: Runtime, expert: str, paths: Sequence[Path]) -> list[str]:
    """Add files (or all documents in folders) to an expert's library; their names. Raises BadInput, NotFound."""
    documents = []
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path}: no such file or folder")
        files = sorted(file for file in path.rglob("*") if readable(file)) if path.is_dir() else [path]
        if not files:
            raise BadInput(f"{path} holds no documents ({', '.join(kinds.DOCUMENTS)})")
        documents += [document for file in files for document in read_documents(file)]
    names = [document.name for document in documents]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"several documents would be stored under one name: {', '.join(twice)}")

    def store(connection: Connection) -> None:
        expert_id = catalogue.expert(connection, expert).id
        catalogue.put_documents(connection, expert_id, [NewDocument(d.name, d.title, d.text) for d in documents])

    transact(runtime.engine, store)
    return names


def remove_documents(runtime: Runtime, expert: str, names: Sequence[str]) -> list[str]:
    """Remove documents from an expert's library; their names. Raises NotFound for one that is not there."""

    def remove(connection: Connection) -> list[str]:
        expert_id = catalogue.expert(connection, expert).id
        removed = catalogue.remove_documents(connection, expert_id, names)
        missing = sorted(set(names) - set(removed))
        if missing:
            known = [document.name for document in catalogue.documents(connection, expert_id)]
            raise BadInput(
                f"{expert} has no document {', '.join(missing)}; `moe experts docs list {expert}` lists {len(known)}"
            )
        return removed

    return transact(runtime.engine, remove)


def refresh(runtime: Runtime) -> int:
    """Ask for indexes and router to be brought in line with what is stored; the job's number."""
    job_id = transact(runtime.engine, jobs.add_refresh)
    runtime.dispatcher.send([JobHint(job_id)])
    return job_id


def listing(runtime: Runtime) -> list[dict[str, Any]]:
    """All experts, for people and scripts."""
    return [
        {
            "name": expert.name,
            "title": expert.card.get("title"),
            "parent": expert.card.get("parent"),
            "serving": expert.serving,
            "version": expert.version,
            "engine": expert.engine,
            "knowledge": expert.knowledge,
            "documents": expert.n_documents,
            "passages": expert.n_passages,
            "exemplars": expert.n_exemplars,
        }
        for expert in transact(runtime.engine, catalogue.experts)
    ]
