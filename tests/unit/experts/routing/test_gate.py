"""The gating network as it runs, against the same sums one number after another."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.routing.base import Floats
from experts.routing.gate import Gate, gate_from
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import floats

NAMES = [
    "gate.straight.weight",
    "gate.straight.bias",
    *(f"gate.{number}.{part}" for number in range(3) for part in ("weight", "bias")),
]


def linear(weight: Floats, bias: Floats, row: Sequence[float]) -> list[float]:
    return [
        sum(w * x for w, x in zip(weights, row, strict=True)) + b
        for weights, b in zip(weight.tolist(), bias.tolist(), strict=True)
    ]


def reference(gate: Gate, row: Sequence[float]) -> list[float]:
    """Log-probabilities of one row of traits."""
    scaled = [5 * value for value in row]
    hidden = scaled
    for weight, bias in gate.layers[:-1]:
        hidden = [max(value, 0.0) for value in linear(weight, bias, hidden)]
    ends = zip(linear(*gate.layers[-1], hidden), linear(*gate.straight, scaled), strict=True)
    logits = [deep + straight for deep, straight in ends]
    total = math.log(sum(math.exp(value) for value in logits))
    return [value - total for value in logits]


def made(sizes: Sequence[int], n_experts: int, seed: int) -> Gate:
    """A gate of random numbers: traits, hidden layers, experts."""
    random = np.random.default_rng(seed)

    def layer(before: int, after: int) -> tuple[Floats, Floats]:
        return floats(random.standard_normal((after, before)) / before), floats(random.standard_normal(after))

    widths = [*sizes, n_experts]
    layers = [layer(before, after) for before, after in pairwise(widths)]
    return Gate(layers, layer(sizes[0], n_experts))


class TestGate:
    def test_known_numbers(self) -> None:
        """One trait, two hidden units of which one is cut off, two experts."""
        hidden = (floats([[1], [-1]]), floats([0, 0]))
        last = (floats([[0.2, 9], [0, 9]]), floats([0.5, 0]))
        gate = Gate([hidden, last], (floats([[0], [0.1]]), floats([0, 0.25])))
        # A trait of 0.4 is scaled to 2: 0.2 * 2 + 0.5 = 0.9 for the first, 0.1 * 2 + 0.25 = 0.45 for the second.
        found = gate(floats([[0.4]]))
        np.testing.assert_allclose(found[0, 0] - found[0, 1], 0.45, atol=1e-6)
        np.testing.assert_allclose(np.exp(found).sum(), 1, atol=1e-6)

    @LAW
    @given(
        seed=st.integers(0, 2**32 - 1),
        sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
        n_experts=st.integers(1, 4),
        n=st.integers(0, 3),
    )
    def test_it_is_a_network_with_a_straight_path_beside_it(
        self, seed: int, sizes: list[int], n_experts: int, n: int
    ) -> None:
        gate = made(sizes, n_experts, seed)
        traits = np.random.default_rng(seed + 1).standard_normal((n, sizes[0])).astype(np.float32)
        before = traits.copy()
        found = gate(traits)
        assert found.shape == (n, n_experts)
        assert found.dtype == np.float32
        for row, logs in zip(traits.tolist(), found, strict=True):
            np.testing.assert_allclose(logs, reference(gate, row), atol=1e-4)
        np.testing.assert_array_equal(traits, before)


class TestArrays:
    def test_they_are_named_by_layer(self) -> None:
        gate = made([4, 3, 2], 5, 0)
        arrays = gate.arrays()
        assert sorted(arrays) == sorted(NAMES)
        np.testing.assert_array_equal(arrays["gate.1.weight"], gate.layers[1][0])
        np.testing.assert_array_equal(arrays["gate.2.bias"], gate.layers[2][1])
        np.testing.assert_array_equal(arrays["gate.straight.bias"], gate.straight[1])

    @pytest.mark.parametrize("sizes", [(4,), (4, 3), (4, 3, 2)])
    def test_a_gate_comes_back_from_its_arrays_in_any_order_among_others(self, sizes: Sequence[int]) -> None:
        gate = made(sizes, 5, 0)
        arrays = {"discriminant.weight": floats([1]), **dict(sorted(gate.arrays().items(), reverse=True))}
        again = gate_from(arrays)
        assert len(again.layers) == len(sizes)
        traits = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
        np.testing.assert_array_equal(again(traits), gate(traits))

    @pytest.mark.parametrize("missing", NAMES)
    def test_a_missing_array_is_an_error(self, missing: str) -> None:
        arrays = made([4, 3, 2], 5, 0).arrays()
        del arrays[missing]
        with pytest.raises(KeyError):
            gate_from(arrays)

    def test_without_any_there_is_no_gate(self) -> None:
        with pytest.raises(KeyError):
            gate_from({})
