"""What a router is: it scores every expert for every query. Choosing among the scores is ``experts.routing.decide``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experts.encoders.base import Embedded

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

OUTSIDE = -1


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
    expert says it can handle the query, on its own. ``share`` float32[n, E]: both together, rows sum to 1.
    ``confidence`` float32[n]: probability that the expert of the largest share is the right one. ``coverage``
    float32[n]: probability that any expert covers the query. ``keywords`` and ``neighbours`` are the evidence.
    """

    gate: Floats
    self_assessment: Floats
    share: Floats
    confidence: Floats
    coverage: Floats
    keywords: Sequence[Mapping[str, Sequence[str]]]
    neighbours: Sequence[Sequence[Neighbour]]


@dataclass(frozen=True, slots=True)
class ExpertProfile:
    """What a router is told of an expert besides its exemplars: keywords, and what its library holds.

    ``passages`` float32[p, d] are vectors of passages; a large library is represented by a sample.
    """

    name: str
    keywords: Sequence[str] = ()
    passages: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled queries: ``owner`` int64[m] is the place of each one's expert, ``OUTSIDE`` where none covers it."""

    texts: Sequence[str]
    owner: Places
    embedded: Embedded | None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, places: Places) -> "Examples":
        """Some of them."""
        embedded = None if self.embedded is None else self.embedded.take(places)
        return Examples([self.texts[place] for place in places.tolist()], self.owner[places], embedded)


@dataclass(frozen=True, slots=True)
class World:
    """A sample of what else people ask: queries of many topics, that no expert is labelled with.

    ``topic`` int64[w] says which queries belong together.
    """

    texts: Sequence[str]
    topic: Places
    embedded: Embedded


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Everything a router is trained from.

    ``held_out`` are labelled queries that nothing is learned from but how far the router can be trusted; without them
    that is measured by leaving out parts of ``examples``.
    """

    experts: Sequence[ExpertProfile]
    examples: Examples
    encoder: str | None
    world: World | None = None
    held_out: Examples | None = None
    gate_weight: float = 0.6
    top_k: int = 2
    seed: int = 0


def log_softmax(logits: Floats) -> Floats:
    """Rows of logits as log-probabilities."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
