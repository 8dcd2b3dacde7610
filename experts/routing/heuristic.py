"""A router that knows keywords only: no model, no training, and a baseline for those that have both."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experts.encoders.base import Vectors
from experts.routing.base import ABOUT, Calibration, Scores, TrainedRouter, TrainingSet
from experts.routing.keywords import KeywordTable

_SHARPNESS = 4.0


class HeuristicRouter:
    """The share of an expert is a softmax over how many of its keywords the text holds."""

    needs_vectors = False
    calibration = Calibration()

    def __init__(self, experts: Sequence[str], keywords: dict[str, list[str]]) -> None:
        self.experts = tuple(experts)
        self._table = KeywordTable(self.experts, keywords)

    def score(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        found, evidence = self._table.score(texts)
        exponent = np.exp(_SHARPNESS * found)
        gate = exponent / exponent.sum(axis=1, keepdims=True)
        best = found.max(axis=1, initial=0.0)
        return Scores(gate, found, best.astype(np.float32), evidence, [[] for _ in texts])


def train(data: TrainingSet) -> TrainedRouter:
    about = {
        "experts": [expert.name for expert in data.experts],
        "keywords": {expert.name: list(expert.keywords) for expert in data.experts},
    }
    return TrainedRouter({ABOUT: json.dumps(about).encode()}, {})


def load(folder: Path) -> HeuristicRouter:
    about = json.loads((folder / ABOUT).read_text())
    return HeuristicRouter(about["experts"], about["keywords"])
