"""A router that guesses: the baseline of evaluations, and the cheapest one for measuring everything else."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experts.encoders.base import Vectors
from experts.routing.base import ABOUT, Calibration, Scores, TrainedRouter, TrainingSet


class RandomRouter:
    """Prefers one expert, chosen by a hash of the text: the same text always goes the same way."""

    needs_vectors = False
    calibration = Calibration()

    def __init__(self, experts: Sequence[str]) -> None:
        self.experts = tuple(experts)

    def score(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        n, count = len(texts), len(self.experts)
        gate = np.full((n, count), 0.5 / count, np.float32)
        chosen = np.fromiter((zlib.crc32(text.encode()) % count for text in texts), np.int64, n)
        gate[np.arange(n), chosen] += 0.5
        return Scores(gate, gate, np.ones(n, np.float32), [{}] * n, [[]] * n)


def train(data: TrainingSet) -> TrainedRouter:
    return TrainedRouter({ABOUT: json.dumps([expert.name for expert in data.experts]).encode()}, {})


def load(folder: Path) -> RandomRouter:
    return RandomRouter(json.loads((folder / ABOUT).read_text()))
