"""The gate together with what exemplars say untrained."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from experts.encoders.base import Embedded
from experts.routing.base import Floats, Places
from experts.routing.gate import gate_from
from experts.routing.gate_training import train_gate
from experts.routing.kind import Arrays
from experts.routing.kinds.ensemble import Router
from experts.routing.known import Known, Queries
from experts.routing.search import Near
from experts.routing.votes import centroid_scores, centroids, discriminant, kernel_vote, vote
from tests.unit.experts.routing.shown import directions, known_of, queries_of, unit

OWNER = np.repeat([0, 1, 2], [16, 14, 10])


def embedded(n: int, owner: Places, *, seed: int) -> Embedded:
    """Texts of an encoder of four dimensions that shows four layers of three; the upper ones tell the experts apart."""
    random = np.random.default_rng(seed)
    vectors = unit(np.eye(4)[owner] + 0.5 + 0.4 * directions(n, 4, seed=seed))
    layers = random.standard_normal((n, 4, 3))
    layers[:, 2:] = 2 * np.eye(3)[owner][:, None, :] + 0.5 * layers[:, 2:]
    return Embedded(vectors, layers.astype(np.float32))


@pytest.fixture(scope="module")
def known() -> Known:
    return known_of(embedded(40, OWNER, seed=0), OWNER.tolist())


@pytest.fixture(scope="module")
def learned(known: Known) -> Arrays:
    return Router.learn(known, top_k=2, seed=0)


@pytest.fixture(scope="module")
def strange(known: Known) -> Embedded:
    """Nine queries, some of them between experts."""
    return embedded(9, np.arange(9) % 3, seed=5)


def members(known: Known, learned: Arrays, queries: Queries) -> list[Floats]:
    """Log-probabilities of gate, neighbours, kernel, centroids and discriminant."""
    thirty = Near(queries.near.cosines[:, :30], queries.near.places[:, :30])
    logits = queries.traits[:, 6:] @ learned["discriminant.weight"] + learned["discriminant.bias"]
    return [
        gate_from(learned)(queries.traits),
        vote(thirty, known.owner, 3),
        kernel_vote(queries.near, known.owner, 3),
        centroid_scores(queries.vectors, centroids(known.vectors, known.owner, 3)),
        logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)).astype(np.float32),
    ]


def product(logs: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """Probabilities in proportion to the weighted product of the members', for one query."""
    n_experts = len(logs[0])
    powers = [math.exp(sum(w * log[e] for w, log in zip(weights, logs, strict=True))) for e in range(n_experts)]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize(("n", "say"), [(10, 0.0), (30, 0.0), (60, 0.5), (91, 1.0)])
def test_neighbours_have_a_say_where_an_expert_has_many_exemplars(n: int, say: float, strange: Embedded) -> None:
    owner = np.repeat([0, 1, 2], [n, n, 3 * n])
    many = known_of(embedded(5 * n, owner, seed=0), owner.tolist())
    learned = Router.learn(many, top_k=2, seed=0)
    queries = queries_of(many, strange, familiar=1.0)
    found = Router(many, learned).score(queries)
    voices = [voice.astype(np.float64).tolist() for voice in members(many, learned, queries)]
    for row in range(9):
        home = product([voice[row] for voice in voices], (1.1, 0.2 * say, 0.25 * say, 0, 0))
        np.testing.assert_allclose(np.exp(found[row]), home, atol=1e-4)


@pytest.mark.parametrize(("n", "taken"), [(3, 0.3), (5, 0.3), (6, 0.24), (9, 0.06)])
def test_of_a_handful_of_exemplars_centroids_speak_for_the_gate_in_part(
    n: int, taken: float, strange: Embedded
) -> None:
    owner = np.repeat([0, 1, 2], n)
    handful = known_of(embedded(3 * n, owner, seed=0), owner.tolist())
    learned = Router.learn(handful, top_k=2, seed=0)
    queries = queries_of(handful, strange, familiar=1.0)
    found = Router(handful, learned).score(queries)
    voices = [voice.astype(np.float64).tolist() for voice in members(handful, learned, queries)]
    for row in range(9):
        home = product([voice[row] for voice in voices], (1.1 - taken, 0, 0, taken, 0))
        np.testing.assert_allclose(np.exp(found[row]), home, atol=1e-4)


# Of fourteen exemplars an expert neighbours do not count.
HOME, ABROAD = (1.1, 0, 0, 0, 0), (0.2, 0, 0, 0.2, 0.2)


@pytest.mark.parametrize(("familiar", "trust"), [(0, 0), (0.05, 0.25), (0.15, 0.75), (0.2, 1), (0.7, 1), (1, 1)])
def test_the_more_familiar_a_query_the_more_it_is_the_gates(
    known: Known, learned: Arrays, strange: Embedded, familiar: float, trust: float
) -> None:
    queries = queries_of(known, strange, familiar=familiar)
    found = Router(known, learned).score(queries)
    assert found.shape == (9, 3)
    assert found.dtype == np.float32
    voices = [voice.astype(np.float64).tolist() for voice in members(known, learned, queries)]
    for row in range(9):
        logs = [voice[row] for voice in voices]
        mixed = [
            trust * home + (1 - trust) * abroad
            for home, abroad in zip(product(logs, HOME), product(logs, ABROAD), strict=True)
        ]
        np.testing.assert_allclose(np.exp(found[row]), mixed, atol=1e-4)


def test_every_query_is_trusted_by_itself(known: Known, learned: Arrays, strange: Embedded) -> None:
    router = Router(known, learned)
    shades = [0.0, 0.2, 1.0] * 3
    together = router.score(queries_of(known, strange, familiar=shades))
    for row, familiar in enumerate(shades):
        alone = router.score(queries_of(known, strange.take(slice(row, row + 1)), familiar=familiar))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("familiar", [0.0, 1.0])
def test_queries_go_to_the_expert_whose_exemplars_are_like_them(
    known: Known, learned: Arrays, strange: Embedded, familiar: float
) -> None:
    found = Router(known, learned).score(queries_of(known, strange, familiar=familiar))
    assert found.argmax(axis=1).tolist() == [0, 1, 2] * 3
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-4)


def test_it_learns_a_gate_over_all_layers_and_a_discriminant_over_the_upper_half(known: Known, learned: Arrays) -> None:
    gate = train_gate(known.traits, known.owner, 3, top_k=2, seed=0)
    weights, bias = discriminant(known.traits[:, 6:], known.owner, 3)
    expected = {**gate.arrays(), "discriminant.weight": weights, "discriminant.bias": bias}
    assert learned.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(learned[name], array)


def test_of_an_encoder_with_one_layer_the_discriminant_reads_that(known: Known) -> None:
    plain = known_of(known.vectors, OWNER.tolist())
    learned = Router.learn(plain, top_k=2, seed=0)
    assert learned["discriminant.weight"].shape == (4, 3)
    found = Router(plain, learned).score(queries_of(plain, unit(np.eye(4)[:3]), familiar=0.2))
    assert found.argmax(axis=1).tolist() == [0, 1, 2]


def test_an_expert_that_every_member_denies_is_unlikely_but_never_impossible(known: Known, learned: Arrays) -> None:
    arrays = {**learned, "gate.straight.bias": learned["gate.straight.bias"] + np.array([300, 0, 0], np.float32)}
    found = Router(known, arrays).score(queries_of(known, embedded(3, np.array([0, 0, 0]), seed=1)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found[:, 1:]), 0, atol=1e-6)


def test_no_queries_get_no_scores(known: Known, learned: Arrays, strange: Embedded) -> None:
    assert Router(known, learned).score(queries_of(known, strange.take(slice(0)))).shape == (0, 3)
