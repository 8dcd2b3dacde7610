"""A LoRA adapter as plain numbers, and a base that answers with it: the slow reference for every faster way."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from experts.errors import ModelUnusable
from experts.language.base import tensors_sha256

Tensors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """What an adapter adds to each layer it changes: ``y + scaling * (x @ A.T) @ B.T`` (LoRA, Hu et al. 2021, eq. 3).

    ``layers`` maps a layer's full name in the base to A float32[r, inputs] and B float32[outputs, r]. ``sha256`` is of
    names, numbers and scaling.
    """

    layers: Tensors
    scaling: float
    sha256: str

    @property
    def rank(self) -> int:
        """r, the same in every layer."""
        return int(next(iter(self.layers.values()))[0].shape[0])

    @property
    def num_parameters(self) -> int:
        return sum(a.numel() + b.numel() for a, b in self.layers.values())


def make_weights(layers: Tensors, scaling: float) -> AdapterWeights:
    """The adapter of these numbers, in 32 bit on the CPU, with its hash."""
    plain = {name: (_plain(a), _plain(b)) for name, (a, b) in sorted(layers.items())}
    named = (
        (f"{name}.{part}", tensor) for name, pair in plain.items() for part, tensor in zip("AB", pair, strict=True)
    )
    digest = hashlib.sha256(f"{tensors_sha256(named)} {scaling!r}".encode()).hexdigest()
    return AdapterWeights(plain, scaling, digest)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous().clone()


@contextmanager
def applied(model: Any, adapter: AdapterWeights | None) -> Iterator[None]:
    """Inside, ``model`` computes with the adapter; after, as before. Its weights are never touched.

    Raises ModelUnusable for an adapter of layers the model has not.
    """
    handles = []
    try:
        for name, (a, b) in adapter.layers.items() if adapter else ():
            try:
                layer = model.get_submodule(name)
            except AttributeError as error:
                raise ModelUnusable(f"the adapter changes layer {name!r}, which the base has not") from error
            handles.append(layer.register_forward_hook(_hook(layer, a, b, adapter.scaling if adapter else 0.0)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: Any, a: torch.Tensor, b: torch.Tensor, scaling: float) -> Callable[..., torch.Tensor]:
    down, up = a.to(layer.weight.device), b.to(layer.weight.device)

    def add(_layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        change = inputs[0].to(torch.float32) @ down.T @ up.T * scaling
        return output + change.to(output.dtype)

    return add
