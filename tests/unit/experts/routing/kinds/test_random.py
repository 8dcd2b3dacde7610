"""The router that guesses."""

import zlib

import numpy as np
import pytest

from experts.routing.base import Examples, ExpertProfile
from experts.routing.kinds.random import Router
from experts.routing.known import gather
from tests.unit.experts.routing.shown import words_of

EXPERTS = ("bank", "code", "earth", "law")


@pytest.fixture
def router() -> Router:
    examples = Examples([f"about {name}" for name in EXPERTS], np.arange(4), None)
    return Router(gather([ExpertProfile(name) for name in EXPERTS], examples, None), {})


def test_half_goes_to_the_expert_that_the_texts_checksum_names_and_half_to_all_alike(router: Router) -> None:
    texts = ["", "a", "mortgage", "Größe 👍"]
    found = router.score(words_of(texts))
    assert found.dtype == np.float32
    for row, text in enumerate(texts):
        expected = [0.125] * 4
        expected[zlib.crc32(text.encode()) % 4] = 0.625
        np.testing.assert_allclose(np.exp(found[row]), expected, rtol=1e-6)


def test_the_guesses_spread_over_all_experts(router: Router) -> None:
    found = router.score(words_of([f"question number {n}" for n in range(2000)]))
    sent = np.bincount(found.argmax(axis=1), minlength=4)
    # Four standard deviations of a binomial with 2,000 tries and a quarter each are 78.
    assert (abs(sent - 500) < 78).all()


def test_it_needs_no_vectors_and_learns_nothing(router: Router) -> None:
    assert Router.needs_vectors is False
    assert Router.learn(router.known, top_k=2, seed=0) == {}


def test_no_queries_get_no_scores(router: Router) -> None:
    assert router.score(words_of([])).shape == (0, 4)
