"""What a router does with labelled queries, as numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experts.evaluation.metrics import (
    auroc,
    confusion,
    expected_calibration_error,
    false_positives,
    interval,
    label_scores,
    reliability,
)
from experts.routing.base import OUTSIDE, Examples, Floats, Places
from experts.routing.router import RouterModel

_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a router said of n queries: ``share`` float32[n, E], and the truth. ``owner`` may be ``OUTSIDE``."""

    owner: Places
    share: Floats
    confidence: Floats
    coverage: Floats

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Queries that some expert covers, bool[n]."""
        covered: NDArray[np.bool_] = self.owner != OUTSIDE
        return covered

    @property
    def chosen(self) -> Places:
        """First choices, int64[n]."""
        first: Places = self.share.argmax(axis=1)
        return first

    @property
    def right(self) -> NDArray[np.bool_]:
        """Of the queries inside, whether the first choice is the right one."""
        same: NDArray[np.bool_] = self.chosen[self.inside] == self.owner[self.inside]
        return same


def outcome(model: RouterModel, examples: Examples) -> Outcome:
    """Score labelled queries, in blocks."""
    parts = []
    for start in range(0, len(examples), _BLOCK):
        block = examples.take(np.arange(start, min(start + _BLOCK, len(examples))))
        scores = model.score(block.texts, block.embedded)
        parts.append((scores.share, scores.confidence, scores.coverage))
    if not parts:
        nothing = np.zeros(0, np.float32)
        return Outcome(examples.owner, np.zeros((0, len(model.experts)), np.float32), nothing, nothing)
    share, confidence, coverage = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Outcome(examples.owner, share, confidence, coverage)


def summary(found: Outcome) -> dict[str, Any]:
    """The figures that fit a table; those that cannot be measured are None."""
    inside, right = found.inside, found.right
    if not len(right):
        return {"n": 0, "accuracy": None, "macro_f1": None, "ece": None, "ci": None} | outside_summary(found)
    n_labels = found.share.shape[1]
    scores = label_scores(confusion(found.owner[inside], found.chosen[inside], n_labels))
    present = [score.f1 for score in scores if score.n]
    return {
        "n": len(right),
        "accuracy": round(float(right.mean()), 4),
        "macro_f1": round(float(np.mean(present)), 4),
        "ece": round(expected_calibration_error(found.confidence[inside], right), 4),
        "ci": [round(bound, 4) for bound in interval(right)],
    } | outside_summary(found)


def outside_summary(found: Outcome) -> dict[str, Any]:
    """How well queries that nobody covers are told from the others by coverage."""
    inside, outside = found.coverage[found.inside], found.coverage[~found.inside]
    area, false = auroc(inside, outside), false_positives(inside, outside)
    return {
        "n_outside": len(outside),
        "oos_auroc": None if area is None else round(area, 4),
        "oos_fpr95": None if false is None else round(false, 4),
    }


def details(found: Outcome, texts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """What the plots and tables of a report are drawn from."""
    inside = np.flatnonzero(found.inside)
    truth, chosen = found.owner[inside], found.chosen[inside]
    counts = confusion(truth, chosen, len(labels))
    scores = label_scores(counts)
    confidence, right = found.confidence[inside], found.right
    return {
        "per_label": {
            label: {key: value if key == "n" else round(value, 4) for key, value in asdict(score).items()}
            for label, score in zip(labels, scores, strict=True)
        },
        "confusion": {"labels": list(labels), "matrix": counts.tolist()},
        "confused": _confused(truth, chosen, [texts[place] for place in inside.tolist()], labels),
        "reliability": [
            {"from": b.start, "to": b.stop, "n": b.n, "confidence": b.confidence, "accuracy": b.accuracy}
            for b in (reliability(confidence, right) if len(right) else [])
        ],
        "threshold_curve": _threshold_curve(confidence, right),
        "coverage_curve": _coverage_curve(found),
        "coverage_histogram": _histogram(inside=found.coverage[found.inside], outside=found.coverage[~found.inside]),
        "confidence_histogram": _histogram(right=confidence[right], wrong=confidence[~right]),
    }


def _confused(
    truth: Places, chosen: Places, texts: Sequence[str], labels: Sequence[str], *, pairs: int = 20, examples: int = 3
) -> list[dict[str, Any]]:
    wrong: dict[tuple[int, int], list[str]] = {}
    for true, picked, text in zip(truth.tolist(), chosen.tolist(), texts, strict=True):
        if true != picked:
            wrong.setdefault((true, picked), []).append(text)
    most = sorted(wrong.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:pairs]
    return [
        {"true": labels[t], "chosen": labels[c], "n": len(found), "examples": [x[:300] for x in found[:examples]]}
        for (t, c), found in most
    ]


def _threshold_curve(confidence: Floats, right: NDArray[np.bool_]) -> list[dict[str, float]]:
    curve = []
    for threshold in np.linspace(0, 0.99, 100):
        answered = confidence >= threshold
        if not answered.any():
            break
        curve.append(
            {
                "threshold": round(float(threshold), 4),
                "answered": round(float(answered.mean()), 4),
                "accuracy": round(float(right[answered].mean()), 4),
            }
        )
    return curve


def _coverage_curve(found: Outcome) -> list[dict[str, float]]:
    inside, outside = found.coverage[found.inside], found.coverage[~found.inside]
    if not len(inside) or not len(outside):
        return []
    return [
        {
            "threshold": round(float(threshold), 4),
            "inside_kept": round(float((inside >= threshold).mean()), 4),
            "outside_caught": round(float((outside < threshold).mean()), 4),
        }
        for threshold in np.linspace(0, 1, 101)
    ]


def _histogram(**values: Floats) -> dict[str, list[float]]:
    edges = np.linspace(0, 1, 41)
    counts = {name: np.histogram(value, edges)[0].tolist() for name, value in values.items()}
    return {"edges": [round(float(edge), 4) for edge in edges], **counts}
