"""Keywords only."""

import math

import numpy as np
import pytest

from experts.routing.base import Examples, ExpertProfile
from experts.routing.kinds.heuristic import Router
from experts.routing.known import gather
from tests.unit.experts.routing.shown import words_of

KEYWORDS = {"bank": ["mortgage", "card"], "code": ["python", "card"], "earth": []}


@pytest.fixture
def router() -> Router:
    profiles = [ExpertProfile(name, keywords) for name, keywords in KEYWORDS.items()]
    return Router(gather(profiles, Examples(["a", "b", "c"], np.array([0, 1, 2]), None), None), {})


def test_four_times_the_keyword_scores_are_the_logits(router: Router) -> None:
    found = router.score(words_of(["my mortgage", "my card", "a python mortgage"]))
    assert found.dtype == np.float32
    own = 1 - math.exp(-1)
    # A keyword of two of three experts weighs log(1 + 3/2) / log(1 + 3).
    shared = 1 - math.exp(-math.log(2.5) / math.log(4))
    logits = 4 * np.array([[own, 0, 0], [shared, shared, 0], [own, own, 0]])
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("text", ["", "hello there", "?!"])
def test_where_no_keyword_is_found_all_experts_get_the_same(router: Router, text: str) -> None:
    np.testing.assert_allclose(router.score(words_of([text])), [[-math.log(3)] * 3], rtol=1e-6)


def test_it_needs_no_vectors_and_learns_nothing(router: Router) -> None:
    assert Router.needs_vectors is False
    assert Router.learn(router.known, top_k=2, seed=0) == {}


def test_no_queries_get_no_scores(router: Router) -> None:
    assert router.score(words_of([])).shape == (0, 3)
