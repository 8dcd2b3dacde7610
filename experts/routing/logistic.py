"""Fitting the logistic judges."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from experts.routing.base import Floats
from experts.routing.judging import Logistic

_MOST_ROWS = 60_000


def fit_logistic(
    features: Floats,
    labels: NDArray[np.bool_],
    *,
    positive_share: float | None = None,
    weight: NDArray[np.float64] | None = None,
    strength: float = 1.0,
    seed: int = 0,
) -> Logistic:
    """A judge of ``features`` float32[n, q]; ``positive_share`` is the share of positives it will meet.

    Where all labels are the same, the probability is 0.98 or 0.02 of everything.
    """
    n, q = features.shape
    weight = np.full(n, 1.0) if weight is None else weight / weight.mean()
    if n > _MOST_ROWS:
        chosen = np.random.default_rng(seed).choice(n, _MOST_ROWS, replace=False)
        features, labels, weight = features[chosen], labels[chosen], weight[chosen]
    if n == 0 or labels.all() or not labels.any():
        bias = 4.0 if n and labels.all() else -4.0
        return Logistic(np.zeros(q, np.float32), np.ones(q, np.float32), np.zeros(q, np.float32), bias)
    if positive_share is not None:
        present = float((weight * labels).sum() / weight.sum())
        weight = weight * np.where(labels, positive_share / present, (1 - positive_share) / (1 - present))
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    fitted = LogisticRegression(C=strength, max_iter=1000).fit((features - mean) / scale, labels, sample_weight=weight)
    weights, bias = fitted.coef_[0].astype(np.float32), float(fitted.intercept_[0])
    return Logistic(mean.astype(np.float32), scale.astype(np.float32), weights, bias)
