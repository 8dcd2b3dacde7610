"""The judges and what they look at, each against a slow reference."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from experts.routing.base import Floats, Places
from experts.routing.judging import (
    Evidence,
    Logistic,
    best_by_owner,
    coverage_features,
    lead,
    logistic_from,
    own_features,
)
from experts.routing.known import nearest_but_self
from experts.routing.search import Near
from tests.contracts.samples import LAW

COSINE = st.sampled_from([-1.0, 0.0, 0.5, 1.0]) | st.floats(-1, 1, width=32)


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def near(*rows: list[tuple[int, float]]) -> Near:
    """Rows of (place, cosine), best first; place -1 is nobody."""
    k = max(map(len, rows), default=0)
    filled = [row + [(-1, -1.0)] * (k - len(row)) for row in rows]
    cosines = np.array([[cosine for _, cosine in row] for row in filled], np.float32).reshape(len(rows), k)
    places = np.array([[place for place, _ in row] for row in filled], np.int64).reshape(len(rows), k)
    return Near(cosines, places)


def nobody(n: int) -> Near:
    return near(*([[]] * n))


class TestLogistic:
    def test_it_is_the_sigmoid_of_the_weighted_sum_of_standardised_features(self) -> None:
        judge = Logistic(floats(1, 0), floats(2, 1), floats(2, -1), 0.5)
        found = judge(np.array([[3, 1], [1, 0.5], [-1, 0]], np.float32))
        np.testing.assert_allclose(found, [1 / (1 + math.exp(-1.5)), 0.5, 1 / (1 + math.exp(1.5))], atol=1e-6)
        assert found.dtype == np.float32

    def test_huge_features_overflow_nothing(self) -> None:
        judge = Logistic(floats(0), floats(1e-6), floats(1e6), 0.0)
        np.testing.assert_allclose(judge(np.array([[1e6], [-1e6]], np.float32)), [1, 0], atol=1e-12)

    def test_no_queries_get_no_probabilities(self) -> None:
        assert Logistic(floats(0, 0), floats(1, 1), floats(1, 1), 0.0)(np.zeros((0, 2), np.float32)).shape == (0,)

    def test_its_tensors_are_named_after_it_and_make_it_again(self) -> None:
        judge = Logistic(floats(1, 2), floats(3, 4), floats(5, 6), 7.0)
        arrays = judge.arrays("own")
        assert {name: array.tolist() for name, array in arrays.items()} == {
            "own.mean": [1, 2],
            "own.scale": [3, 4],
            "own.weights": [5, 6],
            "own.bias": [7],
        }
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
        again = logistic_from(arrays | Logistic(floats(0), floats(1), floats(0), 0.0).arrays("coverage"), "own")
        assert {name: array.tolist() for name, array in again.arrays("own").items()} == {
            name: array.tolist() for name, array in arrays.items()
        }
        assert type(again.bias) is float

    @pytest.mark.parametrize("part", ["mean", "scale", "weights", "bias"])
    def test_a_missing_tensor_is_named(self, part: str) -> None:
        arrays = Logistic(floats(0), floats(1), floats(0), 0.0).arrays("own")
        del arrays[f"own.{part}"]
        with pytest.raises(KeyError, match=f"own.{part}"):
            logistic_from(arrays, "own")


def reference_best(row: list[tuple[int, float]], owner: list[int], whose: int) -> tuple[float, float]:
    """All exemplars of an expert that are not among the neighbours lie at the last neighbour's cosine."""
    own = [cosine for place, cosine in row if owner[place] == whose]
    n = owner.count(whose)
    if n == 0:
        return -1.0, -1.0
    own += [row[-1][1]] * (n - len(own))
    return own[0], sum(own[:5]) / len(own[:5])


@st.composite
def searched(draw: st.DrawFn) -> tuple[list[list[tuple[int, float]]], list[int]]:
    """The nearest few of up to fifteen exemplars of three experts to two queries."""
    owner = draw(st.lists(st.integers(0, 2), min_size=1, max_size=15))
    k = draw(st.integers(1, len(owner)))
    rows = []
    for _ in range(2):
        cosines = sorted(draw(st.lists(COSINE, min_size=k, max_size=k)), reverse=True)
        rows.append(list(zip(draw(st.permutations(range(len(owner))))[:k], cosines, strict=True)))
    return rows, owner


class TestBestByOwner:
    @LAW
    @given(drawn=searched())
    def test_it_is_what_the_slow_reference_finds(self, drawn: tuple[list[list[tuple[int, float]]], list[int]]) -> None:
        rows, owner = drawn
        nearest, mean = best_by_owner(near(*rows), np.array(owner), 3)
        assert nearest.dtype == mean.dtype == np.float32
        for row, neighbours in enumerate(rows):
            for whose in range(3):
                expected = reference_best(neighbours, owner, whose)
                assert (nearest[row, whose], mean[row, whose]) == pytest.approx(expected, abs=1e-6)

    def test_the_sixth_and_later_do_not_count(self) -> None:
        row = [(place, 1 - place / 8) for place in range(7)]
        nearest, mean = best_by_owner(near(row), np.zeros(7, np.int64), 1)
        assert (nearest[0, 0], mean[0, 0]) == (1, 0.75)

    def test_who_is_not_among_the_neighbours_is_given_the_last_ones_cosine(self) -> None:
        nearest, mean = best_by_owner(near([(0, 0.75), (1, 0.5)]), np.array([0, 0, 1, 1]), 3)
        np.testing.assert_array_equal(nearest, [[0.75, 0.5, -1]])
        np.testing.assert_array_equal(mean, [[0.625, 0.5, -1]])

    def test_exemplars_left_out_look_like_queries_that_are_new(self) -> None:
        """What the judge is taught on exemplars must be what it will see of queries."""
        vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-0.6, 0.8]], np.float32)
        owner = np.array([0, 0, 0, 1, 1])
        _, taught = best_by_owner(nearest_but_self(vectors, 64), owner, 2)
        for place in range(5):
            others = [other for other in range(5) if other != place]
            order = sorted(others, key=lambda other: -float(vectors[place] @ vectors[other]))
            row = [(others.index(other), float(vectors[place] @ vectors[other])) for other in order]
            _, seen = best_by_owner(near(row), owner[others], 2)
            np.testing.assert_allclose(taught[place], seen[0], atol=1e-6)

    @pytest.mark.parametrize("n", [0, 2])
    def test_without_neighbours_everybody_is_as_far_as_can_be(self, n: int) -> None:
        for owner in (np.zeros(0, np.int64), np.array([0, 1])):
            nearest, mean = best_by_owner(nobody(n), owner, 3)
            np.testing.assert_array_equal(nearest, np.full((n, 3), -1))
            np.testing.assert_array_equal(mean, np.full((n, 3), -1))


class TestLead:
    def test_it_is_the_distance_to_the_best_of_the_others(self) -> None:
        values = np.array([[0.5, 0.25, 0.75], [0.5, 0.5, 0], [0, 0, 0]], np.float32)
        np.testing.assert_array_equal(lead(values), [[-0.25, -0.5, 0.25], [0, 0, -0.5], [0, 0, 0]])

    def test_the_only_one_leads_nobody(self) -> None:
        np.testing.assert_array_equal(lead(np.array([[0.5], [-1]], np.float32)), [[0], [0]])

    @LAW
    @given(values=arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(2, 5)), elements=COSINE))
    def test_it_is_what_the_slow_reference_finds(self, values: NDArray[np.float32]) -> None:
        found = lead(values)
        assert found.shape == values.shape
        for row, column in np.ndindex(values.shape):
            others = np.delete(values[row], column)
            assert found[row, column] == np.float32(values[row, column] - others.max())


@pytest.fixture
def evidence() -> Evidence:
    """Two queries before three experts; the third has no exemplar, the second no library."""
    return Evidence(
        near=near([(0, 0.75), (2, 0.5), (1, 0.25)], [(2, 0.5), (1, 0.25), (0, 0.25)]),
        library=near([(0, 0.5), (1, 0.25)], [(1, -0.25), (0, -0.5)]),
        keywords=np.array([[0, 0.5, 0], [0.25, 0, 0.125]], np.float32),
        certainty=floats(-0.5, -1),
        outside=near([(1, 0.5), (0, 0.25)], [(0, 0.75), (1, 0.75)]),
        background=near([(4, 1), (2, 0.5)], [(0, 0.25), (1, 0)]),
        familiar=floats(0.875, 0.125),
        centre=floats(0.625, 0.375),
        distance=floats(-0.5, 0.25),
    )


OWNER: Places = np.array([0, 0, 1])
LIBRARY: Places = np.array([0, 2])


class TestOwnFeatures:
    def test_they_are_nearest_mean_lead_passage_its_lead_and_keywords(self, evidence: Evidence) -> None:
        found = own_features(evidence, OWNER, LIBRARY)
        first = [
            [0.75, 0.5, 0, 0.5, 0.25, 0],
            [0.5, 0.5, 0, 0, -0.5, 0.5],
            [-1, -1, -1.5, 0.25, -0.25, 0],
        ]
        second = [
            [0.25, 0.25, -0.25, 0, 0, 0.25],
            [0.5, 0.5, 0.25, 0, 0, 0],
            [-1, -1, -1.5, 0, 0, 0.125],
        ]
        np.testing.assert_array_equal(found, [first, second])
        assert found.dtype == np.float32

    def test_words_alone_leave_only_the_keywords_to_tell_experts_apart(self) -> None:
        keywords = np.array([[0.5, 0.25]], np.float32)
        words = Evidence(nobody(1), nobody(1), keywords, floats(-1), has_vectors=False)
        found = own_features(words, np.array([0, 1]), np.zeros(0, np.int64))
        np.testing.assert_array_equal(found, [[[-1, -1, 0, 0, 0, 0.5], [-1, -1, 0, 0, 0, 0.25]]])

    def test_no_queries_have_no_features(self) -> None:
        none = Evidence(nobody(0), nobody(0), np.zeros((0, 2), np.float32), floats())
        assert own_features(none, np.array([0, 1]), np.zeros(0, np.int64)).shape == (0, 2, 6)


class TestCoverageFeatures:
    COLUMNS = (
        "nearest",
        "of five",
        "of twenty",
        "familiar",
        "centre",
        "distance",
        "certainty",
        "nearest outside",
        "three outside",
        "nearest of the world",
        "five of the world",
        "library",
        "words",
    )

    def columns(self, evidence: Evidence) -> dict[str, list[float]]:
        return dict(zip(self.COLUMNS, coverage_features(evidence).T.tolist(), strict=True))

    def test_they_are_what_the_documentation_says(self, evidence: Evidence) -> None:
        found = self.columns(evidence)
        assert found == {
            "nearest": [0.75, 0.5],
            "of five": [0.5, pytest.approx(1 / 3)],
            "of twenty": [0.5, pytest.approx(1 / 3)],
            "familiar": [0.875, 0.125],
            "centre": [0.625, 0.375],
            "distance": [-0.5, 0.25],
            "certainty": [-0.5, -1],
            "nearest outside": [-0.25, 0.25],
            "three outside": [-0.125, pytest.approx(0.75 - 1 / 3)],
            "nearest of the world": [0.25, -0.25],
            "five of the world": [0.25, pytest.approx(0.125 - 1 / 3)],
            "library": [0.5, 0],
            "words": [0.5, 0.25],
        }
        assert coverage_features(evidence).dtype == np.float32

    def test_five_and_twenty_are_told_apart(self, evidence: Evidence) -> None:
        row = [(place, 1.0) for place in range(5)] + [(place, 0.0) for place in range(5, 25)]
        found = self.columns(replace(evidence, near=near(row, row)))
        assert [found[name] for name in ("nearest", "of five", "of twenty")] == [[1, 1], [1, 1], [0.25, 0.25]]

    @pytest.mark.parametrize("missing", [None, nobody(2)], ids=["none", "empty"])
    def test_nothing_outside_and_no_world_speak_for_nothing(self, evidence: Evidence, missing: Near | None) -> None:
        found = self.columns(replace(evidence, outside=missing, background=missing, library=nobody(2)))
        silent = ("nearest outside", "three outside", "nearest of the world", "five of the world", "library")
        assert [found[name] for name in silent] == [[0, 0]] * len(silent)
        assert found["nearest"] == [0.75, 0.5]

    def test_of_words_alone_there_are_certainty_and_the_best_keyword_score(self) -> None:
        keywords = np.array([[0.5, 0.25], [0, 0]], np.float32)
        words = Evidence(nobody(2), nobody(2), keywords, floats(-0.25, -0.75), has_vectors=False)
        np.testing.assert_array_equal(coverage_features(words), [[-0.25, 0.5], [-0.75, 0]])

    def test_no_queries_have_no_features(self, evidence: Evidence) -> None:
        nothing = nobody(0)
        none = Evidence(
            nothing, nothing, np.zeros((0, 2), np.float32), floats(), nothing, nothing, floats(), floats(), floats()
        )
        assert coverage_features(none).shape == (0, 13)
