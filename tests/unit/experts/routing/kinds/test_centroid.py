"""The nearest mean."""

import numpy as np

from experts.routing.kinds.centroid import Router
from tests.unit.experts.routing.shown import directions, floats, known_of, queries_of, unit


def test_the_expert_whose_exemplars_mean_lies_nearest_comes_first() -> None:
    known = known_of(unit([[1, 0.1], [1, -0.1], [0.1, 1], [-0.1, 1], [-1, 0]]), [0, 0, 1, 1, 2])
    found = Router(known, {}).score(queries_of(known, floats([[1, 0], [0.6, 0.8], [-0.8, -0.6]])))
    assert found.dtype == np.float32
    # Fifteen times the cosines to (1, 0), (0, 1) and (-1, 0), as probabilities.
    logits = 15 * np.array([[1, 0, -1], [0.6, 0.8, -0.6], [-0.8, -0.6, 0.8]])
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_learns_nothing_and_needs_vectors() -> None:
    known = known_of(directions(6, 4), [0, 0, 1, 1, 2, 2])
    assert Router.learn(known, top_k=2, seed=0) == {}
    assert Router.needs_vectors is True


def test_no_queries_get_no_scores() -> None:
    known = known_of(directions(6, 4), [0, 0, 1, 1, 2, 2])
    assert Router(known, {}).score(queries_of(known, directions(0, 4))).shape == (0, 3)
