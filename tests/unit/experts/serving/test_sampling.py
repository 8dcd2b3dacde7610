"""Drawing tokens: from the right distribution, within top-p."""

from collections import Counter

import pytest
import torch

from experts.serving.parameters import Sampling
from experts.serving.sampling import Draws, choose

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


def drawn(sampling: Sampling, n: int = 4000) -> Counter[int]:
    draws = Draws(sampling)
    found: Counter[int] = Counter()
    for _ in range(n // 100):
        found.update(choose(LOGITS.expand(100, 4), [draws] * 100)[0])
    return found


def test_the_likeliest_is_taken_without_a_temperature() -> None:
    tokens, probabilities = choose(LOGITS[None], [None])
    assert tokens == [0]
    assert probabilities == pytest.approx([float(LOGITS.softmax(-1)[0])])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    found = drawn(Sampling(temperature, 1.0, 5))
    expected = (LOGITS / temperature).softmax(-1)
    assert [found[token] / 4000 for token in range(4)] == pytest.approx(expected.tolist(), abs=0.03)


@pytest.mark.parametrize(("top_p", "kept"), [(1e-6, {0}), (0.6, {0}), (0.7, {0, 1}), (0.95, {0, 1, 2})])
def test_only_the_fewest_tokens_that_hold_top_p_are_drawn(top_p: float, kept: set[int]) -> None:
    assert set(drawn(Sampling(1.0, top_p, 1), 1000)) == kept


def test_a_tiny_temperature_is_the_likeliest() -> None:
    assert drawn(Sampling(1e-4, 1.0, 1), 100) == {0: 100}


def test_rows_that_draw_leave_the_others_alone() -> None:
    tokens, probabilities = choose(LOGITS.expand(3, 4), [None, Draws(Sampling(50.0, 1.0, 3)), None])
    assert (tokens[0], tokens[2]) == (0, 0)
    assert probabilities[1] == pytest.approx(float(LOGITS.softmax(-1)[tokens[1]]))
