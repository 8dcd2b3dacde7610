"""What exemplars say of queries without anything being trained: neighbours, kernels, centroids, a shared covariance.

Every function gives log-probabilities float32[n, E].
"""

import numpy as np

from experts.encoders.base import Vectors
from experts.routing.base import Floats, Places, log_softmax
from experts.routing.search import Near

_LEAST = 1e-3  # of a vote, so that no expert is ever impossible
_SHARPNESS = 15.0


def vote(near: Near, owner: Places, n_experts: int) -> Floats:
    """Each neighbour votes for its expert with its cosine."""
    return _counted(near, owner, n_experts, np.maximum(near.cosines, 0))


def kernel_vote(near: Near, owner: Places, n_experts: int, *, width: float = 0.05) -> Floats:
    """Each neighbour votes with exp(cosine / width): the nearest few decide, however many there are."""
    best = near.cosines[:, :1]
    return _counted(near, owner, n_experts, np.exp((near.cosines - best) / width))


def _counted(near: Near, owner: Places, n_experts: int, weight: Floats) -> Floats:
    votes = np.full((len(near.places), n_experts), _LEAST)
    if len(owner):
        there = near.places >= 0
        rows = np.broadcast_to(np.arange(len(near.places))[:, None], near.places.shape)
        np.add.at(votes, (rows[there], owner[near.places[there]]), weight[there])
    shares: Floats = np.log(votes / votes.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def centroids(vectors: Vectors, owner: Places, n_experts: int) -> Vectors:
    """The direction of each expert's mean exemplar, float32[E, d]; zero for an expert without any."""
    total = np.zeros((n_experts, vectors.shape[1]), np.float32)
    np.add.at(total, owner, vectors)
    centres: Vectors = (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return centres


def centroid_scores(queries: Vectors, centres: Vectors) -> Floats:
    """Softmax over the cosines to the experts' centroids."""
    return log_softmax(_SHARPNESS * (queries @ centres.T))


def discriminant(vectors: Floats, owner: Places, n_experts: int, *, shrink: float = 0.3) -> tuple[Floats, Floats]:
    """Linear discriminant analysis with a shrunk covariance that all experts share: weights [f, E] and bias [E].

    Every expert counts alike, however many exemplars it has. Shrinkage as in Friedman 1989, "Regularized discriminant
    analysis", towards a multiple of the identity.
    """
    means = class_means(vectors, owner, n_experts)
    precision = shrunk_precision(vectors - means[owner], shrink)
    weights = precision @ means.T
    bias = -0.5 * (weights * means.T).sum(axis=0)
    return weights.astype(np.float32), bias.astype(np.float32)


def class_means(vectors: Floats, owner: Places, n_experts: int) -> Floats:
    """Mean exemplar of each expert, float32[E, f]."""
    total = np.zeros((n_experts, vectors.shape[1]), np.float32)
    np.add.at(total, owner, vectors)
    sizes = np.maximum(np.bincount(owner, minlength=n_experts), 1).astype(np.float32)
    means: Floats = total / sizes[:, None]
    return means


def shrunk_precision(residuals: Floats, shrink: float) -> Floats:
    """Inverse of the covariance of ``residuals`` float32[m, f], drawn towards the mean variance by ``shrink``."""
    covariance = residuals.T @ residuals / max(len(residuals), 1)
    variance = max(float(np.trace(covariance)) / max(len(covariance), 1), 1e-6)
    shrunk = (1 - shrink) * covariance + shrink * variance * np.eye(len(covariance), dtype=np.float32)
    precision: Floats = np.linalg.inv(shrunk).astype(np.float32)
    return precision
