"""A tiny causal model with random weights and a tokenizer of single bytes, made in a moment."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

PAD, END, USER, SYSTEM, ASSISTANT = SPECIAL = ("<pad>", "<end>", "<user>", "<system>", "<assistant>")
TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<end>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def tiny_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token for each byte, after the five special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, SYSTEM, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> MistralForCausalLM:
    """About 50 000 random parameters."""
    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=5 + 256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        sliding_window=None,
        tie_word_embeddings=True,
        initializer_range=0.3,  # so that an adapter can move the answers of weights nobody trained
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return MistralForCausalLM(config).to(dtype).eval()


def save_tiny_base(
    folder: Path, *, seed: int = 0, template: str | None = TEMPLATE, dtype: torch.dtype = torch.float32
) -> Path:
    """The folder, filled with a whole base."""
    tiny_model(seed=seed, dtype=dtype).save_pretrained(folder)
    tiny_tokenizer(template).save_pretrained(folder)
    return folder
