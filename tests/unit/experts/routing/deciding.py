"""Scores and standings for the tests of decisions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experts.routing.base import Neighbour, Scores
from experts.routing.decide import Decision, Policy, decide
from experts.standing import Standing
from tests.unit.experts.routing.shown import floats

EXPERTS = ("bank", "code", "earth", "law", "medicine")


def stands(
    expert: str = "bank",
    *,
    available: bool = True,
    queue: int = 0,
    in_flight: int = 0,
    capacity: int = 512,
    priority: float = 0.5,
) -> Standing:
    why = () if available else ("errors 50 %, over 20 %",)
    return Standing(expert, available, why, (), None, queue, in_flight, capacity, 1.0, None, None, priority)


def standings(**given: Mapping[str, Any]) -> dict[str, Standing]:
    return {name: stands(name, **fields) for name, fields in given.items()}


def scores_of(
    share: Sequence[Sequence[float]],
    *,
    gate: Sequence[Sequence[float]] | None = None,
    own: Sequence[Sequence[float]] | None = None,
    confidence: float = 0.75,
    coverage: float = 1.0,
    keywords: Mapping[str, Sequence[str]] | None = None,
    neighbours: Sequence[Neighbour] = (),
) -> Scores:
    """Scores as a router would give them; gate and own assessment are the share's where none are given."""
    n = len(share)
    return Scores(
        floats(share if gate is None else gate),
        floats(share if own is None else own),
        floats(share),
        np.full(n, confidence, np.float32),
        np.full(n, coverage, np.float32),
        [keywords or {}] * n,
        [list(neighbours)] * n,
    )


def decided(
    share: Sequence[Sequence[float]], given: Mapping[str, Standing] | None = None, **policy: Any
) -> list[Decision]:
    names = EXPERTS[: len(share[0])]
    return decide(names, [f"q {n}" for n in range(len(share))], scores_of(share), given or {}, Policy(**policy))


def asked(
    share: Sequence[Sequence[float]], given: Mapping[str, Standing] | None = None, **policy: Any
) -> list[list[str]]:
    return [[name for name, _ in decision.experts] for decision in decided(share, given, **policy)]
