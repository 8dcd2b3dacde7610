"""A decision is checked before anything acts on it, whatever router it came from."""

import math
from collections.abc import Collection

from experts.errors import ExpertsError
from experts.routing.decide import Decision

_ROUNDING = 1e-3


class BadDecision(ExpertsError):
    """A router decided what must not be acted on; the text says what."""

    code = "bad_decision"


def validate(decision: Decision, allowed: Collection[str]) -> None:
    """Raise BadDecision unless every expert is one of ``allowed``, none is named twice, and the weights sum to 1."""
    names = [name for name, _ in decision.experts]
    if not names:
        raise BadDecision("the router chose no expert")
    unknown = sorted(set(names) - set(allowed))
    if unknown:
        raise BadDecision(f"the router chose {', '.join(unknown)}, which may not be asked")
    if len(set(names)) < len(names):
        raise BadDecision(f"the router chose an expert twice: {', '.join(names)}")
    weights = [weight for _, weight in decision.experts]
    if not all(math.isfinite(weight) and 0 <= weight <= 1 for weight in weights) or abs(sum(weights) - 1) > _ROUNDING:
        raise BadDecision(f"the router's weights {weights} are not shares that sum to 1")
    for what, value in (("confidence", decision.confidence), ("coverage", decision.coverage)):
        if not 0 <= value <= 1:
            raise BadDecision(f"the router's {what} {value} is not in [0, 1]")
