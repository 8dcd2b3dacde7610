"""What became of a run's routing, in figures that can be held against a promise."""

import math
from typing import Any

from storage import catalogue, run_routing
from storage.database import transact
from storage.runs import RunView
from worker.runtime import Runtime

_Z = 1.959964  # of a 95 % interval


def routing_of(runtime: Runtime, run: RunView) -> dict[str, Any]:
    """The run's spread over the experts, what the router expected, and what is known to have come of it.

    Right experts are known from feedback, and from lines whose metadata name one (`expert` or `domain`). ``misroute``
    is the share of those whose right expert was not among those asked, with its 95 % interval.
    """
    found = transact(runtime.engine, lambda c: run_routing.routed(c, run.id))
    experts = transact(runtime.engine, lambda c: catalogue.names(c, serving=True))
    load = [found.first_choices.get(name, 0) for name in sorted({*experts, *found.first_choices})]
    missed = found.known - found.right_among_asked
    right = found.right_first
    return {
        "run": run.public_id,
        "lines": found.lines,
        "unroutable": found.unroutable,
        "outside_share": _share(found.outside, found.lines),
        "experts_asked_per_line": _rounded(found.asked / found.lines if found.lines else None),
        "times_cheaper_than_asking_all": _rounded(len(experts) * found.lines / found.asked if found.asked else None),
        "mean_confidence": _rounded(found.mean_confidence),
        "mean_coverage": _rounded(found.mean_coverage),
        "utilisation_entropy": _rounded(_entropy(load)),
        "load_variation": _rounded(_variation(load)),
        "first_choices": found.first_choices,
        "asked": found.asked_of,
        "tasks": found.tasks,
        "max_misroute": _rounded(found.max_misroute),
        "known": found.known,
        "accuracy": _share(right, found.known),
        "accuracy_ci": _wilson(right, found.known),
        "expected_accuracy": _rounded(found.mean_confidence_of_known),
        "misroute": _share(missed, found.known),
        "misroute_ci": _wilson(missed, found.known),
        "answers_compared": found.compared,
        "mean_disagreement": _rounded(found.mean_disagreement),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _entropy(load: list[int]) -> float | None:
    """Of the load, as a share of the most there could be: 1 where every expert gets the same."""
    total = sum(load)
    if len(load) < 2 or not total:
        return None
    return -sum(n / total * math.log(n / total) for n in load if n) / math.log(len(load))


def _variation(load: list[int]) -> float | None:
    """Standard deviation over mean."""
    mean = sum(load) / len(load) if load else 0.0
    return math.sqrt(sum((n - mean) ** 2 for n in load) / len(load)) / mean if mean else None


def _wilson(hits: int, n: int) -> list[float] | None:
    """95 % interval of a share (Wilson 1927), which holds for few and for none as well."""
    if not n:
        return None
    share, square = hits / n, _Z * _Z / n
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    return [round(max(middle - half, 0), 4), round(min(middle + half, 1), 4)]
