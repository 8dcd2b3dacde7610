"""Examples as token ids, and the order in which a training reads them, known in full before it begins."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experts.adapters.data import Example
from experts.language.generating import by_length
from experts.language.prompting import encode_prompt, encode_text

# The label that the loss passes over.
IGNORED = -100
# So many batches are sorted by length together: little padding, and still another mixture in every epoch.
_SORTED_BATCHES = 16


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as the model reads it: the first ``prompt`` of ``ids`` are given, the others are to be learned."""

    ids: list[int]
    prompt: int
    line: int


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int) -> tuple[list[Encoded], list[int]]:
    """The examples in tokens, and the lines of those with more than ``max_length``, which are left out.

    The answer ends with the end token, so that an expert learns to stop; a shortened one would teach a wrong ending.
    """
    encoded, too_long = [], []
    for example in examples:
        prompt = encode_prompt(tokenizer, example.prompt)
        ids = [*prompt, *encode_text(tokenizer, example.answer), tokenizer.eos_token_id]
        if len(ids) > max_length:
            too_long.append(example.line)
        else:
            encoded.append(Encoded(ids, len(prompt), example.line))
    return encoded, too_long


def training_batches(encoded: Sequence[Encoded], *, batch_size: int, epochs: float, seed: int) -> list[list[Encoded]]:
    """Every batch of a whole training in its order: the same for the same seed, whenever it is asked for again."""
    steps = max(1, math.ceil(epochs * math.ceil(len(encoded) / batch_size)))
    batches: list[list[Encoded]] = []
    epoch = 0
    while len(batches) < steps:
        batches += _epoch(encoded, batch_size, random.Random(f"{seed} {epoch}"))
        epoch += 1
    return batches[:steps]


def _epoch(encoded: Sequence[Encoded], batch_size: int, order: random.Random) -> list[list[Encoded]]:
    shuffled = order.sample(encoded, len(encoded))
    batches = []
    for start in range(0, len(shuffled), _SORTED_BATCHES * batch_size):
        batches += sorted_batches(shuffled[start : start + _SORTED_BATCHES * batch_size], batch_size)
    order.shuffle(batches)
    return batches


def sorted_batches(encoded: Sequence[Encoded], batch_size: int) -> list[list[Encoded]]:
    """All examples once, in batches of nearly the same length."""
    return [[encoded[place] for place in places] for places in by_length([len(e.ids) for e in encoded], batch_size)]


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes tensors of batches: ``input_ids``, ``attention_mask``, ``labels``, int64[n, longest], padded at the end."""

    pad: int

    def __call__(self, batches: Sequence[Sequence[Encoded]]) -> dict[str, torch.Tensor]:
        examples = [example for batch in batches for example in batch]
        longest = max(len(example.ids) for example in examples)
        ids = torch.full((len(examples), longest), self.pad)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            length = len(example.ids)
            ids[row, :length] = torch.tensor(example.ids)
            mask[row, :length] = 1
            labels[row, example.prompt : length] = ids[row, example.prompt : length]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
