"""Small adapters with random numbers, and rows of random tokens."""

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from experts.language.adapting import AdapterWeights, make_weights
from experts.serving.adapters import AdapterLayers
from experts.serving.generation import Row
from experts.serving.residency import Residency, ResidencySpec

QKV = ("q_proj", "k_proj", "v_proj")
ALL = (*QKV, "o_proj", "gate_proj", "up_proj", "down_proj")


def adapter(
    model: Any, seed: int, *, rank: int = 4, targets: Sequence[str] = QKV, scaling: float = 2.0
) -> AdapterWeights:
    """Random numbers large enough to change what the model says."""
    chance = torch.Generator().manual_seed(seed)
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in model.named_modules():
        if name.rpartition(".")[2] in targets:
            a = torch.randn(rank, layer.in_features, generator=chance) * 0.3
            layers[name] = (a, torch.randn(layer.out_features, rank, generator=chance) * 0.3)
    return make_weights(layers, scaling)


def residency(model: Any, adapters: Mapping[Hashable, AdapterWeights], spec: ResidencySpec | None = None) -> Residency:
    """Adapters that are read from ``adapters``."""
    return Residency(AdapterLayers(model), adapters.__getitem__, spec or ResidencySpec(adapters=len(adapters)))


def rows(n: int, adapters: Sequence[Hashable | None] = (None,), *, longest: int = 40, max_tokens: int = 8) -> list[Row]:
    """Prompts of 1 to ``longest`` tokens, adapters in turn."""
    chance = random.Random(n)
    return [
        Row(
            [chance.randrange(5, 261) for _ in range(chance.randint(1, longest))],
            max_tokens,
            adapters[at % len(adapters)],
        )
        for at in range(n)
    ]
