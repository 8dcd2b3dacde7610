"""Whether a newly trained expert goes live: it must help where it is meant to, and harm nobody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experts.adapters.evaluation import Evaluation, compare
from experts.evaluation.metrics import Difference, paired

MINIMUM = 10
# A mean loss above this is harm even where too few examples are there to be sure of it.
MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the expert goes live, and every reason why not (or, if it does, why)."""

    promote: bool
    reasons: list[str]


def gate(
    candidate: Evaluation,
    base: Evaluation,
    previous: Evaluation | None = None,
    others_before: Mapping[str, Sequence[float]] | None = None,
    others_after: Mapping[str, Sequence[float]] | None = None,
    *,
    minimum: int = MINIMUM,
    margin: float = MARGIN,
    floor: float = 0.0,
) -> Verdict:
    """The verdict on held-out data.

    The candidate must be better than the base: the 95 % interval of the difference of exact answers, or else that of
    F1, lies above zero, and neither is worse. It must not be worse than the version before, and no other expert may
    answer its own evaluation set worse after than before (``others_*``: a score for each example, by the expert's
    name). Worse is a difference whose interval lies below zero, or whose mean is below ``-margin``. Fewer than
    ``minimum`` examples prove nothing, and a mean F1 below ``floor`` is not enough however little the base knows.

    Raises ValueError for evaluations of different examples.
    """
    if len(candidate.scores) < minimum:
        return Verdict(False, [f"only {len(candidate.scores)} held-out examples; at least {minimum} are needed"])
    against_base = compare(candidate, base)
    both = (against_base.exact, against_base.f1)
    better = any(difference.low > 0 for difference in both) and not any(_worse(d, margin) for d in both)
    gain = f"{_shown(against_base.exact, 'exact answers')}, {_shown(against_base.f1, 'F1')} against the base"
    reasons = [] if better else [f"not better than the base: {gain}"]
    if candidate.f1 < floor:
        reasons.append(f"a mean F1 of {candidate.f1:.3f} is below {floor:.3f}")
    if previous is not None:
        against_previous = compare(candidate, previous)
        reasons += [
            f"worse than the version before: {_shown(difference, name)}"
            for name, difference in (("exact answers", against_previous.exact), ("F1", against_previous.f1))
            if _worse(difference, margin)
        ]
    reasons += _harmed(others_before or {}, others_after or {}, margin)
    return Verdict(False, reasons) if reasons else Verdict(True, [gain])


def _harmed(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], margin: float) -> list[str]:
    """A reason for every other expert that answers worse, or was not measured again."""
    reasons = []
    for name in sorted(before):
        if len(after.get(name, ())) != len(before[name]):
            reasons.append(f"{name}: was measured on {len(before[name])} examples, now on {len(after.get(name, ()))}")
            continue
        difference = paired(np.asarray(after[name], np.float64), np.asarray(before[name], np.float64))
        if _worse(difference, margin):
            reasons.append(f"{name}: answers its own evaluation set worse: {_shown(difference, 'score')}")
    return reasons


def _worse(difference: Difference, margin: float) -> bool:
    return difference.high < 0 or difference.mean < -margin


def _shown(difference: Difference, name: str) -> str:
    return f"{name} {difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
