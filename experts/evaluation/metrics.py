"""What routers are measured by."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experts.routing.base import Floats, Places

BINS = 15
Scores = NDArray[np.bool_] | NDArray[np.float64]
_RESAMPLES = 2_000


def expected_calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence, weighted by how many fall in each."""
    if not len(right):
        return 0.0
    return float(sum(abs(b.confidence - b.accuracy) * b.n for b in reliability(confidence, right, bins)) / len(right))


@dataclass(frozen=True, slots=True)
class Bin:
    """Queries whose confidence lies in [start, stop)."""

    start: float
    stop: float
    n: int
    confidence: float
    accuracy: float


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """Confidence against accuracy in equal bins; empty bins are left out."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        Bin(b / bins, (b + 1) / bins, int(own.sum()), float(confidence[own].mean()), float(right[own].mean()))
        for b in range(bins)
        if (own := place == b).any()
    ]


def auroc(inside: Floats, outside: Floats) -> float | None:
    """Probability that a query inside scores above one outside, ties counting half; None without both."""
    if not len(inside) or not len(outside):
        return None
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, "left") + np.searchsorted(ordered, inside, "right")
    return float(below.mean() / (2 * len(outside)))


def false_positives(inside: Floats, outside: Floats, *, kept: float = 0.95) -> float | None:
    """Share of queries outside that score at least as high as ``kept`` of those inside; None without both."""
    if not len(inside) or not len(outside):
        return None
    return float((outside >= np.quantile(inside, 1 - kept, method="lower")).mean())


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How one label fared."""

    n: int
    precision: float
    recall: float
    f1: float


def confusion(truth: Places, chosen: Places, n_labels: int) -> NDArray[np.int64]:
    """Counts int64[true, chosen]."""
    counts = np.bincount(truth * n_labels + chosen, minlength=n_labels * n_labels)
    return counts.reshape(n_labels, n_labels)


def label_scores(counts: NDArray[np.int64]) -> list[LabelScore]:
    """Precision, recall and F1 of each label; 0 where nothing was chosen or nothing is there."""
    hits, true, chosen = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    scores = []
    for hit, n, picked in zip(hits.tolist(), true.tolist(), chosen.tolist(), strict=True):
        precision, recall = hit / max(picked, 1), hit / max(n, 1)
        f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
        scores.append(LabelScore(n, precision, recall, f1))
    return scores


def interval(values: NDArray[np.float64] | NDArray[np.bool_], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    if not len(values):
        return 0.0, 1.0
    random = np.random.default_rng(seed)
    plain = np.asarray(values, np.float64)
    means = [plain[random.integers(0, len(plain), len(plain))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of one router less that of another on the same queries, with its 95 % interval and p value."""

    mean: float
    low: float
    high: float
    p: float


def paired(right_a: Scores, right_b: Scores, *, seed: int = 0) -> Difference:
    """Paired bootstrap of the difference; p is McNemar's exact test (binomial over the queries they differ in).

    Of scores that are not just right or wrong, p is that of the sign test.
    """
    from scipy.stats import binomtest

    difference = right_a.astype(np.float64) - right_b.astype(np.float64)
    low, high = interval(difference, seed=seed)
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    p = float(binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0
    return Difference(float(difference.mean()) if len(difference) else 0.0, low, high, p)
