"""The two judges beside the gate: does this expert's own material speak to the query, and does anybody's?

Both are logistic: a person can read their weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts.routing.base import Floats, Places
from experts.routing.search import Near, mean_of_best

_OWN_NEAREST = 5


@dataclass(frozen=True, slots=True)
class Logistic:
    """sigmoid(((x - mean) / scale) · weights + bias)."""

    mean: Floats
    scale: Floats
    weights: Floats
    bias: float

    def __call__(self, features: Floats) -> Floats:
        """Probabilities float32[n] for ``features`` float32[n, q]."""
        logit = ((features - self.mean) / self.scale) @ self.weights + self.bias
        probability: Floats = (1 / (1 + np.exp(-np.clip(logit, -30, 30)))).astype(np.float32)
        return probability

    def arrays(self, name: str) -> dict[str, Floats]:
        """Its tensors, named after ``name``."""
        bias = np.array([self.bias], np.float32)
        return {f"{name}.{key}": value for key, value in zip(_PARTS, (*self._rows(), bias), strict=True)}

    def _rows(self) -> tuple[Floats, Floats, Floats]:
        return self.mean, self.scale, self.weights


_PARTS = ("mean", "scale", "weights", "bias")


def logistic_from(arrays: Mapping[str, NDArray[Any]], name: str) -> Logistic:
    """The judge whose ``arrays(name)`` these are. Raises KeyError."""
    mean, scale, weights, bias = (arrays[f"{name}.{part}"] for part in _PARTS)
    return Logistic(mean, scale, weights, float(bias[0]))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the judges look at, for n queries.

    ``near``: nearest exemplars; ``outside`` and ``background``: nearest queries that no expert covers, and of the
    world; ``library``: nearest passages. ``familiar`` float32[n]: cosine of the exemplar most alike in meaning and
    manner; ``centre`` float32[n]: of the nearest centroid; ``distance`` float32[n]: relative Mahalanobis distance to
    the nearest expert (Ren et al. 2021), in hundreds; ``certainty`` float32[n]: log-probability of the gate's first
    choice; ``keywords`` float32[n, E].
    """

    near: Near
    library: Near
    keywords: Floats
    certainty: Floats
    outside: Near | None = None
    background: Near | None = None
    familiar: Floats | None = None
    centre: Floats | None = None
    distance: Floats | None = None
    has_vectors: bool = field(default=True)


def own_features(evidence: Evidence, owner: Places, library: Places) -> Floats:
    """What speaks for each expert by itself, float32[n, E, 6].

    Nearest own exemplar; mean of the nearest five, and its lead over the other experts; nearest own passage, and its
    lead; keyword score. An expert none of whose exemplars is among the neighbours is given the cosine of the last of
    them, which its own cannot exceed.
    """
    keywords = evidence.keywords
    n_experts = keywords.shape[1]
    nearest, mean = best_by_owner(evidence.near, owner, n_experts)
    read, _ = best_by_owner(evidence.library, library, n_experts)
    read = np.maximum(read, 0.0)  # no library says nothing, neither for nor against
    features: Floats = np.stack([nearest, mean, lead(mean), read, lead(read), keywords], axis=2).astype(np.float32)
    return features


def best_by_owner(near: Near, owner: Places, n_owners: int) -> tuple[Floats, Floats]:
    """Nearest, and mean of the nearest five, for each owner: two float32[n, n_owners]; -1 for who owns nothing."""
    n, k = near.places.shape
    sizes = np.bincount(owner, minlength=n_owners) if len(owner) else np.zeros(n_owners, np.int64)
    full = near.places[:, -1:] >= 0 if k else np.zeros((n, 1), bool)
    bound = np.where(full, near.cosines[:, -1:], -1.0) if k else np.full((n, 1), -1.0)
    nearest = np.repeat(bound, n_owners, axis=1)
    total = np.zeros((n, n_owners))
    seen = np.zeros((n, n_owners), np.int64)
    rows = np.arange(n)
    for column in range(k):
        place = near.places[:, column]
        there = place >= 0
        row, of, cosine = rows[there], owner[place[there]], near.cosines[there, column]
        first = seen[row, of] == 0
        nearest[row[first], of[first]] = cosine[first]
        counts = seen[row, of] < _OWN_NEAREST
        total[row[counts], of[counts]] += cosine[counts]
        seen[row, of] += 1
    # Where every exemplar is in the list, those that are not seen are not there.
    wanted = np.where(full, np.minimum(sizes, _OWN_NEAREST), np.minimum(seen, _OWN_NEAREST))
    missing = np.maximum(wanted - seen, 0)
    mean = np.where(wanted > 0, (total + missing * bound) / np.maximum(wanted, 1), bound)
    nobody = sizes == 0
    nearest[:, nobody], mean[:, nobody] = -1.0, -1.0
    return nearest.astype(np.float32), mean.astype(np.float32)


def lead(values: Floats) -> Floats:
    """How far each column lies above the best of the others, float32[n, columns]."""
    if values.shape[1] == 1:
        return np.zeros_like(values)
    top = -np.partition(-values, 1, axis=1)[:, :2]
    rival = np.where(values == top[:, :1], top[:, 1:2], top[:, :1])
    return values - rival


def coverage_features(evidence: Evidence) -> Floats:
    """What speaks for anybody covering the query, float32[n, 13]; of words alone, float32[n, 2]."""
    words = evidence.keywords.max(axis=1, initial=0)
    if not evidence.has_vectors:
        return np.stack([evidence.certainty, words], axis=1).astype(np.float32)
    first, few, many = (mean_of_best(evidence.near, k) for k in (1, 5, 20))
    nothing = np.zeros(len(words), np.float32)
    assert evidence.familiar is not None
    assert evidence.centre is not None
    assert evidence.distance is not None
    library = evidence.library.cosines[:, 0] if evidence.library.cosines.shape[1] else nothing
    return np.stack(
        [
            first,
            few,
            many,
            evidence.familiar,
            evidence.centre,
            evidence.distance,
            evidence.certainty,
            *_beyond(evidence.outside, (1, first), (3, few)),
            *_beyond(evidence.background, (1, first), (5, few)),
            np.maximum(library, 0),
            words,
        ],
        axis=1,
    ).astype(np.float32)


def _beyond(near: Near | None, *measures: tuple[int, Floats]) -> list[Floats]:
    """How much nearer what nobody covers lies than what somebody does."""
    if near is None or near.cosines.shape[1] == 0:
        return [np.zeros_like(inside) for _, inside in measures]
    return [mean_of_best(near, k) - inside for k, inside in measures]
