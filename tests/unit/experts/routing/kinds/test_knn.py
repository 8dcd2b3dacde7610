"""Nearest exemplars."""

import math

import numpy as np

from experts.routing.kinds.knn import Router
from tests.unit.experts.routing.shown import directions, floats, known_of, queries_of, unit


def test_every_neighbour_votes_with_its_cosine() -> None:
    known = known_of(floats([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]]), [0, 1, 1, 2])
    found = Router(known, {}).score(queries_of(known, floats([[1, 0]])))
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.exp(found), [[1.001 / 1.803, 0.801 / 1.803, 0.001 / 1.803]], rtol=1e-5)


def test_thirty_neighbours_vote_and_no_more() -> None:
    """Twenty near ones of the first expert, and then forty of the second, of which ten are heard."""
    vectors = unit([[1, 0.01]] * 20 + [[1, 0.2]] * 40 + [[-1, 0]])
    known = known_of(vectors, [0] * 20 + [1] * 40 + [2])
    queries = queries_of(known, floats([[1, 0]]))
    assert queries.near.places.shape == (1, 61)
    first, second, third = np.exp(Router(known, {}).score(queries))[0]
    votes = 20 / math.hypot(1, 0.01), 10 / math.hypot(1, 0.2)
    total = sum(votes) + 3e-3
    np.testing.assert_allclose([first, second, third], [v / total for v in (*votes, 0)], atol=1e-4)


def test_it_learns_nothing_and_needs_vectors() -> None:
    known = known_of(directions(6, 4), [0, 0, 1, 1, 2, 2])
    assert Router.learn(known, top_k=2, seed=0) == {}
    assert Router.needs_vectors is True


def test_no_queries_get_no_scores() -> None:
    known = known_of(directions(6, 4), [0, 0, 1, 1, 2, 2])
    assert Router(known, {}).score(queries_of(known, directions(0, 4))).shape == (0, 3)
