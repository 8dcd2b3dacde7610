"""The gating network: its losses against slow references, its noise, and what it learns."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from experts.routing.base import Floats, Places
from experts.routing.gate_training import HIDDEN, GateNetwork, balance_loss, train_gate
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import unit

DIMENSION = 12


def clusters(sizes: tuple[int, ...], *, seed: int = 0) -> tuple[Floats, Places]:
    """Traits around one axis per expert, so many for each, and their experts."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return unit(np.eye(DIMENSION)[owner] + 0.15 * random.standard_normal((len(owner), DIMENSION))), owner


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

    def test_a_single_expert_is_never_out_of_balance(self) -> None:
        assert float(balance_loss(torch.tensor([[2.0], [-1.0]]), 2)) == 0

    def test_it_can_be_descended(self) -> None:
        logits = torch.tensor([[1.0, 0.5, 0.2], [0.9, 0.1, 0.3]], requires_grad=True)
        before = balance_loss(logits, 2)
        before.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert float(balance_loss(logits.detach() - 0.1 * logits.grad, 2)) < float(before.detach())


class TestNetwork:
    def test_it_narrows_from_the_traits_to_the_experts_with_a_straight_path_beside_it(self) -> None:
        network = GateNetwork(1536, 8)
        sizes = [(layer.in_features, layer.out_features) for layer in network.body if isinstance(layer, nn.Linear)]
        assert sizes == [(1536, 256), (256, 128), (128, 8)]
        assert (network.straight.in_features, network.straight.out_features) == (1536, 8)
        assert HIDDEN == (256, 128)

    def test_without_noise_it_is_the_sum_of_both_paths(self) -> None:
        torch.manual_seed(0)
        network, x = GateNetwork(DIMENSION, 3).eval(), torch.randn(4, DIMENSION)
        torch.testing.assert_close(network(x), network.body(x) + network.straight(x))

    def test_noise_is_added_in_training_only(self) -> None:
        torch.manual_seed(0)
        network, x = GateNetwork(DIMENSION, 3), torch.ones(2, DIMENSION)
        network.eval()
        assert torch.equal(network(x), network(x))
        network.train()
        network.body.eval()  # without dropout only the noise is left
        assert not torch.equal(network(x), network(x))

    def test_how_much_noise_is_learned_from_the_traits(self) -> None:
        """Its standard deviation is softplus(noise - 3); with 4,000 draws it is known to a few hundredths."""
        torch.manual_seed(0)
        network = GateNetwork(DIMENSION, 2)
        network.body.eval()
        nn.init.zeros_(network.noise.weight)
        network.noise.bias.data = torch.tensor([3.0, 5.0])
        x = torch.ones(4_000, DIMENSION)
        with torch.no_grad():
            deviation = (network(x) - network.body(x) - network.straight(x)).std(dim=0)
        torch.testing.assert_close(deviation, F.softplus(torch.tensor([0.0, 2.0])), rtol=0.05, atol=0)


class TestTrainGate:
    def test_it_learns_whose_a_text_is_however_few_an_expert_has(self) -> None:
        traits, owner = clusters((60, 60, 4))
        gate = train_gate(traits, owner, 3, top_k=2, seed=0)
        unseen, truth = clusters((20, 20, 20), seed=1)
        chosen = gate(unseen).argmax(axis=1)
        assert [float((chosen[truth == expert] == expert).mean()) for expert in range(3)] == pytest.approx(
            [1, 1, 1], abs=0.1
        )

    def test_its_tensors_are_32_bit_and_of_the_networks_shape(self) -> None:
        traits, owner = clusters((3, 3))
        gate = train_gate(traits, owner, 2, top_k=2, seed=0)
        assert {name: array.shape for name, array in gate.arrays().items()} == {
            "gate.0.weight": (256, DIMENSION),
            "gate.0.bias": (256,),
            "gate.1.weight": (128, 256),
            "gate.1.bias": (128,),
            "gate.2.weight": (2, 128),
            "gate.2.bias": (2,),
            "gate.straight.weight": (2, DIMENSION),
            "gate.straight.bias": (2,),
        }
        assert {array.dtype for array in gate.arrays().values()} == {np.dtype(np.float32)}

    def test_one_seed_gives_one_gate_and_another_seed_another(self) -> None:
        traits, owner = clusters((10, 10))
        torch.manual_seed(123)  # whatever was drawn before does not matter
        first = train_gate(traits, owner, 2, top_k=1, seed=7).arrays()
        again = train_gate(traits, owner, 2, top_k=1, seed=7).arrays()
        other = train_gate(traits, owner, 2, top_k=1, seed=8).arrays()
        for name, array in first.items():
            np.testing.assert_array_equal(array, again[name])
            assert not np.array_equal(array, other[name]), name

    def test_both_paths_learn(self) -> None:
        """Either alone would do on traits as plain as these, but neither is left as it was drawn."""
        traits, owner = clusters((30, 30))
        gate = train_gate(traits, owner, 2, top_k=2, seed=0)
        straight = traits @ gate.straight[0].T
        assert (straight.argmax(axis=1) == owner).mean() > 0.9
        deep = gate(traits) - 5 * straight - gate.straight[1]
        assert (deep.argmax(axis=1) == owner).mean() > 0.9

    def test_exemplars_count_by_the_root_of_how_few_an_expert_has(self) -> None:
        """Of texts that nothing tells apart one in seventeen is the second expert's, which comes to about one in five.

        Not to a twelfth, as the smoothed labels alone would say, nor to a half, as where every expert counts alike.
        """
        traits = np.tile(unit([[1] * DIMENSION]), (340, 1))
        gate = train_gate(traits, np.repeat([0, 1], [320, 20]), 2, top_k=2, seed=0)
        assert 0.15 < float(np.exp(gate(traits[:1]))[0, 1]) < 0.35

    def test_it_runs_on_traits_of_the_size_it_was_trained_on(self) -> None:
        """Smoothed labels ask for 0.975 of two experts, and that is what it comes near to."""
        traits, owner = clusters((100, 100))
        found = np.exp(train_gate(traits, owner, 2, top_k=2, seed=0)(traits))
        assert float(found.max(axis=1).mean()) == pytest.approx(0.975, abs=0.015)

    def test_a_gate_for_one_expert_is_certain_of_it(self) -> None:
        traits, owner = clusters((5,))
        np.testing.assert_array_equal(train_gate(traits, owner, 1, top_k=2, seed=0)(traits), 0)

    def test_it_leaves_traits_and_owners_as_they_were(self) -> None:
        traits, owner = clusters((5, 5))
        kept, owned = traits.copy(), owner[::-1].copy()
        train_gate(traits[::-1], owned, 2, top_k=2, seed=0)
        np.testing.assert_array_equal(traits, kept)
        np.testing.assert_array_equal(owned, owner[::-1])

    def test_an_expert_that_a_fold_left_without_exemplars_is_never_the_first_choice(self) -> None:
        traits, owner = clusters((20, 20))
        gate = train_gate(traits, owner, 3, top_k=2, seed=0)
        unseen, truth = clusters((10, 10), seed=1)
        found = gate(unseen)
        assert np.isfinite(found).all()
        assert found.argmax(axis=1).tolist() == truth.tolist()
