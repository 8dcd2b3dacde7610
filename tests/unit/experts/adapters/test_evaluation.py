"""Scores of answers, and comparisons of those who gave them."""

import numpy as np
import pytest

from experts.adapters.data import Example
from experts.adapters.evaluation import compare, embedding_similarity, evaluate, exact_match, token_f1, verbatim
from experts.language.prompting import Turn

EXAMPLES = [Example((Turn("user", f"q{n}"),), f"answer {n}", n) for n in range(40)]


@pytest.mark.parametrize(
    ("answer", "expected", "exact", "to_the_letter", "f1"),
    [
        ("The Eiffel Tower.", "eiffel tower", True, False, 1.0),
        ("a  b", "a b", True, True, 1.0),
        ("in Paris", "Paris", False, False, 2 / 3),
        ("Rome", "Paris", False, False, 0.0),
        ("", "Paris", False, False, 0.0),
        # Nothing is left of Morse code, so the signs themselves count.
        (".- -...", ".- -...", True, True, 1.0),
        (".- -...", "-... .-", False, False, 0.0),
        ("the", "a", False, False, 0.0),
        # Squad 1.1 counts repeated words as often as both have them.
        ("x x y", "x y y", False, False, 2 / 3),
    ],
)
def test_answers_are_scored_as_in_squad(
    answer: str, expected: str, exact: bool, to_the_letter: bool, f1: float
) -> None:
    assert exact_match(answer, expected) is exact
    assert verbatim(answer, expected) is to_the_letter
    assert token_f1(answer, expected) == pytest.approx(f1)


def test_an_evaluation_keeps_every_answer() -> None:
    def answered(examples: list[Example]) -> list[str]:
        return [example.answer if example.line % 2 else "no" for example in examples]

    found = evaluate(answered, EXAMPLES)

    assert (found.exact, found.verbatim, found.f1, found.similarity) == (0.5, 0.5, 0.5, None)
    assert [(s.line, s.answer) for s in found.scores[:2]] == [(0, "no"), (1, "answer 1")]


def test_similarity_is_the_cosine_of_what_an_encoder_says() -> None:
    def encode(texts: list[str]) -> np.ndarray:
        return np.asarray([[1.0, 0.0] if text.startswith("answer") else [0.6, 0.8] for text in texts], np.float32)

    found = evaluate(lambda examples: ["other"] * len(examples), EXAMPLES, embedding_similarity(encode))

    assert found.similarity == pytest.approx(0.6)


def test_a_difference_has_its_interval_and_its_p() -> None:
    """Right nine times where the base is wrong, and never the other way round: p is 2 / 2^9."""
    good = evaluate(lambda examples: [e.answer if e.line < 9 else "no" for e in examples], EXAMPLES)
    base = evaluate(lambda examples: ["no"] * len(examples), EXAMPLES)

    found = compare(good, base)

    assert found.exact.mean == pytest.approx(9 / 40)
    assert 0 < found.exact.low < 9 / 40 < found.exact.high
    assert found.exact.p == pytest.approx(2 / 2**9)


def test_different_examples_are_not_compared() -> None:
    evaluations = [evaluate(lambda examples: ["no"] * len(examples), part) for part in (EXAMPLES[:5], EXAMPLES[5:10])]

    with pytest.raises(ValueError, match="not of the same examples"):
        compare(*evaluations)


def test_no_examples_are_no_evaluation_and_no_error() -> None:
    found = evaluate(lambda _: [], [])

    assert (found.exact, found.similarity) == (0.0, None)
    assert compare(found, found).exact.mean == 0
