"""How often a model's greedy answer is exactly the right one."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import MistralForCausalLM, PreTrainedTokenizerFast

from experts.pretraining.items import Item

MAX_ANSWER_TOKENS = 96


def exact_match(
    model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, items: Sequence[Item], batch: int = 64
) -> float:
    """The share of ``items`` that are answered letter by letter as they should be; surrounding space is ignored."""
    answers = answer(model, tokenizer, [item.prompt for item in items], batch)
    right = [given.strip() == item.answer.strip() for given, item in zip(answers, items, strict=True)]
    return sum(right) / len(right)


def answer(
    model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], batch: int = 64
) -> list[str]:
    """Greedy answers to single questions, in their order; prompts are padded on the left, in batches by length."""
    texts = [_rendered(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    answers = [""] * len(texts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        for index, text in zip(chosen, _generate(model, tokenizer, [texts[i] for i in chosen]), strict=True):
            answers[index] = text
    return answers


def _rendered(tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    chat = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))


def _generate(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[str]:
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False, return_token_type_ids=False)
    untyped: Any = model  # the declared type of ``generate`` does not know the model's own class
    with torch.inference_mode():
        outputs: Any = untyped.generate(**inputs, do_sample=False, max_new_tokens=MAX_ANSWER_TOKENS)
    new = outputs[:, inputs["input_ids"].shape[1] :]
    decoded: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
    return decoded
