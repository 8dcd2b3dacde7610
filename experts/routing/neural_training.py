"""Training and calibrating the neural router, on nothing but what held-out exemplars say."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from experts.encoders.base import Vectors
from experts.errors import CannotTrain
from experts.routing.base import ABOUT, Calibration, Floats, Scores, TrainedRouter, TrainingSet
from experts.routing.decide import shares
from experts.routing.gate_training import fit_temperature, train_gate
from experts.routing.keywords import KeywordTable
from experts.routing.neural import FORMAT, WEIGHTS, Logistic, gate_probabilities, judge_features

_FOLDS = 4
MAX_PASSAGES = 512  # per expert, in the gate's training and in the router's memory
# The share of traffic outside every domain that coverage is calibrated for.
_OUTSIDE_SHARE = 0.2


def train(data: TrainingSet) -> TrainedRouter:
    """Train the gate, then fit every calibration on held-out predictions. Raises CannotTrain."""
    names = [expert.name for expert in data.experts]
    vectors, owner = _labelled(data)
    library = _Library(data, vectors.shape[1])
    logits = _held_out_logits(vectors, owner, library, data)
    temperature = fit_temperature(logits, owner)
    table = KeywordTable(names, {expert.name: expert.keywords for expert in data.experts})
    judges = _Judges(data, vectors, owner, library, table)
    held_out = Scores(
        gate=gate_probabilities(
            [(np.eye(len(names), dtype=np.float32), np.zeros(len(names), np.float32))], temperature, logits
        ),
        self_assessment=judges.own(judges.own_features)[: len(owner)],
        coverage=judges.coverage(judges.coverage_features)[: len(owner)],
        keywords=[],
        neighbours=[],
    )
    mixed = shares(held_out, data.gate_weight)
    calibration = _fit_calibration(mixed, owner)
    layers = _gate(vectors, owner, library, data)
    about = {
        "format": FORMAT,
        "encoder": data.encoder,
        "experts": names,
        "keywords": {expert.name: list(expert.keywords) for expert in data.experts},
        "layers": len(layers),
        "temperature": temperature,
        "calibration": asdict(calibration),
        "exemplars": [text for expert in data.experts for text in expert.exemplars] + list(data.outside),
    }
    tensors: dict[str, NDArray[Any]] = {
        "exemplars": judges.vectors.astype(np.float16),
        "owner": judges.owner.astype(np.int32),
        "passages": library.vectors.astype(np.float16),
        "library": library.owner.astype(np.int32),
        "own": np.append(judges.own.weights, judges.own.bias).astype(np.float32),
        "coverage": np.append(judges.coverage.weights, judges.coverage.bias).astype(np.float32),
    }
    for number, (weight, bias) in enumerate(layers):
        tensors[f"gate.{number}.weight"], tensors[f"gate.{number}.bias"] = weight, bias
    files = {ABOUT: json.dumps(about).encode(), WEIGHTS: save(tensors)}
    return TrainedRouter(files, _metrics(mixed, owner, calibration, judges))


def _labelled(data: TrainingSet) -> tuple[Vectors, NDArray[np.int64]]:
    for expert in data.experts:
        if expert.vectors is None or len(expert.vectors) < 2:
            raise CannotTrain(
                f"expert {expert.name!r} has fewer than two exemplars; the neural router needs some to hold out"
            )
        if not np.isfinite(expert.vectors).all():
            raise CannotTrain(f"an exemplar of expert {expert.name!r} has a vector that is not all numbers")
        if expert.passages is not None and not np.isfinite(expert.passages).all():
            raise CannotTrain(f"a passage of expert {expert.name!r} has a vector that is not all numbers")
    if data.outside_vectors is not None and not np.isfinite(data.outside_vectors).all():
        raise CannotTrain("an outside query has a vector that is not all numbers")
    if not data.experts:
        raise CannotTrain("there is no expert to route to")
    vectors = np.concatenate([expert.vectors for expert in data.experts if expert.vectors is not None])
    owner = np.repeat(np.arange(len(data.experts)), [len(expert.exemplars) for expert in data.experts])
    return vectors, owner.astype(np.int64)


def _gate(
    vectors: Vectors, owner: NDArray[np.int64], library: "_Library", data: TrainingSet
) -> list[tuple[Floats, Floats]]:
    """A gate trained on exemplars and on what the libraries hold."""
    return train_gate(
        np.concatenate([vectors, library.vectors]),
        np.concatenate([owner, library.owner]),
        len(data.experts),
        top_k=data.top_k,
        seed=data.seed,
    )


def _held_out_logits(vectors: Vectors, owner: NDArray[np.int64], library: "_Library", data: TrainingSet) -> Floats:
    """Log-probabilities for every exemplar, from a gate that has not seen it."""
    folds = min(_FOLDS, int(np.bincount(owner).min()))
    logits = np.zeros((len(owner), len(data.experts)), np.float32)
    for train_rows, test_rows in StratifiedKFold(folds, shuffle=True, random_state=data.seed).split(vectors, owner):
        layers = _gate(vectors[train_rows], owner[train_rows], library, data)
        logits[test_rows] = np.log(gate_probabilities(layers, 1.0, vectors[test_rows]) + 1e-9)
    return logits


class _Judges:
    """The two logistic judges, fitted on features that leave the judged exemplar out.

    For coverage every exemplar is also shown as if its own expert did not exist: that is what a query looks like
    whose domain nobody covers.
    """

    def __init__(
        self, data: TrainingSet, vectors: Vectors, owner: NDArray[np.int64], library: "_Library", table: KeywordTable
    ) -> None:
        n = len(data.experts)
        has_outside = data.outside_vectors is not None and len(data.outside_vectors) > 0
        self.vectors = np.concatenate([vectors, data.outside_vectors]) if has_outside else vectors
        self.owner = np.concatenate([owner, np.full(len(self.vectors) - len(owner), -1)]).astype(np.int64)
        texts = [text for expert in data.experts for text in expert.exemplars] + list(data.outside)
        keyword_scores, _ = table.score(texts)
        cosines = self.vectors @ self.vectors.T
        np.fill_diagonal(cosines, -1.0)
        read = self.vectors @ library.vectors.T
        self.own_features, self.coverage_features = judge_features(
            cosines, self.owner, read, library.owner, keyword_scores
        )
        belongs = self.owner[:, None] == np.arange(n)[None, :]
        self.own = _fit(self.own_features.reshape(-1, self.own_features.shape[2]), belongs.reshape(-1), 0.5)
        orphans = self._as_if_orphaned(cosines, read, library.owner, keyword_scores)
        features = np.concatenate([self.coverage_features, *orphans])
        self.covered = np.concatenate([self.owner >= 0, np.zeros(len(features) - len(self.owner), bool)])
        self.coverage = _fit(features, self.covered, 1 - _OUTSIDE_SHARE)
        both = self.covered.any() and not self.covered.all()
        self.coverage_auroc = float(roc_auc_score(self.covered, self.coverage(features))) if both else None

    def _as_if_orphaned(
        self, cosines: Floats, read: Floats, library: NDArray[np.int64], keyword_scores: Floats
    ) -> list[Floats]:
        n = keyword_scores.shape[1]
        rows = []
        for place in range(n if n > 1 else 0):
            mine = self.owner == place
            exemplars = np.where(mine[None, :], -1.0, cosines[mine]).astype(np.float32)
            passages = np.where((library == place)[None, :], -1.0, read[mine]).astype(np.float32)
            keywords = keyword_scores[mine].copy()
            keywords[:, place] = 0
            rows.append(judge_features(exemplars, self.owner, passages, library, keywords)[1])
        return rows


class _Library:
    """Passages of every expert, ``vectors`` float32[p, d], with the place of their expert, ``owner`` int64[p]."""

    def __init__(self, data: TrainingSet, dimension: int) -> None:
        random = np.random.default_rng(data.seed)
        parts, owners = [np.zeros((0, dimension), np.float32)], [np.zeros(0, np.int64)]
        for place, expert in enumerate(data.experts):
            if expert.passages is None or len(expert.passages) == 0:
                continue
            passages = expert.passages
            if len(passages) > MAX_PASSAGES:
                passages = passages[np.sort(random.choice(len(passages), MAX_PASSAGES, replace=False))]
            parts.append(passages)
            owners.append(np.full(len(passages), place, np.int64))
        self.vectors, self.owner = np.concatenate(parts), np.concatenate(owners)


def _fit(features: Floats, labels: NDArray[np.bool_], positive_share: float) -> Logistic:
    """A logistic judge, weighted as if ``positive_share`` of what it will see were positive."""
    if labels.all() or not labels.any():  # one expert and nothing outside: every query is as good as the prior
        return Logistic(np.zeros(features.shape[1], np.float32), 2.0 if labels.all() else -2.0)
    weight = np.where(labels, positive_share / labels.mean(), (1 - positive_share) / (1 - labels.mean()))
    fitted = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels, sample_weight=weight)
    return Logistic(fitted.coef_[0].astype(np.float32), float(fitted.intercept_[0]))


def _fit_calibration(mixed: Floats, owner: NDArray[np.int64]) -> Calibration:
    right = mixed.argmax(axis=1) == owner
    if right.all() or not right.any():
        return Calibration()
    share = np.clip(mixed.max(axis=1), 1e-6, 1 - 1e-6)
    logit = np.log(share / (1 - share))[:, None]
    fitted = LogisticRegression(C=10.0).fit(logit, right)
    slope = max(float(fitted.coef_[0, 0]), 0.05)  # surer must never mean less likely
    return Calibration(slope, float(fitted.intercept_[0]))


def expected_calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence, weighted by how many fall in each."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[place == b].mean() - right[place == b].mean()) * (place == b).mean()
        for b in range(bins)
        if (place == b).any()
    ]
    return float(sum(gaps))


def _metrics(
    mixed: Floats, owner: NDArray[np.int64], calibration: Calibration, judges: _Judges
) -> dict[str, float | int | None]:
    right = mixed.argmax(axis=1) == owner
    return {
        "exemplars": len(owner),
        "accuracy": round(float(right.mean()), 4),
        "ece": round(expected_calibration_error(calibration(mixed.max(axis=1)), right), 4),
        "coverage_auroc": None if judges.coverage_auroc is None else round(judges.coverage_auroc, 4),
    }
