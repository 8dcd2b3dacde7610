"""How much a query looks like the exemplars, in meaning and manner: the sign by which a stranger is known.

A gate that was trained on a forum's questions is sure of itself on exam questions too, and wrong. What gives such a
query away is that it lies farther from every exemplar than exemplars lie from each other, where the encoder's upper
layers, which tell manners of writing apart, are looked at as well.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experts.routing.base import Floats
from experts.routing.known import nearest_but_self
from experts.routing.search import NearestNeighbours

_DIMENSIONS = 96
_SAMPLE = 4096
_STEPS = 64


@dataclass(frozen=True)
class Familiarity:
    """``basis`` float32[f, 96] projects traits; ``rows`` float32[m, 96] are the projected exemplars, of length 1;
    ``steps`` float32[65] are quantiles of how near an exemplar's nearest is."""

    basis: Floats
    rows: Floats
    steps: Floats

    @cached_property
    def _index(self) -> NearestNeighbours:
        return NearestNeighbours(self.rows)

    def nearest(self, traits: Floats) -> Floats:
        """Cosine of the nearest exemplar, float32[n]."""
        if len(self.rows) == 0:
            return np.zeros(len(traits), np.float32)
        return self._index.search(_projected(traits, self.basis), 1).cosines[:, 0]

    def rank(self, nearest: Floats) -> Floats:
        """Share of exemplars whose own nearest lies farther, float32[n] in [0, 1]."""
        if len(self.steps) < 2:
            return np.ones(len(nearest), np.float32)
        share = np.interp(nearest, self.steps, np.linspace(0, 1, len(self.steps)))
        ranked: Floats = share.astype(np.float32)
        return ranked


def fit_familiarity(traits: Floats, *, seed: int = 0) -> tuple[Familiarity, Floats]:
    """From the own exemplars' traits float32[m, f]; also each exemplar's nearest among the others, float32[m]."""
    if len(traits) < 3 or traits.shape[1] == 0:
        nothing = np.zeros((traits.shape[1], 0), np.float32)
        return Familiarity(nothing, np.zeros((0, 0), np.float32), np.zeros(0, np.float32)), np.ones(
            len(traits), np.float32
        )
    sample = traits
    if len(traits) > _SAMPLE:
        sample = traits[np.random.default_rng(seed).choice(len(traits), _SAMPLE, replace=False)]
    _, vectors = np.linalg.eigh(sample.T @ sample / len(sample))
    basis = np.ascontiguousarray(vectors[:, ::-1][:, :_DIMENSIONS], np.float32)
    rows = _projected(traits, basis)
    nearest = nearest_but_self(rows, 1).cosines[:, 0]
    steps = np.quantile(nearest, np.linspace(0, 1, _STEPS + 1)).astype(np.float32)
    return Familiarity(basis, rows, np.maximum.accumulate(steps)), nearest


def _projected(traits: Floats, basis: Floats) -> Floats:
    rows = traits @ basis
    projected: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return projected
