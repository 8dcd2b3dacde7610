"""What exemplars say untrained, against the same sums one number after another."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from experts.routing.base import Floats, Places
from experts.routing.search import Near
from experts.routing.votes import (
    centroid_scores,
    centroids,
    class_means,
    discriminant,
    kernel_vote,
    shrunk_precision,
    vote,
)
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import directions, floats

N_EXPERTS = 3
OWNER = np.array([0, 0, 1, 1, 2])

LEAST = 1e-3

Voting = Callable[[Near, Places, int], Floats]


def near_of(*rows: Sequence[tuple[float, int]]) -> Near:
    """Neighbours as (cosine, place) per query."""
    return Near(
        floats([[cosine for cosine, _ in row] for row in rows]),
        np.array([[place for _, place in row] for row in rows], np.int64),
    )


@st.composite
def neighbours(draw: st.DrawFn) -> Near:
    """Up to six neighbours for each of up to four queries, best first, some of them not there."""
    k, n = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rows = []
    for _ in range(n):
        cosines = sorted(draw(st.lists(st.floats(-1, 1, width=32), min_size=k, max_size=k)), reverse=True)
        places = [draw(st.integers(0, len(OWNER) - 1)) for _ in range(k)]
        there = draw(st.integers(0, k))
        rows.append(
            [(c, p) if at < there else (-1.0, -1) for at, (c, p) in enumerate(zip(cosines, places, strict=True))]
        )
    return near_of(*rows)


def reference(near: Near, weight: Sequence[Sequence[float]]) -> list[list[float]]:
    """Every expert starts with a thousandth of a vote; every neighbour that is there adds its weight."""
    logs = []
    for places, weights in zip(near.places.tolist(), weight, strict=True):
        votes = [LEAST] * N_EXPERTS
        for place, one in zip(places, weights, strict=True):
            if place >= 0:
                votes[OWNER[place]] += one
        logs.append([math.log(v / sum(votes)) for v in votes])
    return logs


class TestVote:
    def test_a_neighbour_votes_with_its_cosine(self) -> None:
        found = vote(near_of([(0.8, 0), (0.4, 2), (0.2, 1)]), OWNER, N_EXPERTS)
        np.testing.assert_allclose(np.exp(found), [[1.001 / 1.403, 0.401 / 1.403, 0.001 / 1.403]], rtol=1e-5)

    def test_a_neighbour_on_the_other_side_votes_neither_for_nor_against(self) -> None:
        found = vote(near_of([(0.5, 0), (-0.9, 2)]), OWNER, N_EXPERTS)
        np.testing.assert_array_equal(found, vote(near_of([(0.5, 0)]), OWNER, N_EXPERTS))

    @LAW
    @given(near=neighbours())
    def test_it_is_the_share_of_all_votes(self, near: Near) -> None:
        found = vote(near, OWNER, N_EXPERTS)
        assert found.dtype == np.float32
        expected = reference(near, np.maximum(near.cosines, 0).tolist())
        np.testing.assert_allclose(found, expected, atol=1e-4)


class TestKernelVote:
    def test_five_hundredths_of_a_cosine_make_a_neighbour_count_a_third(self) -> None:
        """exp(-1) of a third, to be exact."""
        found = np.exp(kernel_vote(near_of([(0.9, 0), (0.85, 2)]), OWNER, N_EXPERTS))
        total = 1 + math.exp(-1) + 3 * LEAST
        np.testing.assert_allclose(found, [[1.001 / total, (math.exp(-1) + LEAST) / total, LEAST / total]], rtol=1e-4)

    def test_one_near_neighbour_outvotes_many_that_lie_farther(self) -> None:
        near = near_of([(0.9, 0), *[(0.6, 2)] * 60])
        assert kernel_vote(near, OWNER, N_EXPERTS)[0].argmax() == 0
        assert vote(near, OWNER, N_EXPERTS)[0].argmax() == 1

    def test_a_wider_kernel_lets_those_that_lie_farther_be_heard(self) -> None:
        near = near_of([(0.9, 0), *[(0.6, 2)] * 60])
        assert kernel_vote(near, OWNER, N_EXPERTS, width=0.5)[0].argmax() == 1

    @LAW
    @given(near=neighbours(), width=st.sampled_from([0.05, 0.2, 1.0]))
    def test_it_is_the_share_of_all_votes(self, near: Near, width: float) -> None:
        found = kernel_vote(near, OWNER, N_EXPERTS, width=width)
        assert found.dtype == np.float32
        best = near.cosines.astype(np.float64)[:, :1]
        np.testing.assert_allclose(found, reference(near, np.exp((near.cosines - best) / width).tolist()), atol=1e-3)


@pytest.mark.parametrize("voting", [vote, kernel_vote])
@pytest.mark.parametrize(
    ("near", "owner"),
    [
        pytest.param(near_of([(-1, -1), (-1, -1)]), OWNER, id="no neighbour is there"),
        pytest.param(Near(np.zeros((1, 0), np.float32), np.zeros((1, 0), np.int64)), OWNER, id="none was searched"),
        pytest.param(near_of([(-1, -1)]), np.zeros(0, np.int64), id="there are no exemplars"),
    ],
)
def test_where_nobody_votes_every_expert_gets_the_same(voting: Voting, near: Near, owner: Places) -> None:
    np.testing.assert_allclose(voting(near, owner, 4), [[math.log(0.25)] * 4], rtol=1e-6)


@pytest.mark.parametrize("voting", [vote, kernel_vote])
def test_votes_on_no_queries_are_none(voting: Voting) -> None:
    nothing = Near(np.zeros((0, 5), np.float32), np.zeros((0, 5), np.int64))
    assert voting(nothing, OWNER, N_EXPERTS).shape == (0, N_EXPERTS)


class TestCentroids:
    def test_an_expert_lies_in_the_direction_of_its_exemplars_sum(self) -> None:
        found = centroids(floats([[1, 0], [0, 1], [0, -1], [0.6, 0.8]]), np.array([0, 0, 1, 0]), 2)
        length = math.hypot(1.6, 1.8)
        np.testing.assert_allclose(found, [[1.6 / length, 1.8 / length], [0.0, -1.0]], atol=1e-6)
        assert found.dtype == np.float32

    def test_an_expert_without_exemplars_lies_nowhere(self) -> None:
        np.testing.assert_array_equal(centroids(floats([[0, 1]]), np.array([2]), 3), [[0, 0], [0, 0], [0, 1]])

    def test_exemplars_that_cancel_out_leave_no_direction(self) -> None:
        np.testing.assert_array_equal(centroids(floats([[1, 0], [-1, 0]]), np.array([0, 0]), 1), [[0, 0]])

    def test_scores_are_the_softmax_of_fifteen_times_the_cosines(self) -> None:
        found = centroid_scores(floats([[1, 0], [0.6, 0.8]]), floats([[1, 0], [0, 1]]))
        np.testing.assert_allclose(found[0], [-math.log1p(math.exp(-15)), -15], atol=1e-5)
        np.testing.assert_allclose(found[1, 1] - found[1, 0], 15 * 0.2, atol=1e-5)
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-6)


def labelled(seed: int, sizes: Sequence[int] = (9, 14, 5), dimension: int = 4) -> tuple[Floats, Places]:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    around = directions(len(sizes), dimension, seed=seed)[owner]
    return (around + 0.5 * directions(len(owner), dimension, seed=seed + 1)).astype(np.float32), owner


def reference_precision(residuals: NDArray[np.float64], shrink: float) -> NDArray[np.float64]:
    """Of the covariance summed up exemplar by exemplar, in 64 bit."""
    f = residuals.shape[1]
    covariance = sum((np.outer(row, row) for row in residuals), np.zeros((f, f))) / len(residuals)
    inverse: NDArray[np.float64] = np.linalg.inv(
        (1 - shrink) * covariance + shrink * np.diag(covariance).mean() * np.eye(f)
    )
    return inverse


class TestShrunkPrecision:
    ROWS = floats([[2, 0], [-2, 0], [0, 1], [0, -1]])  # variances 2 and a half

    @pytest.mark.parametrize(("shrink", "expected"), [(0, [0.5, 2]), (1, [0.8, 0.8]), (0.5, [1 / 1.625, 1 / 0.875])])
    def test_variances_are_drawn_towards_their_mean(self, shrink: float, expected: list[float]) -> None:
        np.testing.assert_allclose(shrunk_precision(self.ROWS, shrink), np.diag(expected), atol=1e-6)

    @LAW
    @given(seed=st.integers(0, 2**32 - 1), shrink=st.sampled_from([0.1, 0.3, 1.0]))
    def test_it_is_the_inverse_of_the_shrunk_covariance(self, seed: int, shrink: float) -> None:
        residuals = 3 * directions(12, 4, seed=seed)
        expected = reference_precision(residuals.astype(np.float64), shrink)
        found = shrunk_precision(residuals, shrink)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)

    def test_fewer_exemplars_than_dimensions_have_one_too(self) -> None:
        found = shrunk_precision(directions(3, 20), 0.3)
        np.testing.assert_allclose(
            found, reference_precision(directions(3, 20).astype(np.float64), 0.3), rtol=1e-2, atol=1e-2
        )

    @pytest.mark.parametrize("residuals", [np.zeros((5, 3), np.float32), np.zeros((0, 3), np.float32)])
    def test_exemplars_without_any_variance_leave_it_finite(self, residuals: Floats) -> None:
        np.testing.assert_allclose(shrunk_precision(residuals, 0.5), np.eye(3) / 0.5e-6, rtol=1e-5)


class TestDiscriminant:
    def test_means_are_taken_expert_by_expert(self) -> None:
        found = class_means(floats([[1, 0], [3, 4], [5, 5]]), np.array([2, 2, 0]), 4)
        np.testing.assert_array_equal(found, [[5, 5], [0, 0], [2, 2], [0, 0]])
        assert found.dtype == np.float32

    @LAW
    @given(seed=st.integers(0, 2**31), shrink=st.sampled_from([0.1, 0.3, 0.9]))
    def test_scores_differ_as_the_halved_squared_distances_to_the_means_do(self, seed: int, shrink: float) -> None:
        """What a discriminant with equal priors is: -½ (x - mean)ᵀ P (x - mean), less what all experts share."""
        vectors, owner = labelled(seed)
        wide = vectors.astype(np.float64)
        means = np.array([wide[owner == expert].mean(axis=0) for expert in range(N_EXPERTS)])
        precision = reference_precision(wide - means[owner], shrink)
        weights, bias = discriminant(vectors, owner, N_EXPERTS, shrink=shrink)
        assert weights.shape == (4, N_EXPERTS)
        assert weights.dtype == np.float32
        assert bias.shape == (N_EXPERTS,)
        assert bias.dtype == np.float32
        queries = directions(6, 4, seed=seed + 2)
        found = queries @ weights + bias
        for query, scores in zip(queries.astype(np.float64), found, strict=True):
            expected = [-0.5 * (query - mean) @ precision @ (query - mean) for mean in means]
            np.testing.assert_allclose(scores - scores[0], np.array(expected) - expected[0], rtol=1e-3, atol=1e-2)

    def test_three_tenths_of_the_covariance_are_drawn_towards_its_mean_where_nothing_else_is_said(self) -> None:
        vectors, owner = labelled(0)
        for found, expected in zip(
            discriminant(vectors, owner, 3), discriminant(vectors, owner, 3, shrink=0.3), strict=True
        ):
            np.testing.assert_array_equal(found, expected)

    def test_an_expert_with_many_exemplars_gets_no_more_than_one_with_few(self) -> None:
        """Halfway between two means, where both spread alike, neither leads."""
        few, many = floats([[2, 1], [2, -1]]), floats([[-2, 1], [-2, -1]] * 10)
        weights, bias = discriminant(np.concatenate([few, many]), np.repeat([0, 1], [2, 20]), 2)
        for query, leader in (([0, 0.7], None), ([0.1, 3], 0), ([-0.1, 3], 1)):
            scores = floats(query) @ weights + bias
            if leader is None:
                assert scores[0] == pytest.approx(scores[1], abs=1e-4)
            else:
                assert scores.argmax() == leader

    def test_a_direction_in_which_exemplars_vary_a_lot_says_little(self) -> None:
        """Means differ as much along the second axis as along the first, but only the first is steady."""
        spread = floats([[0, 3], [0, -3], [0.1, 0], [-0.1, 0]])
        vectors = np.concatenate([spread + floats([1, 1]), spread - floats([1, 1])])
        weights, bias = discriminant(vectors, np.repeat([0, 1], 4), 2, shrink=0.01)
        assert (floats([0.5, -2]) @ weights + bias).argmax() == 0
