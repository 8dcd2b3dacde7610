"""Attention over rows of different lengths without padding: all tokens of a step lie flat, keys and values in lanes.

A step holds one new token of each running row, then the whole prompts of the rows that join. Linear layers see only
real tokens; only attention, which is the small part, is padded. Keys and values of a row stay in its lane of one
preallocated block, so nothing is copied from step to step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

# The name under which models find this attention, and the argument that carries a `Step` to it.
NAME = "lanes"
STEP = "lanes_step"
# Lanes are divided into units; neighbours are looked at together unless that adds so many places to look at that a few
# more operations are quicker (measured on a CPU; an accelerator has more time for places and less for operations).
_UNIT = 16
_SPARED = {"cpu": 600}
_SPARED_ELSE = 20_000


class Lanes:
    """Keys and values of ``lanes`` rows of at most ``length`` tokens: float[layers, lanes, heads, length, d]."""

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


class Block(NamedTuple):
    """Neighbouring lanes ``low`` to ``high`` that are looked at together, each up to ``longest`` tokens."""

    low: int
    high: int
    longest: int


@dataclass(slots=True)
class Running:
    """One new token of each running row. ``lanes`` and ``positions`` int64[n]; ``lengths`` int64[used] is what a lane
    holds, its new token included; ``blocks`` are the lanes that hold any, in order."""

    lanes: Tensor
    positions: Tensor
    lengths: Tensor
    blocks: Sequence[Block]
    in_order: bool  # the rows are exactly lanes 0, 1, 2, …
    masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)

    def mask(self, block: Block, window: int | None, like: Tensor) -> Tensor:
        """float[lanes, 1, 1, longest]: 0 where a lane's new token may look, minus infinity elsewhere."""
        key = (block.low, window)
        if key not in self.masks:
            places = torch.arange(block.longest, device=like.device)
            ends = self.lengths[block.low : block.high, None]
            hidden = places >= ends
            if window is not None:
                hidden = hidden | (places < ends - window)
            mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
            self.masks[key] = mask.masked_fill_(hidden, -torch.inf)[:, None, None, :]
        return self.masks[key]


@dataclass(slots=True)
class Joining:
    """Whole prompts of rows that join, n tokens. ``gather`` int64[rows, longest] are places among these tokens (0 where
    padded), ``kept`` int64[n] the places of real tokens in it; ``lanes`` and ``positions`` int64[n] are theirs."""

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


def running(lanes: Sequence[int], lengths: Sequence[int], device: torch.device) -> Running:
    """The rows in ``lanes``, each of so many tokens with its new one, and the lanes divided where that saves work."""
    held = [0] * (max(lanes) + 1)
    for lane, length in zip(lanes, lengths, strict=True):
        held[lane] = length
    places, ends = torch.tensor(lanes, device=device), torch.tensor(held, device=device)
    in_order = list(lanes) == list(range(len(held)))
    return Running(places, ends[places] - 1, ends, _blocks(held, _SPARED.get(device.type, _SPARED_ELSE)), in_order)


def _blocks(lengths: Sequence[int], spared: int) -> list[Block]:
    """Units of lanes, joined with their neighbours while that costs less than ``spared`` places more to look at."""
    blocks: list[Block] = []
    for low in range(0, len(lengths), _UNIT):
        high = min(low + _UNIT, len(lengths))
        longest = max(lengths[low:high])
        if longest and blocks and blocks[-1].high == low:
            last = blocks[-1]
            both = Block(last.low, high, max(last.longest, longest))
            more = _places(both) - _places(last) - (high - low) * longest
            if more < spared:
                blocks[-1] = both
                continue
        if longest:
            blocks.append(Block(low, high, longest))
    return blocks


def _places(block: Block) -> int:
    return (block.high - block.low) * block.longest


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
        grouped = grouped.new_zeros(len(rows.lengths), *grouped.shape[1:]).index_copy_(0, rows.lanes, grouped)
    found = torch.empty_like(grouped)
    for block in rows.blocks:
        place, length = slice(block.low, block.high), block.longest
        scores = torch.matmul(grouped[place], keys[place, :, :length].transpose(-1, -2))
        weights = scores.add_(rows.mask(block, window, q)).softmax(-1, dtype=torch.float32).to(q.dtype)
        found[place] = torch.matmul(weights, values[place, :, :length])
    found = found if rows.in_order else found[rows.lanes]
    return found.view(len(q), q.shape[1], -1)


def _attend_joining(rows: Joining, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
    """Padding stands behind the prompts, where a causal mask already keeps it from being seen."""
    query, key, value = (part[rows.gather].transpose(1, 2) for part in (q, k, v))  # [rows, heads, longest, d]
    longest = rows.gather.shape[1]
    mask = None
    if window is not None and longest > window:
        places = torch.arange(longest, device=q.device)
        ago = places[:, None] - places
        mask = (ago >= 0) & (ago < window)
    found = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
    )
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
