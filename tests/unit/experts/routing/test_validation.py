"""A decision that must not be acted on is refused, with what is wrong about it."""

import math
from collections.abc import Collection
from typing import Any

import pytest

from experts.errors import ExpertsError
from experts.routing.decide import Decision
from experts.routing.validation import BadDecision, validate

NAMES = ("bank", "code", "earth")


def decision(*experts: tuple[str, float], confidence: float = 0.5, coverage: float = 0.5, **rest: Any) -> Decision:
    return Decision(experts, confidence, coverage, True, "because", {}, **rest)


@pytest.mark.parametrize(
    "experts",
    [
        [("bank", 1.0)],
        [("bank", 1)],
        [("bank", 0.5), ("code", 0.5)],
        [("bank", 0.0), ("code", 1.0)],
        [("earth", 0.3333), ("bank", 0.3333), ("code", 0.3333)],
        [("bank", 0.5005), ("code", 0.5)],
    ],
)
def test_shares_that_sum_to_one_but_for_rounding_are_accepted(experts: list[tuple[str, float]]) -> None:
    validate(decision(*experts), NAMES)


@pytest.mark.parametrize("allowed", [["bank"], {"bank"}, {"bank": 1}, frozenset(NAMES)])
def test_the_allowed_may_be_any_collection(allowed: Collection[str]) -> None:
    validate(decision(("bank", 1.0)), allowed)


@pytest.mark.parametrize(("confidence", "coverage"), [(0, 0), (1, 1), (0.0, 1.0)])
def test_confidence_and_coverage_may_be_all_or_nothing(confidence: float, coverage: float) -> None:
    validate(decision(("bank", 1.0), confidence=confidence, coverage=coverage), NAMES)


def test_a_decision_without_an_expert_is_refused() -> None:
    with pytest.raises(BadDecision, match=r"^the router chose no expert$"):
        validate(decision(), NAMES)


@pytest.mark.parametrize("allowed", [NAMES, ()])
def test_experts_that_may_not_be_asked_are_named_in_order(allowed: tuple[str, ...]) -> None:
    with pytest.raises(BadDecision, match=r"^the router chose nobody, somebody, which may not be asked$"):
        validate(decision(("somebody", 0.5), ("nobody", 0.5)), allowed)
    with pytest.raises(BadDecision, match="which may not be asked"):
        validate(decision(("Bank", 1.0)), NAMES)


def test_an_expert_that_is_named_twice_is_refused() -> None:
    with pytest.raises(BadDecision, match=r"^the router chose an expert twice: bank, code, bank$"):
        validate(decision(("bank", 0.25), ("code", 0.5), ("bank", 0.25)), NAMES)


@pytest.mark.parametrize(
    "weights",
    [
        (math.nan,),
        (0.5, math.nan),
        (math.inf,),
        (-math.inf, math.inf),
        (0.0,),
        (0.0, 0.0),
        (1.5, -0.5),
        (-0.0001, 1.0),
        (1.0005, 0.0),
        (0.5, 0.4985),
        (0.5, 0.5015),
        (1.0, 1.0),
    ],
)
def test_weights_that_are_no_shares_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(BadDecision, match=r"^the router's weights \[.*\] are not shares that sum to 1$"):
        validate(decision(*zip(NAMES, weights, strict=False)), NAMES)


@pytest.mark.parametrize("what", ["confidence", "coverage"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0001, 1.0001])
def test_confidence_and_coverage_that_are_no_probabilities_are_refused(what: str, value: float) -> None:
    with pytest.raises(BadDecision, match=rf"^the router's {what} {value} is not in \[0, 1\]$"):
        validate(decision(("bank", 1.0), **{what: value}), NAMES)


def test_the_error_has_a_code_of_its_own() -> None:
    assert issubclass(BadDecision, ExpertsError)
    assert BadDecision("").code == "bad_decision"
