"""The trained router: a gating network on the query's embedding, beside experts that judge for themselves.

Inference needs numpy only. Training is ``experts.routing.neural_training``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from experts.encoders.base import Vectors
from experts.errors import ModelUnusable
from experts.routing.base import ABOUT, Calibration, Floats, Neighbour, Scores
from experts.routing.keywords import KeywordTable

FORMAT = 1
WEIGHTS = "weights.safetensors"
NEAREST = 5  # exemplars that speak for an expert
SHOWN = 3  # exemplars that are shown


@dataclass(frozen=True, slots=True)
class Logistic:
    """sigmoid(x · weights + bias)."""

    weights: Floats
    bias: float

    def __call__(self, features: Floats) -> Floats:
        probability: Floats = (1 / (1 + np.exp(-(features @ self.weights + self.bias)))).astype(np.float32)
        return probability


@dataclass(frozen=True, slots=True)
class Evidence:
    """What queries are compared with: exemplars, and passages of the experts' libraries.

    ``owner`` int64[m] is the place of each exemplar's expert, -1 for queries outside every domain; ``library`` int64[p]
    that of each passage's expert.
    """

    exemplars: Vectors
    owner: NDArray[np.int64]
    texts: Sequence[str]
    passages: Vectors
    library: NDArray[np.int64]


def gate_probabilities(layers: Sequence[tuple[Floats, Floats]], temperature: float, vectors: Vectors) -> Floats:
    """Run the gating network: ReLU between the layers, softmax at ``temperature`` after the last."""
    hidden = vectors
    for number, (weight, bias) in enumerate(layers):
        hidden = hidden @ weight.T + bias
        if number + 1 < len(layers):
            hidden = np.maximum(hidden, 0)
    logits = hidden / temperature
    logits -= logits.max(axis=1, keepdims=True)
    exponent = np.exp(logits)
    probabilities: Floats = (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def nearest_by_owner(cosines: Floats, owner: NDArray[np.int64], places: Sequence[int]) -> tuple[Floats, Floats]:
    """Nearest, and mean of the nearest five, among the columns of each owner: two float32[n, len(places)].

    An owner without columns gets -1.
    """
    nearest = np.full((len(cosines), len(places)), -1.0, np.float32)
    mean = np.full_like(nearest, -1.0)
    for column, place in enumerate(places):
        own = cosines[:, owner == place]
        if own.shape[1] == 0:
            continue
        k = min(NEAREST, own.shape[1])
        top = -np.partition(-own, k - 1, axis=1)[:, :k]
        nearest[:, column] = top.max(axis=1)
        mean[:, column] = top.mean(axis=1)
    return nearest, mean


def _lead(values: Floats) -> Floats:
    """How far each column lies above the best of the others, float32[n, columns]."""
    if values.shape[1] == 1:
        return np.zeros_like(values)
    top = -np.partition(-values, 1, axis=1)[:, :2]
    rival = np.where(values == top[:, :1], top[:, 1:2], top[:, :1])
    return values - rival


def judge_features(
    cosines: Floats,
    owner: NDArray[np.int64],
    library_cosines: Floats,
    library: NDArray[np.int64],
    keyword_scores: Floats,
) -> tuple[Floats, Floats]:
    """What the two judges look at, from cosines float32[n, m] to the exemplars and float32[n, p] to the passages.

    Own assessment, float32[n, E, 6]: nearest own exemplar; mean of the nearest five, and its lead over the other
    experts; nearest own passage, and its lead; keyword score. Coverage, float32[n, 5]: nearest exemplar of any expert;
    the best mean of five, and its lead over the outside queries; nearest passage; best keyword score.
    """
    n_experts = keyword_scores.shape[1]
    nearest, mean = nearest_by_owner(cosines, owner, range(n_experts))
    _, outside = nearest_by_owner(cosines, owner, [-1])
    read, _ = nearest_by_owner(library_cosines, library, range(n_experts))
    read = np.maximum(read, 0.0)  # no library says nothing, neither for nor against
    own = np.stack([nearest, mean, _lead(mean), read, _lead(read), keyword_scores], axis=2)
    best = mean.max(axis=1)
    coverage = np.stack(
        [
            nearest.max(axis=1),
            best,
            best - np.maximum(outside[:, 0], 0.0),
            read.max(axis=1),
            keyword_scores.max(axis=1),
        ],
        axis=1,
    )
    return own.astype(np.float32), coverage.astype(np.float32)


class NeuralRouter:
    """A gate, the experts' own assessment, a coverage detector, and the exemplars that explain them."""

    needs_vectors = True

    def __init__(
        self,
        experts: Sequence[str],
        keywords: Mapping[str, Sequence[str]],
        layers: Sequence[tuple[Floats, Floats]],
        temperature: float,
        evidence: Evidence,
        own: Logistic,
        coverage: Logistic,
        calibration: Calibration,
    ) -> None:
        self.experts = tuple(experts)
        self.calibration = calibration
        self._keywords = KeywordTable(self.experts, keywords)
        self._layers = layers
        self._temperature = temperature
        self._evidence = evidence
        self._own = own
        self._coverage = coverage

    def score(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        known = self._evidence
        if vectors is None or vectors.shape[1] != known.exemplars.shape[1]:
            raise ModelUnusable(
                f"this router needs vectors of {known.exemplars.shape[1]} numbers, from the encoder it was trained with"
            )
        keyword_scores, keywords = self._keywords.score(texts)
        cosines = vectors @ known.exemplars.T
        own, coverage = judge_features(cosines, known.owner, vectors @ known.passages.T, known.library, keyword_scores)
        return Scores(
            gate=gate_probabilities(self._layers, self._temperature, vectors),
            self_assessment=self._own(own),
            coverage=self._coverage(coverage),
            keywords=keywords,
            neighbours=self._neighbours(cosines),
        )

    def _neighbours(self, cosines: Floats) -> list[list[Neighbour]]:
        k = min(SHOWN, cosines.shape[1])
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        found = []
        for row, places in enumerate(nearest):
            ordered = sorted(places, key=lambda place: -cosines[row, place])
            found.append([self._neighbour(place, float(cosines[row, place])) for place in ordered])
        return found

    def _neighbour(self, place: int, cosine: float) -> Neighbour:
        owner = int(self._evidence.owner[place])
        return Neighbour(self.experts[owner] if owner >= 0 else None, self._evidence.texts[place], cosine)


def load(folder: Path) -> NeuralRouter:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if about["format"] != FORMAT:
        raise ModelUnusable(f"router {folder.name}: format {about['format']}, this program reads {FORMAT}")
    weights = load_file(folder / WEIGHTS)
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise ModelUnusable(f"router {folder.name}: its weights are not all numbers")
    layers = [(weights[f"gate.{n}.weight"], weights[f"gate.{n}.bias"]) for n in range(about["layers"])]
    return NeuralRouter(
        about["experts"],
        about["keywords"],
        layers,
        about["temperature"],
        Evidence(
            weights["exemplars"].astype(np.float32),
            weights["owner"].astype(np.int64),
            about["exemplars"],
            weights["passages"].astype(np.float32),
            weights["library"].astype(np.int64),
        ),
        Logistic(weights["own"][:-1], float(weights["own"][-1])),
        Logistic(weights["coverage"][:-1], float(weights["coverage"][-1])),
        Calibration(**about["calibration"]),
    )
