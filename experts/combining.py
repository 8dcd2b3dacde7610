"""Making one answer of what several experts said."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

from experts.kinds import COMBINERS, find


@dataclass(frozen=True, slots=True)
class ExpertAnswer:
    """One expert's answer with the weight routing gave it; ``quality`` in [0, 1] is what it has earned so far."""

    expert: str
    weight: float
    text: str
    answered: bool
    confidence: float
    quality: float


@dataclass(frozen=True, slots=True)
class Combined:
    """The answer that is given, whose it is, and those not taken, best first."""

    text: str
    expert: str
    answered: bool
    confidence: float
    alternatives: Sequence[ExpertAnswer]


class Combiner(Protocol):
    """One method: at least one answer in, one out."""

    def combine(self, answers: Sequence[ExpertAnswer]) -> Combined: ...


class WeightedCombiner:
    """Takes the answer with the highest routing weight × learned quality × its own confidence; one that answers
    goes before one that says it cannot."""

    def combine(self, answers: Sequence[ExpertAnswer]) -> Combined:
        best, *others = sorted(answers, key=lambda a: (not a.answered, -a.weight * a.quality * a.confidence, a.expert))
        return Combined(best.text, best.expert, best.answered, best.confidence, others)


_WORD = re.compile(r"\w+")


def disagreement(answers: Sequence[ExpertAnswer]) -> float | None:
    """How little the experts' answers have in common, in [0, 1]; None where fewer than two of them answered.

    One less the mean token F1 of every pair, pairs weighted by the product of their routing weights. Words are
    compared, not meanings, so two ways of saying the same count as a disagreement in part.
    """
    said = [(answer.weight, Counter(_WORD.findall(answer.text.lower()))) for answer in answers if answer.answered]
    pairs = list(combinations(said, 2))
    if not pairs:
        return None
    total = sum(a * b for (a, _), (b, _) in pairs)
    weights = [a * b / total if total > 0 else 1 / len(pairs) for (a, _), (b, _) in pairs]
    return 1 - sum(w * _token_f1(one, other) for w, ((_, one), (_, other)) in zip(weights, pairs, strict=True))


def _token_f1(one: Counter[str], other: Counter[str]) -> float:
    words = one.total() + other.total()
    return 2 * (one & other).total() / words if words else 1.0


def make_combiner(strategy: str) -> Combiner:
    """The combiner for a strategy. Raises UnknownKind."""
    combiner: Any = find("strategy", COMBINERS, strategy)
    made: Combiner = combiner()
    return made
