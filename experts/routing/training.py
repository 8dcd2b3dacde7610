"""Training a router of any kind, and measuring how far it can be trusted on what it has not seen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experts.encoders.base import Embedded
from experts.errors import CannotTrain
from experts.evaluation.metrics import expected_calibration_error
from experts.kinds import ROUTERS, find
from experts.routing.base import OUTSIDE, Examples, Floats, Places, TrainingSet, log_softmax
from experts.routing.calibration import Calibration, Conformal, conformal
from experts.routing.coverage_training import fit_coverage
from experts.routing.familiarity import Familiarity, fit_familiarity
from experts.routing.folds import cluster_folds, random_folds
from experts.routing.judging import Evidence, Logistic, own_features
from experts.routing.kind import Kind
from experts.routing.known import NEIGHBOURS, Known, Queries, gather, nearest_but_self, of_words
from experts.routing.logistic import fit_logistic
from experts.routing.router import PASSAGES, RouterModel, distances, shares
from experts.routing.search import nearest_in, no_neighbours

_FOLDS = 3
# Below so many exemplars an expert is held out by parts that are too small to say anything of strangers.
_CLUSTERS_FROM = 12
_STRANGERS_WEIGHT = 0.25
# An exemplar left out says less of new queries than a query held out from the start.
_LEFT_OUT_WEIGHT = 0.3
# Fewer held-out queries than this, and than exemplars, promise little; exemplars left out then say what the risk is.
_ENOUGH_HELD_OUT = 100


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a router says of queries it was not trained on: log-probabilities, and how familiar they looked."""

    log_gate: Floats
    familiar: Floats


def train_router(kind: str, data: TrainingSet, *, report: Callable[[str], None] = lambda message: None) -> RouterModel:
    """Train a router of this kind. Raises UnknownKind and CannotTrain.

    What is learned comes from ``data.examples`` alone. Every probability is fitted on queries the learning has not
    seen: ``data.held_out`` where given, and parts of the exemplars left out in turn.
    """
    made: type[Kind] = find("router kind", ROUTERS, kind)
    _check(data, made.needs_vectors)
    if not made.needs_vectors:
        data = _words_only(data)
    known = gather(data.experts, data.examples, data.world, seed=data.seed)
    report(f"learning from {known.n_own} exemplars, and {len(known.owner) - known.n_own} adopted from the world")
    familiarity, _ = fit_familiarity(known.traits[: known.n_own], seed=data.seed)
    learned = made.learn(known, top_k=data.top_k, seed=data.seed)
    report("measuring on exemplars left out")
    left_out = _left_out(
        made, known, familiarity, data, random_folds(known.owner[: known.n_own], _folds(known), seed=data.seed)
    )
    start = RouterModel(
        kind=kind,
        encoder=data.encoder if made.needs_vectors else None,
        known=known,
        learned=learned,
        familiarity=familiarity,
        distances=distances(known),
        own=_flat(6),
        calibration=Calibration(1.0, _flat(4), _flat(2), Conformal(np.zeros(0, np.float32))),
        gate_weight=data.gate_weight,
    )
    trial = _Trial(start, data, left_out)
    strangers = _strangers(made, known, familiarity, data)
    model = trial.calibrated(strangers)
    return replace(model, metrics=trial.metrics(model, data))


class _Trial:
    """Fits, one after the other, what turns a router's scores into probabilities."""

    def __init__(self, model: RouterModel, data: TrainingSet, left_out: HeldOut) -> None:
        self._model = model
        self._data = data
        self._known = model.known
        self._n = model.known.n_own
        self._owner = model.known.owner[: self._n]
        self._left_out = left_out
        self._keywords, _ = model.known.table.score(model.known.texts)
        self._near = nearest_but_self(model.known.vectors, NEIGHBOURS) if model.needs_vectors else None
        self._own = own_features(self._own_evidence(), model.known.owner, model.known.library)

    def calibrated(self, strangers: HeldOut | None) -> RouterModel:
        model = self._model
        inside = _inside(self._data.held_out)
        raw = self._left_out.log_gate
        owner = self._owner
        if inside is not None:
            queries = model.queries(inside.texts, inside.embedded)
            raw, owner = model.gate(queries), inside.owner
        temperature = fit_temperature(raw, owner)
        model = replace(model, calibration=replace(model.calibration, temperature=temperature))
        model = replace(model, own=self._fit_own())
        coverage = fit_coverage(
            model, self._data, self._left_out.log_gate / temperature, self._near, self._keywords, inside_share=0.8
        )
        model = replace(model, calibration=replace(model.calibration, coverage=coverage))
        return self._confident(model, inside, strangers)

    def _own_evidence(self) -> Evidence:
        """What the experts' own assessment of the exemplars rests on, each left out of what it is compared with."""
        known, n = self._known, self._n
        certainty = self._left_out.log_gate.max(axis=1)
        if self._near is None:
            return Evidence(no_neighbours(n), no_neighbours(n), self._keywords, certainty, has_vectors=False)
        library = (
            nearest_in(known.vectors[:n] @ known.passages.T, PASSAGES) if len(known.passages) else no_neighbours(n)
        )
        return Evidence(self._near.first(n), library, self._keywords, certainty)

    def _fit_own(self) -> Logistic:
        belongs = self._owner[:, None] == np.arange(len(self._known.experts))[None, :]
        rows = self._own.reshape(-1, self._own.shape[2])
        return fit_logistic(rows, belongs.reshape(-1), positive_share=0.5, only_for=True)

    def _confident(self, model: RouterModel, inside: Examples | None, strangers: HeldOut | None) -> RouterModel:
        """Fit confidence and risk on whatever was held out; strangers count as a part of the traffic."""
        parts = [self._left_out_features(model, self._left_out)]
        weights = [1.0]
        calm = parts[0]
        if inside is not None:
            parts.append(held_out_features(model, inside))
            weights = [_LEFT_OUT_WEIGHT * self._n, float(len(inside))]
            calm = parts[1] if len(inside) >= min(_ENOUGH_HELD_OUT, self._n) else calm
        if strangers is not None:
            parts.append(self._left_out_features(model, strangers))
            weights.append(_STRANGERS_WEIGHT * sum(weights))
        features = np.concatenate([features for features, _, _ in parts])
        right = np.concatenate([share.argmax(axis=1) == owner for _, share, owner in parts])
        weight = np.concatenate(
            [np.full(len(owner), w / len(owner)) for w, (_, _, owner) in zip(weights, parts, strict=True)]
        )
        confidence = fit_logistic(features, right, weight=weight)
        risk = conformal(calm[1], calm[2], seed=self._data.seed)
        return replace(model, calibration=replace(model.calibration, confidence=confidence, conformal=risk))

    def _left_out_features(self, model: RouterModel, held_out: HeldOut) -> tuple[Floats, Floats, Places]:
        known, n = self._known, self._n
        log_gate = log_softmax(held_out.log_gate / model.calibration.temperature)
        own = model.own(self._own)
        share = shares(np.exp(log_gate), own, model.gate_weight)
        near = no_neighbours(n) if self._near is None else self._near.first(n)
        queries = Queries(known.texts, known.vectors[:n], known.traits[:n], near, held_out.familiar, held_out.familiar)
        return model.trust(share, np.exp(log_gate), own, queries), share, self._owner

    def metrics(self, model: RouterModel, data: TrainingSet) -> Mapping[str, Any]:
        """What was measured on held-out queries."""
        inside = _inside(data.held_out)
        features, share, owner = (
            self._left_out_features(model, self._left_out) if inside is None else held_out_features(model, inside)
        )
        right = share.argmax(axis=1) == owner
        confidence = model.calibration.confidence(features)
        return {
            "exemplars": self._n,
            "adopted": len(self._known.owner) - self._n,
            "held_out": len(owner),
            "accuracy": round(float(right.mean()), 4),
            "ece": round(expected_calibration_error(confidence, right), 4),
        }


def held_out_features(model: RouterModel, examples: Examples) -> tuple[Floats, Floats, Places]:
    """Confidence features, shares and owners of labelled queries the model has not seen."""
    queries = model.queries(examples.texts, examples.embedded)
    scores = model.judge(queries)
    return model.trust(scores.share, scores.gate, scores.self_assessment, queries), scores.share, examples.owner


def fit_temperature(log_probabilities: Floats, owner: Places) -> float:
    """The temperature that minimises the negative log-likelihood of held-out rows float32[n, E]."""
    candidates = np.exp(np.linspace(np.log(0.2), np.log(5), 80))
    rows = np.arange(len(owner))
    losses = [-log_softmax(log_probabilities / np.float32(t))[rows, owner].mean() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def _left_out(made: type[Kind], known: Known, familiarity: Familiarity, data: TrainingSet, folds: Places) -> HeldOut:
    """Scores of every own exemplar, by a router that has not seen its fold."""
    n = known.n_own
    log_gate = np.zeros((n, len(known.experts)), np.float32)
    familiar = np.ones(n, np.float32)
    for fold in np.unique(folds):
        held = np.flatnonzero(folds == fold)
        kept = known.without(held)
        kind = made(kept, made.learn(kept, top_k=data.top_k, seed=data.seed))
        texts = [known.texts[place] for place in held.tolist()]
        if not made.needs_vectors:
            log_gate[held] = kind.score(of_words(texts))
            continue
        rest = np.setdiff1d(np.arange(n), held)
        if len(familiarity.rows):
            nearest = nearest_in(familiarity.rows[held] @ familiarity.rows[rest].T, 1).cosines[:, 0]
            familiar[held] = familiarity.rank(nearest)
        near = kept.index.nearest(known.vectors[held], at_most=NEIGHBOURS)
        queries = Queries(texts, known.vectors[held], known.traits[held], near, familiar[held], familiar[held])
        log_gate[held] = kind.score(queries)
    return HeldOut(log_softmax(log_gate), familiar)


def _strangers(made: type[Kind], known: Known, familiarity: Familiarity, data: TrainingSet) -> HeldOut | None:
    """The same with whole clusters left out, which imitates queries from elsewhere; None where there are too few."""
    owner = known.owner[: known.n_own]
    if not made.needs_vectors or np.bincount(owner, minlength=len(known.experts)).min() < _CLUSTERS_FROM:
        return None
    folds = cluster_folds(known.vectors[: known.n_own], owner, _FOLDS, seed=data.seed)
    return _left_out(made, known, familiarity, data, folds)


def _folds(known: Known) -> int:
    """No more than what the expert with the fewest exemplars can be cut into."""
    return min(_FOLDS, int(np.bincount(known.owner[: known.n_own], minlength=len(known.experts)).min()))


def _inside(examples: Examples | None) -> Examples | None:
    if examples is None:
        return None
    inside = examples.take(np.flatnonzero(examples.owner != OUTSIDE))
    return inside if len(inside) else None


def _flat(n: int) -> Logistic:
    nothing = np.zeros(n, np.float32)
    return Logistic(nothing, np.ones(n, np.float32), nothing, 0.0)


def _words_only(data: TrainingSet) -> TrainingSet:
    held_out = None if data.held_out is None else replace(data.held_out, embedded=None)
    return replace(data, examples=replace(data.examples, embedded=None), held_out=held_out, world=None)


def _check(data: TrainingSet, needs_vectors: bool) -> None:
    if not data.experts:
        raise CannotTrain("there is no expert to route to")
    counts = np.bincount(data.examples.owner[data.examples.owner >= 0], minlength=len(data.experts))
    for expert, count in zip(data.experts, counts, strict=True):
        if count < (2 if needs_vectors else 1):
            least = "two are the least, one to be held out" if needs_vectors else "one is the least"
            raise CannotTrain(f"expert {expert.name!r} has {count} exemplars; {least}")
    if not needs_vectors:
        return
    for what, examples in (("exemplar", data.examples), ("held-out query", data.held_out)):
        if examples is None:
            continue
        if examples.embedded is None:
            raise CannotTrain(f"no {what} has a vector, and this kind of router needs them")
        finite = np.isfinite(examples.embedded.vectors).all(axis=1) & np.isfinite(examples.embedded.layers).all(
            axis=(1, 2)
        )
        if not finite.all():
            place = int(np.flatnonzero(~finite)[0])
            raise CannotTrain(
                f"{what} {place + 1} ({examples.texts[place][:60]!r}) has a vector that is not all numbers"
            )
    assert data.examples.embedded is not None
    vectors, layers = data.examples.embedded.vectors.shape[1:], data.examples.embedded.layers.shape[1:]
    if data.held_out is not None and data.held_out.embedded is not None:
        _check_shape("the held-out queries", data.held_out.embedded, vectors, layers)
    if data.world is not None:
        _check_shape("the world's queries", data.world.embedded, vectors, layers)
        if not np.isfinite(data.world.embedded.vectors).all() or not np.isfinite(data.world.embedded.layers).all():
            raise CannotTrain("a query of the world has a vector that is not all numbers")
    for expert in data.experts:
        if expert.passages is None:
            continue
        if expert.passages.shape[1:] != vectors:
            raise CannotTrain(
                f"the passages of expert {expert.name!r} have vectors of another length than its exemplars"
            )
        if not np.isfinite(expert.passages).all():
            raise CannotTrain(f"a passage of expert {expert.name!r} has a vector that is not all numbers")


def _check_shape(what: str, embedded: Embedded, vectors: tuple[int, ...], layers: tuple[int, ...]) -> None:
    if len(embedded) and (embedded.vectors.shape[1:] != vectors or embedded.layers.shape[1:] != layers):
        raise CannotTrain(f"{what} were embedded by another encoder than the exemplars")
