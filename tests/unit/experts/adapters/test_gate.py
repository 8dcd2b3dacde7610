"""Who goes live, and why not."""

import pytest

from experts.adapters.data import Example
from experts.adapters.evaluation import Evaluation, evaluate
from experts.adapters.gate import gate
from experts.language.prompting import Turn

EXAMPLES = [Example((Turn("user", f"q{n}"),), f"answer {n}", n) for n in range(100)]


def right(*lines: int, of: int = 100) -> Evaluation:
    return evaluate(lambda examples: [e.answer if e.line in lines else "" for e in examples], EXAMPLES[:of])


BASE, GOOD = right(*range(20)), right(*range(60))


def test_what_is_better_than_the_base_and_harms_nobody_goes_live() -> None:
    others = {"legal": [1.0] * 50}

    verdict = gate(GOOD, BASE, GOOD, others, others)

    assert verdict.promote
    assert "exact answers +0.400" in verdict.reasons[0]


@pytest.mark.parametrize("candidate", [BASE, right(*range(21)), right()])
def test_what_is_not_surely_better_than_the_base_does_not(candidate: Evaluation) -> None:
    verdict = gate(candidate, BASE)

    assert not verdict.promote
    assert "not better than the base" in verdict.reasons[0]


def test_what_is_worse_than_the_version_before_does_not() -> None:
    verdict = gate(GOOD, BASE, right(*range(70)))

    assert not verdict.promote
    assert [reason.partition(":")[0] for reason in verdict.reasons] == ["worse than the version before"] * 2


def test_a_difference_to_the_version_before_that_may_be_chance_is_let_pass() -> None:
    assert gate(GOOD, BASE, right(*range(1, 63))).promote


@pytest.mark.parametrize(
    ("before", "after", "harmed"),
    [
        ({"a": [1.0] * 50, "b": [1.0] * 50}, {"a": [1.0] * 50, "b": [1.0] * 40 + [0.0] * 10}, "b: answers"),
        ({"a": [1.0] * 4}, {"a": [1.0, 1.0, 1.0, 0.0]}, "a: answers"),
        ({"a": [1.0] * 4}, {}, "a: was measured on 4 examples, now on 0"),
    ],
)
def test_who_harms_another_expert_does_not(
    before: dict[str, list[float]], after: dict[str, list[float]], harmed: str
) -> None:
    verdict = gate(GOOD, BASE, None, before, after)

    assert not verdict.promote
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith(harmed)


def test_every_reason_is_named() -> None:
    verdict = gate(BASE, GOOD, GOOD, {"a": [1.0] * 10}, {"a": [0.0] * 10})

    assert len(verdict.reasons) == 4


def test_better_than_nothing_may_not_be_good_enough() -> None:
    assert gate(GOOD, BASE, floor=0.6).promote
    assert gate(GOOD, BASE, floor=0.61).reasons == ["a mean F1 of 0.600 is below 0.610"]


def test_few_examples_prove_nothing() -> None:
    verdict = gate(right(*range(9), of=9), right(of=9))

    assert not verdict.promote
    assert "at least 10" in verdict.reasons[0]
