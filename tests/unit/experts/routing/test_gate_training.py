"""The gating network: its losses against slow references, its noise, and what it learns."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from experts.routing.base import Floats
from experts.routing.gate_training import HIDDEN, Gate, balance_loss, fit_temperature, train_gate
from experts.routing.neural import gate_probabilities
from tests.contracts.samples import LAW

DIMENSION = 12


def clusters(sizes: tuple[int, ...], *, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Unit vectors around one axis per expert, so many for each, and their experts."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    vectors = np.eye(DIMENSION)[owner] + 0.15 * random.standard_normal((len(owner), DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), owner


def reference_balance(logits: list[list[float]], k: int) -> float:
    """Shazeer et al. 2017, equations 5 to 7, one number after another."""
    n_experts = len(logits[0])
    importance = [0.0] * n_experts
    for row in logits:
        top = sorted(range(n_experts), key=lambda place: -row[place])[:k]
        total = sum(np.exp(row[place]) for place in top)
        for place in top:
            importance[place] += np.exp(row[place]) / total
    mean = sum(importance) / n_experts
    return float(sum((value - mean) ** 2 for value in importance) / n_experts / mean**2)


class TestBalanceLoss:
    @LAW
    @given(
        rows=st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4, unique=True), min_size=1, max_size=6),
        k=st.integers(1, 6),
    )
    def test_it_is_the_squared_coefficient_of_variation_of_the_importance(
        self, rows: list[list[float]], k: int
    ) -> None:
        found = float(balance_loss(torch.tensor(rows, dtype=torch.float64), k))
        assert found == pytest.approx(reference_balance(rows, k), rel=1e-6, abs=1e-6)

    def test_it_is_nought_where_every_expert_gets_the_same(self) -> None:
        assert float(balance_loss(10 * torch.eye(4), 1)) == pytest.approx(0, abs=1e-6)

    def test_it_is_largest_where_one_expert_gets_everything(self) -> None:
        logits = torch.tensor([[5.0, 0, 0, 0]] * 7)
        assert float(balance_loss(logits, 1)) == pytest.approx(3)

    def test_it_can_be_descended(self) -> None:
        logits = torch.tensor([[1.0, 0.5, 0.2], [0.9, 0.1, 0.3]], requires_grad=True)
        before = balance_loss(logits, 2)
        before.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert float(balance_loss(logits.detach() - 0.1 * logits.grad, 2)) < float(before.detach())


class TestGate:
    def test_it_narrows_from_the_embedding_to_the_experts(self) -> None:
        sizes = [(layer.in_features, layer.out_features) for layer in Gate(384, 8).body if isinstance(layer, nn.Linear)]
        assert sizes == [(384, 256), (256, 128), (128, 8)]
        assert HIDDEN == (256, 128)

    def test_noise_is_added_in_training_only(self) -> None:
        torch.manual_seed(0)
        gate, x = Gate(DIMENSION, 3), torch.ones(2, DIMENSION)
        gate.eval()
        assert torch.equal(gate(x), gate(x))
        gate.train()
        gate.body.eval()  # without dropout only the noise is left
        assert not torch.equal(gate(x), gate(x))


class TestTrainGate:
    def test_it_learns_whose_a_vector_is_however_few_an_expert_has(self) -> None:
        vectors, owner = clusters((60, 60, 4))
        layers = train_gate(vectors, owner, 3, top_k=2, seed=0)
        unseen, truth = clusters((20, 20, 20), seed=1)
        assert (gate_probabilities(layers, 1.0, unseen).argmax(axis=1) == truth).mean() >= 0.95

    def test_layers_are_32_bit_and_of_the_networks_shape(self) -> None:
        vectors, owner = clusters((3, 3))
        layers = train_gate(vectors, owner, 2, top_k=2, seed=0)
        assert [(w.shape, b.shape) for w, b in layers] == [
            ((256, DIMENSION), (256,)),
            ((128, 256), (128,)),
            ((2, 128), (2,)),
        ]
        assert {array.dtype for layer in layers for array in layer} == {np.dtype(np.float32)}

    def test_one_seed_gives_one_gate_and_another_seed_another(self) -> None:
        vectors, owner = clusters((10, 10))
        torch.manual_seed(123)  # whatever was drawn before does not matter
        first = train_gate(vectors, owner, 2, top_k=1, seed=7)
        again = train_gate(vectors, owner, 2, top_k=1, seed=7)
        other = train_gate(vectors, owner, 2, top_k=1, seed=8)
        for (weight, bias), (weight_again, bias_again) in zip(first, again, strict=True):
            np.testing.assert_array_equal(weight, weight_again)
            np.testing.assert_array_equal(bias, bias_again)
        assert not np.array_equal(first[0][0], other[0][0])

    def test_it_leaves_the_vectors_as_they_were(self) -> None:
        vectors, owner = clusters((5, 5))
        before = vectors.copy()
        train_gate(vectors[::-1], owner[::-1].copy(), 2, top_k=2, seed=0)
        np.testing.assert_array_equal(vectors, before)


def negative_log_likelihood(logits: Floats, owner: NDArray[np.int64], temperature: float) -> float:
    scaled = logits.astype(np.float64) / temperature
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(owner)), owner]))


class TestFitTemperature:
    @staticmethod
    def honest(n: int = 4000) -> tuple[Floats, NDArray[np.int64]]:
        """Logits that say exactly how likely each expert is: their temperature is 1."""
        random = np.random.default_rng(3)
        logits = (1.5 * random.standard_normal((n, 4))).astype(np.float32)
        gumbel = random.gumbel(size=logits.shape)
        return logits, (logits + gumbel).argmax(axis=1)

    @pytest.mark.parametrize("exaggeration", [0.25, 0.5, 1.0, 2.0, 4.0])
    def test_it_undoes_how_much_the_logits_exaggerate(self, exaggeration: float) -> None:
        logits, owner = self.honest()
        assert fit_temperature(logits * np.float32(exaggeration), owner) == pytest.approx(exaggeration, rel=0.1)

    def test_no_other_temperature_is_clearly_more_likely(self) -> None:
        logits, owner = self.honest(200)
        found = negative_log_likelihood(logits, owner, fit_temperature(logits, owner))
        tried = [negative_log_likelihood(logits, owner, temperature) for temperature in np.geomspace(0.05, 10, 2000)]
        assert found == pytest.approx(min(tried), abs=1e-3)

    @pytest.mark.parametrize(("sign", "expected"), [(1, 0.05), (-1, 10.0)])
    def test_it_stays_within_its_bounds_where_the_logits_are_always_right_or_wrong(
        self, sign: int, expected: float
    ) -> None:
        owner = np.array([0, 1, 2] * 5)
        logits = (sign * np.eye(3, dtype=np.float32))[owner]
        assert fit_temperature(logits, owner) == pytest.approx(expected)
