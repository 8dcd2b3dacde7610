"""Bringing indexes and router in line with the stored catalogue."""

from typing import Any

import structlog

from experts.documents import Document
from experts.encoders.base import Vectors
from experts.errors import CannotTrain, ExpertsError
from experts.kinds import ENGINES_WITH_VECTORS
from experts.knowledge import KnowledgeBase, build, content_sha256
from storage import catalogue, jobs, versions
from storage.catalogue import ExpertView
from storage.errors import ArtefactDamaged
from tasks.routers import RouterTraining, labelled_of, needs_vectors, promoted
from tasks.training_job import TrainingJob
from worker.logs import describe

log = structlog.get_logger(__name__)


class Refresh:
    """One refresh: indexes of experts whose documents changed, then a router if anything it is made from changed."""

    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._passages: dict[str, Vectors] = {}

    def run(self) -> dict[str, Any]:
        """Do it; what was done."""
        job = self._job
        experts = [expert for expert in job.transact(catalogue.experts) if not expert.retired]
        if not experts:
            raise CannotTrain("no expert is stored; load a catalogue first")
        vectors = needs_vectors(job.settings.routing.kind)
        built = []
        for expert in experts:
            job.heartbeat.check()
            if (vectors or expert.engine in ENGINES_WITH_VECTORS) and self._refresh_knowledge(expert):
                built.append(expert.name)
        training = RouterTraining(job, job.settings.routing.kind, passages=self._passages)
        version = self._refresh_router(training)
        return {"indexes_built": built, "router_version": version, "content_sha256": training.content}

    def _refresh_router(self, training: RouterTraining) -> int:
        """Nothing where nothing changed since the last refresh: somebody may have promoted another router since.

        Labelled queries that the live router was trained on are learned from again.
        """
        job = self._job
        live = job.transact(versions.live_router)
        last = job.transact(lambda c: jobs.last_result(c, "refresh")) or {}
        if live is not None:
            if training.content in (live.content_sha256, last.get("content_sha256")):
                return live.id
            labelled = labelled_of(job, live)
            if labelled is not None:
                training = RouterTraining(job, job.settings.routing.kind, labelled=labelled, passages=self._passages)
            if training.content == live.content_sha256:
                return live.id
        before = job.transact(lambda c: versions.router_of_content(c, training.content))
        return promoted(job, before or training.run()).id

    def _refresh_knowledge(self, expert: ExpertView) -> bool:
        job = self._job
        encoder = job.encoder()
        stored = job.transact(lambda c: catalogue.documents(c, expert.id))
        documents = [Document(d.name, d.title, d.text) for d in stored]
        if not documents:
            job.transact(lambda c: versions.drop_knowledge(c, expert.id))
            return False
        content = content_sha256(documents, encoder.name)
        previous = self._previous(expert)
        if previous is not None and job.transact(lambda c: versions.knowledge_is_built(c, expert.id, content)):
            self._passages[expert.name] = previous.passage_vectors
            return False
        base, files = build(documents, encoder, previous=previous)
        job.heartbeat.check()
        path = f"knowledge/{expert.name}/{content[:16]}-{job.attempt}"
        sha256 = job.work.runtime.store.put_tree(path, files)
        number = job.transact(
            lambda c: versions.add_knowledge(
                c,
                expert.id,
                content_sha256=content,
                artefact=path,
                artefact_sha256=sha256,
                n_documents=len(documents),
                n_passages=len(base),
            )
        )
        self._passages[expert.name] = base.passage_vectors
        job.report(f"{expert.name}: indexed {len(documents)} documents, {len(base)} passages", number=number)
        return True

    def _previous(self, expert: ExpertView) -> KnowledgeBase | None:
        try:
            return self._job.knowledge(expert)
        except (ArtefactDamaged, ExpertsError) as error:  # of another encoder, or lost: it is built anew
            log.warning("knowledge.rebuilding", expert=expert.name, **describe(error))
            return None
