"""What a router is: it scores every expert for every query. Choosing among the scores is ``experts.routing.decide``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from experts.encoders.base import Vectors
from experts.errors import ModelUnusable
from experts.kinds import ROUTER_TRAINERS, ROUTERS, find

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An exemplar near a query."""

    expert: str | None
    text: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What a router says of n queries and E experts.

    ``gate`` float32[n, E]: probabilities, rows sum to 1. ``self_assessment`` float32[n, E] in [0, 1]: how well each
    expert says it can handle the query, on its own. ``coverage`` float32[n]: probability that any expert covers it.
    ``keywords`` and ``neighbours`` are the evidence, per query.
    """

    gate: Floats
    self_assessment: Floats
    coverage: Floats
    keywords: Sequence[Mapping[str, Sequence[str]]]
    neighbours: Sequence[Sequence[Neighbour]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps the raw share of the best expert to the probability that it is the right one: sigmoid(a·logit(p) + b)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, share: Floats) -> Floats:
        clipped = np.clip(share, 1e-6, 1 - 1e-6)
        logit = np.log(clipped / (1 - clipped))
        probability: Floats = (1 / (1 + np.exp(-(self.slope * logit + self.offset)))).astype(np.float32)
        return probability


class Router(Protocol):
    """Scores queries. One method; everything else is said by attributes."""

    experts: tuple[str, ...]
    needs_vectors: bool
    calibration: Calibration

    def score(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        """Score ``texts``; ``vectors`` float32[n, d] are their embeddings, given when ``needs_vectors``."""
        ...


@dataclass(frozen=True, slots=True)
class ExpertProfile:
    """What a router is told of an expert: exemplars with their vectors, its keywords, and what its library holds.

    ``passages`` float32[p, d] are vectors of passages; a large library is represented by a sample.
    """

    name: str
    keywords: Sequence[str]
    exemplars: Sequence[str]
    vectors: Vectors | None = None
    passages: Vectors | None = None


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Everything a router is trained from. ``outside`` are queries that no expert covers."""

    experts: Sequence[ExpertProfile]
    outside: Sequence[str]
    outside_vectors: Vectors | None
    encoder: str | None
    gate_weight: float = 0.6
    top_k: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainedRouter:
    """The files of a router's artefact, and what was measured of it on held-out exemplars."""

    files: Mapping[str, bytes]
    metrics: Mapping[str, Any]


ABOUT = "router.json"


def load_router(kind: str, folder: Path) -> Router:
    """Read a router's files. Raises UnknownKind and ModelUnusable."""
    load = find("router kind", ROUTERS, kind)
    try:
        router: Router = load(folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelUnusable(f"router {folder.name} cannot be read: {error}") from error
    return router


def train_router(kind: str, data: TrainingSet) -> TrainedRouter:
    """Train a router of this kind. Raises UnknownKind and CannotTrain."""
    trained: TrainedRouter = find("router kind", ROUTER_TRAINERS, kind)(data)
    return trained
