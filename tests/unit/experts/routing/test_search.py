"""The nearest of many vectors, against a search of all of them one after the other."""

from collections.abc import Sequence

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.routing.base import Floats
from experts.routing.search import CELLS_FROM, Near, NearestNeighbours, mean_of_best, nearest_in
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import directions, floats, unit


def reference(cosines: Sequence[float], k: int) -> list[float]:
    """The ``k`` largest, best first; -1 for what is not there."""
    there = sorted((cosine for cosine in cosines if cosine >= -1), reverse=True)
    return [*there, *[-1.0] * k][:k]


class TestNearestNeighbours:
    def test_known_vectors(self) -> None:
        near = NearestNeighbours(floats([[1, 0], [0, 1], [-1, 0]])).search(floats([[0.6, 0.8], [-0.8, 0.6]]), 2)
        np.testing.assert_array_equal(near.places, [[1, 0], [2, 1]])
        np.testing.assert_allclose(near.cosines, [[0.8, 0.6], [0.8, 0.6]], atol=1e-6)

    def test_the_opposite_of_a_query_is_there_though_at_minus_one(self) -> None:
        near = NearestNeighbours(floats([[-1, 0]])).search(floats([[1, 0]]), 1)
        assert (near.places.tolist(), near.cosines.tolist()) == ([[0]], [[-1]])

    @LAW
    @given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 30), n=st.integers(1, 5), k=st.integers(1, 35))
    def test_they_are_found_best_first_with_their_places_and_what_is_lacking_is_marked(
        self, seed: int, m: int, n: int, k: int
    ) -> None:
        vectors, queries = directions(m, 6, seed=seed), directions(n, 6, seed=seed + 1)
        near = NearestNeighbours(vectors).search(queries, k)
        assert near.cosines.shape == (n, k)
        assert near.cosines.dtype == np.float32
        assert near.places.shape == (n, k)
        assert near.places.dtype == np.int64
        for query, cosines, places in zip(queries, near.cosines, near.places, strict=True):
            every = [float(query @ vector) for vector in vectors]
            np.testing.assert_allclose(cosines, reference(every, k), atol=1e-5)
            found = places[: min(k, m)]
            assert len(set(found.tolist())) == len(found)
            np.testing.assert_allclose(cosines[: len(found)], [every[place] for place in found], atol=1e-5)
            assert (places[len(found) :] == -1).all()

    def test_among_no_vectors_nothing_is_found(self) -> None:
        near = NearestNeighbours(np.zeros((0, 2), np.float32)).search(floats([[1, 0]]), 2)
        assert (near.places.tolist(), near.cosines.tolist()) == ([[-1, -1]], [[-1, -1]])

    def test_no_queries_find_nothing(self) -> None:
        near = NearestNeighbours(floats([[1, 0]])).search(np.zeros((0, 2), np.float32), 3)
        assert (near.cosines.shape, near.places.shape) == ((0, 3), (0, 3))

    def test_vectors_in_any_order_of_memory_and_in_64_bit_are_read_right(self) -> None:
        vectors, query = directions(9, 4), directions(1, 4, seed=1)
        plain = NearestNeighbours(vectors).search(query, 9)
        turned = NearestNeighbours(np.asfortranarray(vectors)).search(query.repeat(2, axis=0)[::2], 9)
        wide = NearestNeighbours(vectors.astype(np.float64)).search(query.astype(np.float64), 9)
        for other in (turned, wide):
            np.testing.assert_array_equal(other.places, plain.places)
            np.testing.assert_array_equal(other.cosines, plain.cosines)


@pytest.fixture(scope="module")
def vectors() -> Floats:
    """Directions round 200 others, as texts lie round topics; just so many that cells are made of them."""
    random = np.random.default_rng(0)
    topics = random.standard_normal((200, 16))
    return unit(topics[random.integers(0, 200, CELLS_FROM)] + 0.4 * random.standard_normal((CELLS_FROM, 16)))


@pytest.fixture(scope="module")
def many(vectors: Floats) -> NearestNeighbours:
    return NearestNeighbours(vectors)


class TestCells:
    """From ``CELLS_FROM`` vectors on only some are compared."""

    def test_one_vector_fewer_is_searched_exactly(self, vectors: Floats, many: NearestNeighbours) -> None:
        assert isinstance(many._index, faiss.IndexIVFFlat)
        assert many._index.nlist == 128  # the root of 16,384
        assert isinstance(NearestNeighbours(vectors[1:])._index, faiss.IndexFlatIP)

    def test_every_vector_finds_itself(self, vectors: Floats, many: NearestNeighbours) -> None:
        near = many.search(vectors[::64], 1)
        np.testing.assert_array_equal(near.places[:, 0], np.arange(CELLS_FROM)[::64])
        np.testing.assert_allclose(near.cosines, 1, atol=1e-5)

    def test_nineteen_in_twenty_of_the_nearest_are_found(self, vectors: Floats, many: NearestNeighbours) -> None:
        queries = unit(vectors[:200] + 0.1 * directions(200, 16, seed=1))
        exact = nearest_in(queries @ vectors.T, 20)
        found = many.search(queries, 20)
        common = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found.places, exact.places, strict=True)]
        assert sum(common) >= 0.95 * 20 * 200

    def test_what_was_not_looked_at_is_marked_as_not_there(self, vectors: Floats, many: NearestNeighbours) -> None:
        near = many.search(vectors[:1], CELLS_FROM // 2)
        seen = near.places[0] >= 0
        assert 500 < seen.sum() < CELLS_FROM // 2
        np.testing.assert_array_equal(near.cosines[0, ~seen], -1)
        np.testing.assert_allclose(near.cosines[0, seen], vectors[near.places[0, seen]] @ vectors[0], atol=1e-5)


class TestNearestIn:
    def test_known_rows(self) -> None:
        near = nearest_in(floats([[0.1, 0.9, -0.5], [0.3, -2, 0.4]]), 3)
        np.testing.assert_array_equal(near.places, [[1, 0, 2], [2, 0, -1]])
        np.testing.assert_array_equal(near.cosines, floats([[0.9, 0.1, -0.5], [0.4, 0.3, -1]]))

    @LAW
    @given(
        rows=st.integers(1, 12).flatmap(
            lambda width: st.lists(
                st.lists(
                    st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0]) | st.floats(-1, 1, width=32),
                    min_size=width,
                    max_size=width,
                ),
                min_size=1,
                max_size=4,
            )
        ),
        k=st.integers(1, 14),
    )
    def test_the_largest_come_first_and_what_is_marked_as_gone_is_not_there(
        self, rows: list[list[float]], k: int
    ) -> None:
        given_rows = floats(rows)
        near = nearest_in(given_rows, k)
        kept = min(k, len(rows[0]))
        assert near.cosines.shape == (len(rows), kept)
        assert near.cosines.dtype == np.float32
        assert near.places.shape == (len(rows), kept)
        assert near.places.dtype == np.int64
        for row, cosines, places in zip(rows, near.cosines.tolist(), near.places.tolist(), strict=True):
            assert cosines == reference(row, kept)
            n_there = min(kept, sum(value >= -1 for value in row))
            there = places[:n_there]
            assert len(set(there)) == n_there
            assert [row[place] for place in there] == cosines[:n_there]
            assert places[n_there:] == [-1] * (kept - n_there)
        np.testing.assert_array_equal(given_rows, floats(rows))

    @pytest.mark.parametrize(
        ("shape", "k", "expected"), [((3, 0), 5, (3, 0)), ((0, 4), 2, (0, 2)), ((0, 0), 2, (0, 0)), ((2, 4), 0, (2, 0))]
    )
    def test_where_there_are_no_rows_or_no_columns_nothing_is_near(
        self, shape: tuple[int, int], k: int, expected: tuple[int, int]
    ) -> None:
        near = nearest_in(np.zeros(shape, np.float32), k)
        assert (near.cosines.shape, near.places.shape) == (expected, expected)
        assert near.cosines.dtype == np.float32
        assert near.places.dtype == np.int64


class TestMeanOfBest:
    NEAR = Near(floats([[0.9, 0.5, 0.1], [0.8, -0.4, -1], [-1, -1, -1]]), np.array([[4, 2, 7], [1, 0, -1], [-1] * 3]))

    @pytest.mark.parametrize(
        ("k", "expected"),
        [(1, [0.9, 0.8, 0]), (2, [0.7, 0.2, 0]), (3, [0.5, 0.2, 0]), (20, [0.5, 0.2, 0]), (0, [0, 0, 0])],
    )
    def test_only_neighbours_that_are_there_count(self, k: int, expected: list[float]) -> None:
        found = mean_of_best(self.NEAR, k)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_it_is_nought_where_nothing_was_searched(self) -> None:
        nothing = Near(np.zeros((2, 0), np.float32), np.zeros((2, 0), np.int64))
        np.testing.assert_array_equal(mean_of_best(nothing, 5), [0, 0])
