"""Making one answer of what several experts said."""

from collections.abc import Sequence
from dataclasses import dataclass
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


def make_combiner(strategy: str) -> Combiner:
    """The combiner for a strategy. Raises UnknownKind."""
    combiner: Any = find("strategy", COMBINERS, strategy)
    made: Combiner = combiner()
    return made
