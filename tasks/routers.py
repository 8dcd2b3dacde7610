"""Training, measuring and calibrating routers, as jobs of the training queue."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from experts.encoders.base import Vectors
from experts.errors import CannotTrain, ExpertsError
from experts.evaluation.metrics import paired
from experts.evaluation.routing import Outcome, outcome, summary
from experts.kinds import ROUTERS, find
from experts.routing.base import OUTSIDE, Examples, ExpertProfile, TrainingSet
from experts.routing.recalibration import recalibrated
from experts.routing.router import RouterModel, load_router
from experts.routing.training import train_router
from experts.routing.world import embedded_world
from storage import catalogue, feedback, versions
from storage.catalogue import ExpertView
from storage.errors import ArtefactDamaged
from storage.versions import RouterView
from tasks.training_job import TrainingJob

_FEW_EXEMPLARS = 20
# Where a router's figures say which labelled queries it was trained on.
_LABELLED = "labelled"


class BadData(ExpertsError):
    """Labelled queries cannot be used as they are; the text names the line."""

    code = "bad_data"


def needs_vectors(kind: str) -> bool:
    """Whether this kind of router reads embeddings. Raises UnknownKind."""
    needed: bool = find("router kind", ROUTERS, kind).needs_vectors
    return needed


def train_router_version(job: TrainingJob) -> dict[str, Any]:
    """Train a router from the catalogue, and from the labelled queries of ``params.data`` where given."""
    kind = job.params.get("kind") or job.settings.routing.kind
    path = job.params.get("data")
    labelled = LabelledFile(path, _read(job, path)) if path else None
    training = RouterTraining(job, kind, labelled=labelled, passages=_stored_passages(job, kind))
    view = training.run()
    if job.params.get("promote"):
        view = promoted(job, view)
    return {"router_version": view.id, "state": view.state, "metrics": view.metrics}


def evaluate_routers(job: TrainingJob) -> dict[str, Any]:
    """Measure versions on the same labelled queries, and two of them against each other."""
    numbers: Sequence[int] = job.params["versions"]
    rows = _labelled(job)
    found: dict[int, Outcome] = {}
    for number in numbers:
        model = _stored(job, number)
        found[number] = outcome(model, _examples(job, rows, model.experts, model.needs_vectors))
        job.report(f"router {number} measured on {len(rows)} queries")
    result: dict[str, Any] = {"queries": len(rows), "versions": {str(n): summary(o) for n, o in found.items()}}
    if len(numbers) == 2:
        difference = paired(found[numbers[0]].right, found[numbers[1]].right)
        result["paired"] = {
            "a": numbers[0],
            "b": numbers[1],
            "difference": round(difference.mean, 4),
            "ci": [round(difference.low, 4), round(difference.high, 4)],
            "p": round(difference.p, 6),
        }
    return result


def calibrate_router(job: TrainingJob) -> dict[str, Any]:
    """A new version with the same scores, whose probabilities are fitted to labelled queries."""
    number = job.params["version"]
    model = _stored(job, number)
    examples = _examples(job, _labelled(job), model.experts, model.needs_vectors)
    before = summary(outcome(model, examples))
    fitted = recalibrated(model, examples)
    after = summary(outcome(fitted, examples))
    view = job.transact(lambda c: versions.router(c, number))
    content = _hash(view.content_sha256, [list(examples.texts), examples.owner.tolist()])
    stored = _store(job, replace(fitted, metrics={**model.metrics, "calibrated_on": len(examples)}), content)
    if job.params.get("promote"):
        stored = promoted(job, stored)
    return {"router_version": stored.id, "state": stored.state, "from": number, "before": before, "after": after}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A query with the expert it belongs to; None where it belongs to none."""

    text: str
    expert: str | None


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """Labelled queries that were given beside the catalogue, and where they are stored."""

    path: str
    rows: Sequence[Labelled]


class RouterTraining:
    """One training: the stored catalogue, and what was given besides."""

    def __init__(
        self,
        job: TrainingJob,
        kind: str,
        *,
        labelled: LabelledFile | None = None,
        passages: Mapping[str, Vectors] | None = None,
    ) -> None:
        self._job = job
        self._kind = kind
        self._vectors = needs_vectors(kind)
        self._passages = passages or {}
        self._labelled = labelled
        self._experts: list[ExpertView] = [e for e in job.transact(catalogue.experts) if not e.retired]
        known = {None, *(expert.name for expert in self._experts)}  # of a candidate or a retired one nothing is learned
        stored = [Labelled(text, name) for name, text in job.transact(catalogue.exemplars) if name in known]
        self._rows = list(dict.fromkeys([*stored, *(labelled.rows if labelled is not None else ())]))
        routing = job.settings.routing
        self.content = _hash(
            kind,
            job.settings.encoder.name if self._vectors else None,
            [(e.name, e.card["keywords"], e.artefact_sha256) for e in self._experts],
            [(row.expert, row.text) for row in self._rows],
            [routing.gate_weight, job.settings.top_k, routing.seed, routing.world],
        )

    def run(self) -> RouterView:
        """Train and store it; it does not route yet. Raises CannotTrain."""
        job, kind = self._job, self._kind
        names = [expert.name for expert in self._experts]
        count = Counter(row.expert for row in self._rows)
        without = [name for name in names if not count[name]]
        if without:
            raise CannotTrain(f"experts without exemplars cannot be routed to: {', '.join(without)}")
        for name in names:
            if count[name] < _FEW_EXEMPLARS:
                job.report(f"{name}: only {count[name]} exemplars; below {_FEW_EXEMPLARS} routing is unreliable")
        job.report(f"training a router of kind {kind} on {len(self._rows)} queries of {len(names)} experts")
        routing = job.settings.routing
        model = train_router(
            kind,
            TrainingSet(
                experts=[ExpertProfile(e.name, e.card["keywords"], self._passages.get(e.name)) for e in self._experts],
                examples=_examples(job, self._rows, names, self._vectors),
                encoder=job.settings.encoder.name if self._vectors else None,
                world=embedded_world(job.encoder()) if self._vectors and routing.world else None,
                gate_weight=routing.gate_weight,
                top_k=job.settings.top_k,
                seed=routing.seed,
            ),
            report=job.report,
        )
        if self._labelled is not None:  # a refresh reads them again
            model = replace(model, metrics={**model.metrics, _LABELLED: self._labelled.path})
        return _store(job, model, self.content)


def labelled_of(job: TrainingJob, view: RouterView) -> LabelledFile | None:
    """The labelled queries that a router was trained on, without those of experts that are gone; None: there were none.

    What is kept and what is not is told in the job's story.
    """
    path = view.metrics.get(_LABELLED)
    if path is None:
        return None
    try:
        rows = _read(job, path)
    except ArtefactDamaged as error:
        job.report(f"the labelled queries of router {view.id} cannot be read and are left out ({error})")
        return None
    known = {None, *(expert.name for expert in job.transact(catalogue.experts) if not expert.retired)}
    kept = [row for row in rows if row.expert in known]
    gone = ", ".join(sorted({str(row.expert) for row in rows if row.expert not in known}))
    left_out = f"; {len(rows) - len(kept)} are left out, of experts that are gone: {gone}" if gone else ""
    job.report(f"{len(kept)} labelled queries of router {view.id} are kept{left_out}")
    return LabelledFile(path, kept)


def promoted(job: TrainingJob, view: RouterView) -> RouterView:
    """The router, live."""
    live = job.transact(lambda c: versions.promote_router(c, view.id))
    accuracy, error = live.metrics.get("accuracy"), live.metrics.get("ece")
    measured = (
        "" if accuracy is None else f": {accuracy:.1%} of held-out exemplars right, calibration error {error:.3f}"
    )
    job.report(f"router {live.id} is live{measured}", **live.metrics)
    return live


def _store(job: TrainingJob, model: RouterModel, content: str) -> RouterView:
    job.heartbeat.check()
    path = f"routers/{model.kind}/{content[:16]}-{job.attempt}"
    sha256 = job.work.runtime.store.put_tree(path, model.files())

    def add(connection: Any) -> RouterView:
        version = versions.add_router(
            connection,
            kind=model.kind,
            encoder=model.encoder,
            artefact=path,
            artefact_sha256=sha256,
            content_sha256=content,
            experts=model.experts,
            metrics=model.metrics,
        )
        return versions.router(connection, version)

    return job.transact(add)


def _stored(job: TrainingJob, number: int) -> RouterModel:
    view = job.transact(lambda c: versions.router(c, number))
    if view.encoder not in (None, job.settings.encoder.name):
        raise CannotTrain(f"router {number} is of encoder {view.encoder!r}, not of {job.settings.encoder.name!r}")
    return load_router(job.work.runtime.store.fetch_tree(view.artefact, view.artefact_sha256))


def _stored_passages(job: TrainingJob, kind: str) -> dict[str, Vectors]:
    if not needs_vectors(kind):
        return {}
    found = {}
    for expert in job.transact(catalogue.experts):
        try:
            base = job.knowledge(expert)
        except (ArtefactDamaged, ExpertsError) as error:
            job.report(f"{expert.name}: its library cannot be read and is left out ({error})")
            continue
        if base is not None:
            found[expert.name] = base.passage_vectors
    return found


def _labelled(job: TrainingJob) -> list[Labelled]:
    """The queries of ``params.data``; else those whose right expert people have said."""
    if job.params.get("data"):
        return _read(job, job.params["data"])
    rows = [Labelled(text, expert) for text, expert in job.transact(feedback.corrected)]
    if not rows:
        raise BadData("no labelled queries: give --data FILE, or say of answered lines which expert is right")
    return rows


def _read(job: TrainingJob, path: str) -> list[Labelled]:
    with job.work.runtime.store.open(path) as lines:
        rows = [orjson.loads(line) for line in lines]
    return [Labelled(row["text"], row["expert"]) for row in rows]


def _examples(job: TrainingJob, rows: Sequence[Labelled], experts: Sequence[str], vectors: bool) -> Examples:
    place = {name: number for number, name in enumerate(experts)}
    for number, row in enumerate(rows, 1):
        if row.expert is not None and row.expert not in place:
            raise BadData(f"query {number} belongs to {row.expert!r}, which the router does not know: {list(experts)}")
    owner = np.array([OUTSIDE if row.expert is None else place[row.expert] for row in rows], np.int64)
    texts = [row.text for row in rows]
    return Examples(texts, owner, job.encoder().embed(texts) if vectors else None)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()
