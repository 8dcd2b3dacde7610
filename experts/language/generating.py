"""Answers of a base, with or without an adapter: simple and right, the reference for faster serving."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from transformers import GenerationConfig

from experts.language.adapting import AdapterWeights, applied
from experts.language.base import Base
from experts.language.prompting import Turn, encode_prompt


class Prompted(Protocol):
    """Something with a prompt: an example, a query."""

    @property
    def prompt(self) -> Sequence[Turn]: ...


def generate(
    base: Base, adapter: AdapterWeights | None, examples: Sequence[Prompted], max_new_tokens: int, batch_size: int = 32
) -> list[str]:
    """The answers, in order: greedy, up to the end token or ``max_new_tokens``.

    A prompt that leaves no room for the answer loses its beginning. Raises ModelUnusable as ``encode_prompt`` does.
    """
    room = max(1, _positions(base.model) - max_new_tokens)
    prompts = [encode_prompt(base.tokenizer, example.prompt)[-room:] for example in examples]
    answers = [""] * len(prompts)
    with applied(base.model, adapter), torch.inference_mode():
        for places in by_length([len(prompt) for prompt in prompts], batch_size):
            for place, text in zip(places, _batch(base, [prompts[p] for p in places], max_new_tokens), strict=True):
                answers[place] = text
    return answers


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Places in batches of nearly the same length, longest first, so that what would not fit fails at once."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, int64[n, longest], with padding before the prompts."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _batch(base: Base, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    inputs = left_padded(prompts, base.tokenizer.pad_token_id, base.device)
    written = base.model.generate(**inputs, generation_config=_greedy(base, max_new_tokens))
    new = written[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in base.tokenizer.batch_decode(new, skip_special_tokens=True)]


def _greedy(base: Base, max_new_tokens: int) -> GenerationConfig:
    """A configuration of its own: what a base's folder says about sampling is not asked."""
    own: Any = base.model.generation_config.eos_token_id
    ends = {base.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
    make: Any = GenerationConfig
    config: GenerationConfig = make(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=base.tokenizer.pad_token_id,
        eos_token_id=sorted(ends),
    )
    return config


def _positions(model: Any) -> int:
    """How many tokens the model can see at once."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048)
