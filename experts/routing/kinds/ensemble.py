"""The gate together with what exemplars say untrained, trusted by how familiar a query looks. The default.

On queries like its exemplars the gate beats everything; on queries from elsewhere it is the first to be wrong, while
neighbours, centroids and a shared covariance keep their footing. So a familiar query is scored mostly by the gate, a
stranger by all five alike, and those between by a mixture. Neighbours have a say only where an expert has enough
exemplars for some to be near (measured: see DECISIONS.md).
"""

from functools import cached_property

import numpy as np

from experts.encoders.base import Vectors
from experts.routing.base import Floats, log_softmax
from experts.routing.gate import Gate, gate_from
from experts.routing.kind import Arrays, Kind
from experts.routing.known import Known, Queries
from experts.routing.search import Near
from experts.routing.votes import centroid_scores, centroids, discriminant, kernel_vote, vote

Weights = tuple[float, float, float, float, float]

_VOTERS = 30
# Weights of gate, neighbours, kernel, centroids, discriminant in log-probability.
_HOME = (1.1, 0.2, 0.25, 0.0, 0.0)
_ABROAD = (0.2, 0.2, 0.2, 0.2, 0.2)
# With so many exemplars an expert, in the middle, neighbours begin to count, and count in full.
_SAY_FROM, _SAY_FULL = 30, 90
# With so few, a gate learns how the questions are put as well as what they are about; centroids take over this much.
_FEW, _HARDLY_ANY, _TAKEN_OVER = 10, 5, 0.3
# A query that looks at least as familiar as this share of the exemplars is at home.
_AT_HOME_FROM = 0.2


class Router(Kind):
    @staticmethod
    def learn(known: Known, *, top_k: int, seed: int) -> Arrays:
        from experts.routing.gate_training import train_gate  # torch: not where routers only run

        gate = train_gate(known.traits, known.owner, len(known.experts), top_k=top_k, seed=seed)
        weights, bias = discriminant(_upper(known.traits, known), known.owner, len(known.experts))
        return {**gate.arrays(), "discriminant.weight": weights, "discriminant.bias": bias}

    @cached_property
    def _gate(self) -> Gate:
        return gate_from(self.learned)

    @cached_property
    def _weights(self) -> tuple[Weights, Weights]:
        """At home and abroad, for as many exemplars as the expert in the middle has."""
        known = self.known
        n = float(np.median(np.bincount(known.owner[: known.n_own], minlength=len(known.experts))))
        say = float(np.clip((n - _SAY_FROM) / (_SAY_FULL - _SAY_FROM), 0, 1))
        taken = _TAKEN_OVER * float(np.clip((_FEW - n) / (_FEW - _HARDLY_ANY), 0, 1))
        home = (_HOME[0] - taken, say * _HOME[1], say * _HOME[2], _HOME[3] + taken, _HOME[4])
        return home, (_ABROAD[0], say * _ABROAD[1], say * _ABROAD[2], *_ABROAD[3:])

    @cached_property
    def _centres(self) -> Vectors:
        return centroids(self.known.vectors, self.known.owner, len(self.known.experts))

    def score(self, queries: Queries) -> Floats:
        n_experts = len(self.known.experts)
        few = Near(queries.near.cosines[:, :_VOTERS], queries.near.places[:, :_VOTERS])
        upper = _upper(queries.traits, self.known)
        members = (
            self._gate(queries.traits),
            vote(few, self.known.owner, n_experts),
            kernel_vote(queries.near, self.known.owner, n_experts),
            centroid_scores(queries.vectors, self._centres),
            log_softmax(upper @ self.learned["discriminant.weight"] + self.learned["discriminant.bias"]),
        )
        home, abroad = (_weighted(members, weights) for weights in self._weights)
        trust = np.clip(queries.familiar / _AT_HOME_FROM, 0, 1)[:, None]
        mixed: Floats = np.log(trust * np.exp(home) + (1 - trust) * np.exp(abroad) + 1e-12).astype(np.float32)
        return mixed


def _upper(traits: Floats, known: Known) -> Floats:
    """The traits of the upper half of the layers, which tell manner less and meaning more."""
    n_layers, width = known.centre.shape
    return traits[:, (n_layers // 2) * width :]


def _weighted(members: tuple[Floats, ...], weights: Weights) -> Floats:
    total = sum(weight * member for weight, member in zip(weights, members, strict=True) if weight)
    assert isinstance(total, np.ndarray)
    return log_softmax(total)
