"""Texts as a router reads them: vectors and layers that stay together."""

import numpy as np
import pytest
from numpy.typing import NDArray

from experts.encoders.base import Embedded, joined, of_vectors


def made(n: int, *, start: int = 0) -> Embedded:
    """Texts of two dimensions and two layers of three, each known by its numbers."""
    numbers = np.arange(start, start + n, dtype=np.float32)
    vectors = np.stack([numbers, -numbers], axis=1)
    layers = numbers[:, None, None] + np.arange(6).reshape(2, 3) / 10
    return Embedded(vectors, layers.astype(np.float32))


class TestEmbedded:
    def test_there_are_as_many_as_vectors(self) -> None:
        assert (len(made(3)), len(made(0))) == (3, 0)

    @pytest.mark.parametrize(
        ("places", "expected"),
        [
            pytest.param(np.array([3, 0, 3]), [3, 0, 3], id="places in any order, one of them twice"),
            pytest.param(np.zeros(0, np.int64), [], id="no places"),
            pytest.param(slice(1, 3), [1, 2], id="a slice"),
            pytest.param(slice(None), [0, 1, 2, 3], id="all"),
            pytest.param(slice(2, 99), [2, 3], id="a slice beyond the end"),
        ],
    )
    def test_some_of_them_keep_vectors_and_layers_together(
        self, places: NDArray[np.int64] | slice, expected: list[int]
    ) -> None:
        some = made(4).take(places)
        assert some.vectors.shape == (len(expected), 2)
        assert some.layers.shape == (len(expected), 2, 3)
        assert some.vectors[:, 0].tolist() == expected
        assert some.layers[:, 0, 0].tolist() == expected


class TestOfVectors:
    def test_the_vectors_are_repeated_as_the_only_layer(self) -> None:
        vectors = np.array([[0.6, 0.8], [1, 0]], np.float32)
        found = of_vectors(vectors)
        assert found.vectors is vectors
        assert found.layers.dtype == np.float32
        np.testing.assert_array_equal(found.layers, [[[np.float32(0.6), np.float32(0.8)]], [[1, 0]]])

    def test_of_no_vectors_there_is_no_layer_but_its_shape(self) -> None:
        assert of_vectors(np.zeros((0, 5), np.float32)).layers.shape == (0, 1, 5)


class TestJoined:
    def test_the_texts_of_all_parts_follow_each_other(self) -> None:
        whole = joined(made(2), made(1, start=2), made(3, start=3))
        np.testing.assert_array_equal(whole.vectors, made(6).vectors)
        np.testing.assert_array_equal(whole.layers, made(6).layers)

    def test_one_part_is_the_whole(self) -> None:
        whole = joined(made(2))
        np.testing.assert_array_equal(whole.vectors, made(2).vectors)
        np.testing.assert_array_equal(whole.layers, made(2).layers)

    @pytest.mark.parametrize("at", [0, 1, 2])
    def test_a_part_without_texts_may_be_of_any_shape(self, at: int) -> None:
        parts = [made(2), made(1, start=2)]
        parts.insert(at, of_vectors(np.zeros((0, 7), np.float32)))
        whole = joined(*parts)
        np.testing.assert_array_equal(whole.vectors, made(3).vectors)
        np.testing.assert_array_equal(whole.layers, made(3).layers)

    def test_parts_without_texts_are_none_together(self) -> None:
        whole = joined(made(0), of_vectors(np.zeros((0, 7), np.float32)))
        assert (whole.vectors.shape, whole.layers.shape) == ((0, 2), (0, 2, 3))

    def test_the_parts_stay_as_they_were(self) -> None:
        part = made(2)
        whole = joined(part)
        whole.vectors[:] = whole.layers[:] = 9
        np.testing.assert_array_equal(part.vectors, made(2).vectors)
        np.testing.assert_array_equal(part.layers, made(2).layers)

    @pytest.mark.parametrize(
        "other", [of_vectors(np.ones((1, 2), np.float32)), of_vectors(np.ones((1, 7), np.float32))]
    )
    def test_parts_of_different_encoders_are_refused(self, other: Embedded) -> None:
        with pytest.raises(ValueError, match="dimension"):
            joined(made(1), other)
