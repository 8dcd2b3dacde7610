"""The weighted combiner: whose answer wins."""

import itertools

import pytest

from experts.combining import ExpertAnswer, WeightedCombiner, make_combiner
from experts.errors import UnknownKind


def answer(expert: str, weight: float, confidence: float, quality: float, *, answered: bool = True) -> ExpertAnswer:
    return ExpertAnswer(expert, weight, f"{expert} says so.", answered, confidence, quality)


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([answer("code", 0.6, 0.5, 0.8), answer("bank", 0.4, 0.5, 0.8)], id="by weight"),
        pytest.param([answer("code", 0.5, 0.6, 0.8), answer("bank", 0.5, 0.5, 0.8)], id="by confidence"),
        pytest.param([answer("code", 0.5, 0.5, 0.9), answer("bank", 0.5, 0.5, 0.8)], id="by quality"),
        pytest.param([answer("code", 0.4, 0.9, 0.9), answer("bank", 0.6, 0.5, 0.9)], id="by the product"),
        pytest.param([answer("bank", 0.5, 0.5, 0.5), answer("code", 0.5, 0.5, 0.5)], id="by name among equals"),
        pytest.param(
            [answer("bank", 0.1, 0.4, 0.1), answer("code", 0.9, 0.9, 0.9, answered=False)],
            id="an answer before a refusal",
        ),
        pytest.param(
            [answer("code", 0.0, 0.0, 0.0), answer("bank", 0.9, 0.9, 0.9, answered=False)],
            id="even an answer that weighs nothing",
        ),
        pytest.param(
            [
                answer("bank", 0.5, 0.9, 0.8),
                answer("law", 0.3, 0.9, 0.8),
                answer("code", 0.2, 0.9, 0.8),
                answer("earth", 0.7, 0.3, 0.8, answered=False),
                answer("medicine", 0.1, 0.3, 0.8, answered=False),
            ],
            id="five in order",
        ),
    ],
)
def test_the_best_answer_is_given_and_the_others_follow_best_first(answers: list[ExpertAnswer]) -> None:
    """Every list is written best first; the order in which answers come must not matter."""
    for shuffled in itertools.permutations(answers):
        combined = WeightedCombiner().combine(shuffled)
        best = answers[0]
        assert (combined.text, combined.expert, combined.answered, combined.confidence) == (
            best.text,
            best.expert,
            best.answered,
            best.confidence,
        )
        assert list(combined.alternatives) == answers[1:]


def test_where_nobody_answers_the_likeliest_refusal_is_given() -> None:
    refusals = [answer("bank", 0.4, 0.2, 0.8, answered=False), answer("code", 0.6, 0.2, 0.8, answered=False)]
    combined = WeightedCombiner().combine(refusals)
    assert (combined.expert, combined.answered, combined.text) == ("code", False, "code says so.")


def test_an_unknown_strategy_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownKind, match=r"unknown strategy 'vote'; there are: .*weighted"):
        make_combiner("vote")
