"""The numbers of an adapter under the names PEFT gives them in files."""

import re
from collections.abc import Mapping

import torch

from experts.errors import ModelUnusable
from experts.language.adapting import AdapterWeights, make_weights

WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<part>[AB])\.weight")


def layer_and_part(name: str) -> tuple[str, str]:
    """The layer in the base, and ``A`` or ``B``. Raises ModelUnusable for a name no plain LoRA adapter has."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ModelUnusable(f"{WEIGHTS} holds {name[:200]!r}, which a plain LoRA adapter has not")
    return found["layer"], found["part"]


def weights_of(tensors: Mapping[str, torch.Tensor], scaling: float) -> AdapterWeights:
    """The adapter these tensors are. Raises ModelUnusable for other names, and a layer with one half only."""
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        layer, part = layer_and_part(name)
        halves.setdefault(layer, {})[part] = tensor
    lonely = sorted(layer for layer, parts in halves.items() if len(parts) < 2)
    if lonely or not halves:
        raise ModelUnusable(f"{WEIGHTS} lacks a half of {lonely[0]!r}" if lonely else f"{WEIGHTS} holds no tensors")
    return make_weights({layer: (parts["A"], parts["B"]) for layer, parts in halves.items()}, scaling)


def tensors_of(weights: AdapterWeights) -> dict[str, torch.Tensor]:
    """The tensors of an adapter by the names they have in files."""
    return {
        f"base_model.model.{layer}.lora_{part}.weight": tensor
        for layer, pair in weights.layers.items()
        for part, tensor in zip("AB", pair, strict=True)
    }
