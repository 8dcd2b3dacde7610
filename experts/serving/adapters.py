"""Many LoRA adapters over one frozen base, each row of a batch under its own; the base's weights are never touched.

Hooks behind the base's linear layers add ``((x @ A^T) @ B^T) * scaling`` to the rows of each adapter (Hu et al., 2021,
"LoRA"). The tokens of one adapter stand together, so that a large group is one plain matrix product; many small groups
are padded to one size and multiplied as one batch (Chen et al., 2023, "Punica", do the same in one kernel).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from experts.errors import ModelUnusable

# Layers that read the same input, by the ends of their names: their A matrices are multiplied in one product.
_READ_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
# Up to this many groups a loop of plain products is as fast as a padded batch of them, measured on a CPU.
_LOOPED = 3
# A group of so many tokens is multiplied by itself whatever else is there: padding others to it would cost more. An
# accelerator has more time for padding and less for starting products.
_LARGE = {"cpu": 16}
_LARGE_ELSE = 128


class Weights(Protocol):
    """What is read of an adapter: per layer A float[r, d_in] and B float[d_out, r], and the factor of their product."""

    @property
    def layers(self) -> Mapping[str, tuple[Tensor, Tensor]]: ...

    @property
    def scaling(self) -> float: ...


class Group(NamedTuple):
    """Tokens ``start`` to ``stop`` of a flattened batch are under ``adapter``; others are the pure base's."""

    adapter: Hashable
    start: int
    stop: int


class _Part(NamedTuple):
    """What one layer takes of its site's product: columns ``low`` to ``high``, times ``b`` [r, d_out]."""

    low: int
    high: int
    b: Tensor


@dataclass(frozen=True, slots=True)
class _Fused:
    """One adapter at one site: ``a`` [d_in, R] for all its layers side by side, and each layer's part or None."""

    a: Tensor
    parts: Sequence[_Part | None]


@dataclass(frozen=True, slots=True)
class _Padded:
    """Small groups as one batch: ``tokens`` int64[g, m] (0 where padded), ``kept`` the places in it that are real."""

    adapters: tuple[Hashable, ...]
    tokens: Tensor
    kept: Tensor | None
    targets: Tensor


@dataclass(slots=True)
class _Plan:
    """How the tokens of one forward pass are divided."""

    looped: Sequence[Group] = ()
    padded: _Padded | None = None


@dataclass(slots=True)
class _Site:
    """Layers that read the same input."""

    layers: Sequence[nn.Linear]
    held: dict[Hashable, _Fused] = field(default_factory=dict)
    read: Tensor | None = None  # the input the products below are of
    looped: list[Tensor] = field(default_factory=list)
    padded: Tensor | None = None
    stacked_of: tuple[Hashable, ...] = ()
    stacked: tuple[Tensor, list[Tensor | None]] | None = None

    def forget(self) -> None:
        self.read, self.looped, self.padded = None, [], None

    def drop_stack(self) -> None:
        self.stacked_of, self.stacked = (), None


class AdapterLayers:
    """Adapters laid beside the linear layers of ``model``; ``use`` says which tokens are under which."""

    def __init__(self, model: nn.Module) -> None:
        self._linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        # What layers compute in that hold their weights as integers.
        self._dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        self._sites: dict[str, _Site] = {}
        self._names: dict[str, tuple[str, ...]] = {}  # of the layers of a site
        self._hooks: list[RemovableHandle] = []
        self._held: set[Hashable] = set()
        self._plan = _Plan()

    def __contains__(self, adapter: Hashable) -> bool:
        return adapter in self._held

    def size(self, weights: Weights) -> int:
        """The bytes an adapter takes beside this base. Raises ModelUnusable if a layer does not fit it."""
        for name, (a, b) in weights.layers.items():
            self._check(name, a, b)
        return sum((a.numel() + b.numel()) * self._precision(name).itemsize for name, (a, b) in weights.layers.items())

    def add(self, adapter: Hashable, weights: Weights) -> None:
        """Hold an adapter in the base's precision and on its device.

        Raises ModelUnusable, and holds nothing, if a layer does not exist in the base or has another shape.
        """
        if adapter in self._held:
            raise ValueError(f"adapter {adapter!r} is held already")
        self.size(weights)
        wanted = list(dict.fromkeys(_site_of(name) for name in weights.layers))
        for key in wanted:
            site = self._site(key)
            site.held[adapter] = self._fuse(self._names[key], weights)
        self._held.add(adapter)

    def remove(self, adapter: Hashable) -> None:
        """Let go of an adapter. Raises KeyError if it is not held."""
        self._held.remove(adapter)
        for site in self._sites.values():
            site.held.pop(adapter, None)
            if adapter in site.stacked_of:
                site.drop_stack()

    def use(self, groups: Sequence[Group], device: torch.device | str = "cpu") -> None:
        """Set what the next forward passes are under; no groups means the pure base. Groups must not overlap.

        ``start`` and ``stop`` count the tokens of the flattened input [rows * length]. Raises KeyError for an adapter
        that is not held.
        """
        for group in groups:
            if group.adapter not in self._held:
                raise KeyError(group.adapter)
        self._plan = _divide(groups, device)
        for site in self._sites.values():
            site.forget()

    def detach(self) -> None:
        """Take the hooks off; the model is as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._sites, self._names, self._held, self._plan = [], {}, {}, set(), _Plan()

    def _check(self, name: str, a: Tensor, b: Tensor) -> None:
        layer = self._linear.get(name)
        if layer is None:
            raise ModelUnusable(f"the adapter changes {name}, which the base has not or not as a linear layer")
        wanted = (layer.in_features, layer.out_features)
        if a.ndim != 2 or b.ndim != 2 or (a.shape[1], b.shape[0]) != wanted or a.shape[0] != b.shape[1]:
            raise ModelUnusable(
                f"the adapter's {name} is A {list(a.shape)}, B {list(b.shape)}; "
                f"the base's layer takes {wanted[0]} and gives {wanted[1]}"
            )

    def _precision(self, name: str) -> torch.dtype:
        weight = self._linear[name].weight
        return weight.dtype if weight.is_floating_point() else self._dtype

    def _site(self, key: str) -> _Site:
        if key not in self._sites:
            names = tuple(name for name in self._linear if _site_of(name) == key)
            site = self._sites[key] = _Site([self._linear[name] for name in names])
            self._names[key] = names
            for place, layer in enumerate(site.layers):
                self._hooks.append(layer.register_forward_hook(self._hook(site, place)))
        return self._sites[key]

    def _fuse(self, names: Sequence[str], weights: Weights) -> _Fused:
        matrices: list[Tensor] = []
        parts: list[_Part | None] = []
        low = 0
        for name in names:
            if name not in weights.layers:
                parts.append(None)
                continue
            a, b = weights.layers[name]
            device, dtype = self._linear[name].weight.device, self._precision(name)
            matrices.append(a.to(device, dtype))
            scaled = (b.to(device, torch.float32) * weights.scaling).to(dtype)
            parts.append(_Part(low, low + len(a), scaled.t().contiguous()))
            low += len(a)
        return _Fused(torch.cat(matrices).t().contiguous(), parts)

    def _hook(self, site: _Site, place: int) -> Any:
        def add_adapters(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            plan = self._plan
            if not plan.looped and plan.padded is None:
                return
            if site.read is not inputs[0]:
                _read(site, plan, inputs[0])
            flat = output.view(-1, output.shape[-1])
            for group, product in zip(plan.looped, site.looped, strict=True):
                fused = site.held.get(group.adapter)
                part = fused.parts[place] if fused is not None else None
                if part is not None:
                    flat[group.start : group.stop].addmm_(product[:, part.low : part.high], part.b)
            if plan.padded is not None and site.padded is not None:
                _add_padded(site, place, plan.padded, flat)

        return add_adapters


def _site_of(name: str) -> str:
    parent, _, last = name.rpartition(".")
    together = next((names for names in _READ_TOGETHER if last in names), (last,))
    return f"{parent}.{'+'.join(together)}"


def _divide(groups: Sequence[Group], device: torch.device | str) -> _Plan:
    groups = [group for group in groups if group.stop > group.start]
    most = _LARGE.get(torch.device(device).type, _LARGE_ELSE)
    small = [group for group in groups if group.stop - group.start < most]
    if len(small) <= _LOOPED:
        return _Plan(groups)
    large = [group for group in groups if group.stop - group.start >= most]
    return _Plan(large, _pad(small, device))


def _pad(groups: Sequence[Group], device: torch.device | str) -> _Padded:
    longest = max(group.stop - group.start for group in groups)
    starts = torch.tensor([group.start for group in groups])[:, None]
    stops = torch.tensor([group.stop for group in groups])[:, None]
    places = starts + torch.arange(longest)
    real = places < stops
    kept = None if bool(real.all()) else real.view(-1).nonzero().view(-1).to(device)
    tokens = places.where(real, 0)
    return _Padded(
        tuple(group.adapter for group in groups), tokens.to(device), kept, places.view(-1)[real.view(-1)].to(device)
    )


def _read(site: _Site, plan: _Plan, x: Tensor) -> None:
    """The products of the input with every A, once for all layers of the site."""
    site.read = x
    flat = x.reshape(-1, x.shape[-1])
    site.looped = []
    for group in plan.looped:
        fused = site.held.get(group.adapter)
        site.looped.append(flat[:0] if fused is None else flat[group.start : group.stop] @ fused.a)
    site.padded = None
    if plan.padded is not None:
        if site.stacked_of != plan.padded.adapters:
            site.stacked_of, site.stacked = plan.padded.adapters, _stack(site, plan.padded.adapters)
        if site.stacked is not None:
            site.padded = torch.bmm(flat[plan.padded.tokens], site.stacked[0])


def _stack(site: _Site, adapters: Sequence[Hashable]) -> tuple[Tensor, list[Tensor | None]] | None:
    """A [g, d_in, k*r] and, per layer, B [g, r, d_out], ranks padded with zeros to the largest; None for no adapter."""
    held = [site.held.get(adapter) for adapter in adapters]
    some = next((fused for fused in held if fused is not None), None)
    if some is None:
        return None
    rank = max(part.high - part.low for fused in held if fused for part in fused.parts if part)
    a = some.a.new_zeros(len(held), some.a.shape[0], rank * len(site.layers))
    bs: list[Tensor | None] = [None] * len(site.layers)
    for at, fused in enumerate(held):
        for place, part in enumerate(fused.parts if fused is not None else ()):
            if part is None:
                continue
            own = part.high - part.low
            a[at, :, place * rank : place * rank + own] = fused.a[:, part.low : part.high] if fused else 0
            stacked = bs[place]
            if stacked is None:
                stacked = bs[place] = part.b.new_zeros(len(held), rank, part.b.shape[1])
            stacked[at, :own] = part.b
    return a, bs


def _add_padded(site: _Site, place: int, padded: _Padded, flat: Tensor) -> None:
    assert site.stacked is not None
    assert site.padded is not None
    b = site.stacked[1][place]
    if b is None:
        return
    rank = b.shape[1]
    added = torch.bmm(site.padded[:, :, place * rank : (place + 1) * rank], b).view(-1, flat.shape[-1])
    flat.index_add_(0, padded.targets, added if padded.kept is None else added[padded.kept])
