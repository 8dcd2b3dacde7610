"""Attention over rows of different lengths without padding: all tokens of a step lie flat, keys and values in lanes.

A step holds one new token of each running row, then the whole prompts of the rows that join. Linear layers see only
real tokens; only attention, which is the small part, is padded. Keys and values of a row stay in its lane of one
preallocated block, so nothing is copied from step to step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# The name under which models find this attention, and the argument that carries a `Step` to it.
NAME = "lanes"
STEP = "lanes_step"


class Lanes:
    """Keys and values of at most ``lanes`` rows of at most ``length`` tokens: float[layers, lanes, heads, length, d]."""

    def __init__(self, config: Any, lanes: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        heads = config.num_key_value_heads
        dimension = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, lanes, heads, length, dimension)
        # Zeros, because what is masked out is still multiplied, and zero times a stray NaN is NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lanes, self.length = lanes, length

    def move(self, sources: Sequence[int], length: int) -> None:
        """Bring the rows of these lanes, each of at most ``length`` tokens, into the first lanes, in order."""
        for block in (self.keys, self.values):
            block[:, : len(sources), :, :length] = block[:, list(sources), :, :length]


@dataclass(slots=True)
class Running:
    """One new token of each running row. ``lanes`` and ``positions`` int64[n]; lanes 0 to ``used`` are looked at, each
    up to ``longest`` tokens; ``lengths`` int64[used] is what each of them holds, its new token included."""

    lanes: Tensor
    positions: Tensor
    lengths: Tensor
    used: int
    longest: int
    in_order: bool  # the rows are exactly lanes 0, 1, 2, …
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, like: Tensor) -> Tensor:
        """float[used, 1, 1, longest]: 0 where a lane's new token may look, minus infinity elsewhere."""
        if window not in self.masks:
            places = torch.arange(self.longest, device=like.device)
            ends = self.lengths[:, None]
            hidden = places >= ends
            if window is not None:
                hidden = hidden | (places < ends - window)
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            self.masks[window] = mask.masked_fill_(hidden, -torch.inf)[:, None, None, :]
        return self.masks[window]


@dataclass(slots=True)
class Joining:
    """Whole prompts of rows that join. ``gather`` int64[rows, longest] are places among the step's joining tokens (0
    where padded), ``kept`` int64[n] the places of real tokens in it; ``lanes`` and ``positions`` int64[n] are theirs."""

    gather: Tensor
    kept: Tensor
    lanes: Tensor
    positions: Tensor


@dataclass(slots=True)
class Step:
    """One forward pass: the tokens of ``running`` come first, those of ``joining`` behind them."""

    store: Lanes
    running: Running | None
    joining: Joining | None


def joining(lengths: Sequence[int], lanes: Sequence[int], device: torch.device) -> Joining:
    """How prompts of these lengths, each into its lane, lie one after the other."""
    sizes = torch.tensor(lengths)
    places = torch.arange(int(sizes.max()))
    real = places < sizes[:, None]
    starts = (sizes.cumsum(0) - sizes)[:, None]
    return Joining(
        gather=(starts + places).where(real, 0).to(device),
        kept=real.view(-1).nonzero().view(-1).to(device),
        lanes=torch.tensor(lanes).repeat_interleave(sizes).to(device),
        positions=places.expand(len(lengths), -1)[real].to(device),
    )


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: query float[1, heads, n, d], key and value float[1, kv_heads, n, d].

    Returns float[1, n, heads, d]. The step comes in ``others`` under STEP.
    """
    step: Step = others[STEP]
    layer: int = module.layer_idx  # type: ignore[assignment]
    keys, values = step.store.keys[layer], step.store.values[layer]
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # [n, heads, d]
    scale = scaling if scaling is not None else q.shape[-1] ** -0.5
    n = len(step.running.lanes) if step.running is not None else 0
    attended = []
    if step.running is not None:
        attended.append(_attend_running(step.running, keys, values, q[:n], k[:n], v[:n], scale, sliding_window))
    if step.joining is not None:
        places = (step.joining.lanes, slice(None), step.joining.positions)
        keys[places], values[places] = k[n:], v[n:]
        attended.append(_attend_joining(step.joining, q[n:], k[n:], v[n:], scale, sliding_window))
    return (attended[0] if len(attended) == 1 else torch.cat(attended))[None], None


def _attend_running(
    rows: Running, keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None
) -> Tensor:
    keys[rows.lanes, :, rows.positions] = k
    values[rows.lanes, :, rows.positions] = v
    # Query heads that share a key head are the rows of one product with it.
    grouped = (q * scale).reshape(len(q), k.shape[1], -1, q.shape[-1])
    if not rows.in_order:
        grouped = grouped.new_zeros(rows.used, *grouped.shape[1:]).index_copy_(0, rows.lanes, grouped)
    seen = keys[: rows.used, :, : rows.longest]
    scores = torch.matmul(grouped, seen.transpose(-1, -2)).add_(rows.mask(window, q))
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    found = torch.matmul(weights, values[: rows.used, :, : rows.longest])
    found = found if rows.in_order else found[rows.lanes]
    return found.view(len(q), q.shape[1], -1)


def _attend_joining(rows: Joining, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """Padding stands behind the prompts, where a causal mask already keeps it from being seen."""
    padded = [part[rows.gather].transpose(1, 2) for part in (q, k, v)]  # [rows, heads, longest, d]
    longest = rows.gather.shape[1]
    if window is not None and longest > window:
        places = torch.arange(longest, device=q.device)
        ago = places[:, None] - places
        found = scaled_dot_product_attention(
            *padded, attn_mask=(ago >= 0) & (ago < window), scale=scale, enable_gqa=True
        )
    else:
        found = scaled_dot_product_attention(*padded, is_causal=True, scale=scale, enable_gqa=True)
    return found.transpose(1, 2).reshape(-1, *q.shape[1:])[rows.kept]


class UsedBy:
    """While open, ``model`` attends by lanes; afterwards as before."""

    def __init__(self, model: Any) -> None:
        self._config = model.config
        self._before: str | None = None

    def __enter__(self) -> None:
        AttentionInterface.register(NAME, attend)
        self._before = self._config._attn_implementation
        self._config._attn_implementation = NAME

    def __exit__(self, *error: object) -> None:
        self._config._attn_implementation = self._before
