"""The gating network alone."""

import numpy as np
import pytest

from experts.routing.gate_training import train_gate
from experts.routing.kind import Arrays
from experts.routing.kinds.neural import Router
from experts.routing.known import Known
from tests.unit.experts.routing.shown import directions, floats, known_of, queries_of, unit

AXES = np.eye(3).repeat(6, axis=0)
OWNER = [0] * 6 + [1] * 6 + [2] * 6


@pytest.fixture(scope="module")
def known() -> Known:
    return known_of(unit(AXES + 0.2 * directions(18, 3)), OWNER)


@pytest.fixture(scope="module")
def learned(known: Known) -> Arrays:
    return Router.learn(known, top_k=2, seed=3)


def test_it_learns_a_gate_over_the_traits(known: Known, learned: Arrays) -> None:
    gate = train_gate(known.traits, known.owner, 3, top_k=2, seed=3)
    assert learned.keys() == gate.arrays().keys()
    for name, array in gate.arrays().items():
        np.testing.assert_array_equal(learned[name], array)
    queries = queries_of(known, unit([[1, 0.1, 0], [0, 0.3, 1]]))
    np.testing.assert_array_equal(Router(known, learned).score(queries), gate(queries.traits))


def test_queries_go_to_the_expert_whose_exemplars_are_like_them(known: Known, learned: Arrays) -> None:
    found = Router(known, learned).score(queries_of(known, unit([[1, 0.1, 0], [0.1, 1, 0], [0, 0.3, 1]])))
    assert found.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)


def test_the_seed_decides_what_is_learned(known: Known, learned: Arrays) -> None:
    other = Router.learn(known, top_k=2, seed=4)
    assert not np.array_equal(other["gate.0.weight"], learned["gate.0.weight"])


def test_no_queries_get_no_scores(known: Known, learned: Arrays) -> None:
    assert Router(known, learned).score(queries_of(known, np.zeros((0, 3), np.float32))).shape == (0, 3)


def test_without_what_it_learned_it_cannot_score(known: Known) -> None:
    with pytest.raises(KeyError, match="gate"):
        Router(known, {}).score(queries_of(known, floats([[1, 0, 0]])))
