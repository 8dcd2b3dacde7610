"""Fitting the logistic judges."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from experts.routing.base import Floats, Places
from experts.routing.judging import Logistic

_MOST_ROWS = 60_000


def fit_logistic(
    features: Floats,
    labels: NDArray[np.bool_],
    *,
    positive_share: float | None = None,
    weight: NDArray[np.float64] | None = None,
    strength: float = 1.0,
    only_for: bool = False,
    seed: int = 0,
) -> Logistic:
    """A judge of ``features`` float32[n, q]; ``positive_share`` is the share of positives it will meet.

    Where all labels are the same, the probability is 0.98 or 0.02 of everything. With ``only_for`` no feature may speak
    against: few examples would else teach it that what is nearer belongs less.
    """
    n, q = features.shape
    weight = np.full(n, 1.0) if weight is None else weight / weight.mean()
    if n > _MOST_ROWS:
        chosen, sampled = _sample(labels, seed)
        features, labels, weight = features[chosen], labels[chosen], weight[chosen] * sampled
    if n == 0 or labels.all() or not labels.any():
        bias = 4.0 if n and labels.all() else -4.0
        return Logistic(np.zeros(q, np.float32), np.ones(q, np.float32), np.zeros(q, np.float32), bias)
    if positive_share is not None:
        present = float((weight * labels).sum() / weight.sum())
        weight = weight * np.where(labels, positive_share / present, (1 - positive_share) / (1 - present))
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    rows, used = (features - mean) / scale, np.arange(q)
    weights = np.zeros(q, np.float32)
    while True:
        fitted = LogisticRegression(C=strength, max_iter=1000).fit(rows[:, used], labels, sample_weight=weight)
        against = fitted.coef_[0] < 0
        if not only_for or not against.any() or against.all():
            break
        used = used[~against]
    weights[used] = np.maximum(fitted.coef_[0], 0) if only_for else fitted.coef_[0]
    return Logistic(mean.astype(np.float32), scale.astype(np.float32), weights, float(fitted.intercept_[0]))


def _sample(labels: NDArray[np.bool_], seed: int) -> tuple[Places, NDArray[np.float64]]:
    """At most ``_MOST_ROWS`` rows, and what each stands for: of the rarer label as many as of the other, or all."""
    random = np.random.default_rng(seed)
    yes, no = np.flatnonzero(labels), np.flatnonzero(~labels)
    fewer = min(len(yes), len(no), _MOST_ROWS // 2)
    parts = []
    for places in (yes, no):
        n = fewer if len(places) == min(len(yes), len(no)) else _MOST_ROWS - fewer
        kept = random.choice(places, min(n, len(places)), replace=False)
        parts.append((kept, np.full(len(kept), len(places) / max(len(kept), 1))))
    return np.concatenate([kept for kept, _ in parts]), np.concatenate([share for _, share in parts])
