"""Training jobs. For now there is one kind: bringing indexes and router in line with the stored catalogue."""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import structlog
from celery import Task, shared_task
from celery.signals import worker_init
from structlog.contextvars import bound_contextvars

from experts.documents import Document
from experts.encoders.base import Encoder, Vectors
from experts.errors import CannotTrain, ExpertsError
from experts.kinds import ENGINES_WITH_VECTORS, HASHING, ROUTERS_WITHOUT_VECTORS
from experts.knowledge import KnowledgeBase, build, content_sha256
from experts.routing.base import ExpertProfile, TrainingSet, train_router
from storage import catalogue, jobs, versions
from storage.catalogue import ExpertView
from storage.errors import ArtefactDamaged
from storage.jobs import ClaimedJob
from tasks import models
from tasks.work import Work
from worker import names
from worker.heartbeat import Heartbeat
from worker.logs import describe
from worker.settings import load

log = structlog.get_logger(__name__)

REFRESH = "refresh"
_FEW_EXEMPLARS = 20


@worker_init.connect
def import_encoder_before_forking(**_: object) -> None:
    """A child that takes the place of a killed one then starts at once instead of importing for seconds."""
    if load().encoder.name != HASHING:
        import experts.encoders.sentence  # noqa: F401


@shared_task(name=names.TRAIN, bind=True)
def train(self: Task, job_id: int) -> None:
    """Safe to run twice: only who holds the job's lease ends it, and what is built already is not built again."""
    work = Work(self)
    pipeline = work.runtime.settings.pipeline
    job = work.transact(
        lambda c: jobs.claim(
            c, job_id, owner=work.owner, ttl_s=pipeline.lease_seconds, max_attempts=pipeline.max_attempts
        )
    )
    if job is None:
        return
    with bound_contextvars(job=job_id), work.holding(job.lease) as heartbeat:
        try:
            result = KINDS[job.kind](Refresh(work, job, heartbeat))
        except (ExpertsError, KeyError) as error:  # trying again would not mend it
            log.error("job.failed", **describe(error))
            code, message = getattr(error, "code", "unknown_job"), str(error)
            work.transact(lambda c: jobs.fail(c, job, code, message))
        else:
            work.transact(lambda c: jobs.succeed(c, job, result))


class Refresh:
    """One refresh: indexes of experts whose documents changed, then a router if anything it is made from changed."""

    def __init__(self, work: Work, job: ClaimedJob, heartbeat: Heartbeat) -> None:
        self._work = work
        self._job = job
        self._heartbeat = heartbeat
        self._settings = work.runtime.settings
        self._passages: dict[str, Vectors] = {}

    def run(self) -> dict[str, Any]:
        """Do it; what was done."""
        experts = self._work.transact(catalogue.experts)
        if not experts:
            raise CannotTrain("no expert is stored; load a catalogue first")
        kind = self._settings.routing.kind
        vectors = kind not in ROUTERS_WITHOUT_VECTORS
        built = []
        for expert in experts:
            self._heartbeat.check()
            if (vectors or expert.engine in ENGINES_WITH_VECTORS) and self._refresh_knowledge(expert):
                built.append(expert.name)
        version = self._refresh_router(kind, vectors)
        return {"indexes_built": built, "router_version": version}

    def _report(self, message: str, **data: Any) -> None:
        log.info("job.progress", message=message)
        self._work.transact(lambda c: jobs.report(c, self._job.lease.id, message, data or None))

    def _encoder(self) -> Encoder:
        # A catalogue is embedded as a whole while somebody waits, so it may use every core.
        return models.encoder(self._settings, threads=os.cpu_count())

    def _refresh_knowledge(self, expert: ExpertView) -> bool:
        encoder = self._encoder()
        stored = self._work.transact(lambda c: catalogue.documents(c, expert.id))
        documents = [Document(d.name, d.title, d.text) for d in stored]
        if not documents:
            self._work.transact(lambda c: versions.drop_knowledge(c, expert.id))
            return False
        content = content_sha256(documents, encoder.name)
        previous = self._previous(expert)
        if previous is not None and self._work.transact(lambda c: versions.knowledge_is_built(c, expert.id, content)):
            self._passages[expert.name] = previous.passage_vectors
            return False
        base, files = build(documents, encoder, previous=previous)
        self._heartbeat.check()
        path = f"knowledge/{expert.name}/{content[:16]}-{self._job.lease.id}"
        sha256 = self._work.runtime.store.put_tree(path, files)
        number = self._work.transact(
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
        self._report(f"{expert.name}: indexed {len(documents)} documents, {len(base)} passages", number=number)
        return True

    def _previous(self, expert: ExpertView) -> KnowledgeBase | None:
        if expert.artefact is None or expert.artefact_sha256 is None:
            return None
        try:
            folder = self._work.runtime.store.fetch_tree(expert.artefact, expert.artefact_sha256)
            return KnowledgeBase.load(folder, self._settings.encoder.name)
        except (ArtefactDamaged, ExpertsError) as error:  # of another encoder, or lost: it is built anew
            log.warning("knowledge.rebuilding", expert=expert.name, **describe(error))
            return None

    def _refresh_router(self, kind: str, vectors: bool) -> int:
        experts = self._work.transact(catalogue.experts)
        exemplars = self._work.transact(catalogue.exemplars)
        by_expert: dict[str | None, list[str]] = {}
        for name, text in exemplars:
            by_expert.setdefault(name, []).append(text)
        without = [expert.name for expert in experts if not by_expert.get(expert.name)]
        if without:
            raise CannotTrain(f"experts without exemplars cannot be routed to: {', '.join(without)}")
        routing = self._settings.routing
        content = _hash(
            kind,
            self._settings.encoder.name if vectors else None,
            [(e.name, e.card["keywords"], e.artefact_sha256) for e in experts],
            exemplars,
            [routing.gate_weight, self._settings.top_k, routing.seed],
        )
        live = self._work.transact(versions.live_router)
        if live is not None and live.content_sha256 == content:
            return live.id
        for expert in experts:
            n = len(by_expert[expert.name])
            if n < _FEW_EXEMPLARS:
                self._report(f"{expert.name}: only {n} exemplars; below {_FEW_EXEMPLARS} routing is unreliable")
        self._report(f"training a {kind} router on {len(exemplars)} exemplars of {len(experts)} experts")
        embed: Callable[[list[str]], Vectors | None] = self._encoder().encode if vectors else (lambda texts: None)
        data = TrainingSet(
            experts=[
                ExpertProfile(
                    e.name,
                    e.card["keywords"],
                    by_expert[e.name],
                    embed(by_expert[e.name]),
                    self._passages.get(e.name),
                )
                for e in experts
            ],
            outside=by_expert.get(None, []),
            outside_vectors=embed(by_expert.get(None, [])),
            encoder=self._settings.encoder.name if vectors else None,
            gate_weight=routing.gate_weight,
            top_k=self._settings.top_k,
            seed=routing.seed,
        )
        trained = train_router(kind, data)
        self._heartbeat.check()
        path = f"routers/{kind}/{content[:16]}-{self._job.lease.id}"
        sha256 = self._work.runtime.store.put_tree(path, trained.files)
        version = self._work.transact(
            lambda c: versions.promote_router(
                c,
                kind=kind,
                encoder=data.encoder,
                artefact=path,
                artefact_sha256=sha256,
                content_sha256=content,
                experts=[e.name for e in experts],
                metrics=trained.metrics,
            )
        )
        self._report(_summary(version, trained.metrics), **trained.metrics)
        return version


def _summary(version: int, metrics: Mapping[str, Any]) -> str:
    if "accuracy" not in metrics:
        return f"router {version} is live"
    accuracy, error = metrics["accuracy"], metrics["ece"]
    return f"router {version} is live: {accuracy:.1%} of held-out exemplars right, calibration error {error:.3f}"


def _hash(*parts: Any) -> str:
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


KINDS: dict[str, Callable[[Refresh], dict[str, Any]]] = {REFRESH: Refresh.run}
