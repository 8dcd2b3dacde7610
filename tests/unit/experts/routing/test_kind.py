"""What a kind of router has by itself."""

from typing import Any

import numpy as np
import pytest

from experts.routing.base import Floats
from experts.routing.kind import Kind
from experts.routing.known import Queries
from tests.unit.experts.routing.shown import floats, known_of, words_of

KNOWN = known_of(floats([[1, 0], [0, 1], [0.6, 0.8]]), [0, 1, 2])


class First(Kind):
    """Sends everything to the first expert."""

    def score(self, queries: Queries) -> Floats:
        return np.log(np.tile(floats([0.98, 0.01, 0.01]), (len(queries), 1)))


def test_it_keeps_what_it_was_shown_and_what_it_learned() -> None:
    learned = {"weight": floats([1, 2])}
    kind = First(KNOWN, learned)
    assert kind.known is KNOWN
    assert kind.learned is learned
    assert kind.score(words_of(["a", "b"])).argmax(axis=1).tolist() == [0, 0]


def test_one_that_says_nothing_else_needs_vectors_and_learns_nothing() -> None:
    assert First.needs_vectors is True
    assert First.learn(KNOWN, top_k=2, seed=0) == {}


def test_one_that_cannot_score_is_none() -> None:
    incomplete: Any = type("Incomplete", (Kind,), {})
    with pytest.raises(TypeError, match="score"):
        incomplete(KNOWN, {})
