"""What routers share: labelled queries, and logits as log-probabilities."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.encoders.base import Embedded
from experts.routing.base import OUTSIDE, Examples, log_softmax
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import floats

ROWS = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-80, 80, width=32), min_size=width, max_size=width), min_size=1, max_size=5
    )
)


def reference(row: Sequence[float]) -> list[float]:
    """One number after another, in 64 bit."""
    top = max(row)
    total = top + math.log(sum(math.exp(value - top) for value in row))
    return [value - total for value in row]


class TestLogSoftmax:
    @LAW
    @given(rows=ROWS)
    def test_it_takes_the_logarithm_of_the_summed_exponentials_from_every_logit(self, rows: list[list[float]]) -> None:
        found = log_softmax(floats(rows))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [reference(row) for row in rows], atol=1e-4)

    @LAW
    @given(rows=ROWS, shift=st.sampled_from([-64.0, 0.5, 1024.0]))
    def test_a_row_sums_to_one_and_does_not_change_with_a_constant_added(
        self, rows: list[list[float]], shift: float
    ) -> None:
        logits = floats(rows)
        np.testing.assert_allclose(np.exp(log_softmax(logits)).sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(log_softmax(logits + np.float32(shift)), log_softmax(logits), atol=1e-3)

    def test_known_logits(self) -> None:
        found = log_softmax(floats([[0, 0], [math.log(3), 0]]))
        np.testing.assert_allclose(np.exp(found), [[0.5, 0.5], [0.75, 0.25]], atol=1e-6)

    def test_what_the_exponential_could_not_hold_ends_at_one_and_nought(self) -> None:
        np.testing.assert_array_equal(log_softmax(floats([[1e4, 0], [-1e4, -2e4]])), [[0, -1e4], [0, -1e4]])

    def test_an_impossible_expert_stays_impossible(self) -> None:
        found = log_softmax(floats([[0, -np.inf, 0]]))
        np.testing.assert_allclose(found, [[-math.log(2), -np.inf, -math.log(2)]], atol=1e-6)

    def test_a_single_expert_is_certain(self) -> None:
        np.testing.assert_array_equal(log_softmax(floats([[7], [-3]])), [[0], [0]])

    def test_no_queries_stay_none(self) -> None:
        assert log_softmax(np.zeros((0, 3), np.float32)).shape == (0, 3)


class TestExamples:
    @pytest.fixture
    def examples(self) -> Examples:
        vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
        layers = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
        return Examples(["a", "b", "c", "d"], np.array([0, OUTSIDE, 1, 0]), Embedded(vectors, layers))

    def test_there_are_as_many_as_texts(self, examples: Examples) -> None:
        assert len(examples) == 4
        assert len(Examples([], np.zeros(0, np.int64), None)) == 0

    def test_some_of_them_keep_text_owner_vector_and_layers_together_in_the_order_asked_for(
        self, examples: Examples
    ) -> None:
        some = examples.take(np.array([3, 1]))
        assert some.texts == ["d", "b"]
        assert some.owner.tolist() == [0, OUTSIDE]
        assert some.embedded is not None
        np.testing.assert_array_equal(some.embedded.vectors, [[6, 7], [2, 3]])
        np.testing.assert_array_equal(some.embedded.layers[:, 0], [[18, 19], [6, 7]])
        assert some.embedded.layers.shape == (2, 3, 2)

    def test_one_can_be_taken_twice(self, examples: Examples) -> None:
        assert examples.take(np.array([2, 2])).texts == ["c", "c"]

    def test_none_of_them_are_examples_too(self, examples: Examples) -> None:
        nothing = examples.take(np.zeros(0, np.int64))
        assert (len(nothing), nothing.texts, nothing.owner.shape) == (0, [], (0,))
        assert nothing.embedded is not None
        assert (nothing.embedded.vectors.shape, nothing.embedded.layers.shape) == ((0, 2), (0, 3, 2))

    def test_examples_without_vectors_are_taken_without(self, examples: Examples) -> None:
        some = Examples(examples.texts, examples.owner, None).take(np.array([2]))
        assert (some.texts, some.owner.tolist(), some.embedded) == (["c"], [1], None)
