"""What the benchmarks of serving run on: models of given shapes with random weights, prompts of mixed lengths."""

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from transformers import MistralConfig, MistralForCausalLM

from experts.language.adapting import AdapterWeights, make_weights
from experts.serving.adapters import AdapterLayers, Group
from experts.serving.generation import Row
from tests.tiny_base import tiny_tokenizer

# Width, width inside, layers, heads, heads of keys, vocabulary.
SHAPES = {
    "tiny": (64, 128, 2, 4, 2, 1024),
    "small": (256, 768, 6, 8, 4, 1024),
    "7b": (4096, 14336, 32, 32, 8, 32768),
}
_CONTEXT = 4096


def make_model(shape: Sequence[int], dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """A frozen Mistral with random weights that never ends an answer by itself."""
    width, inside, layers, heads, key_heads, vocabulary = shape
    config = MistralConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inside,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=_CONTEXT,
        sliding_window=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = MistralForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model.requires_grad_(False).eval()


def make_tokenizer() -> Any:
    """Turns tokens into text, and knows no token that ends one."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    return tokenizer


def queries(n: int, adapters: int, new_tokens: int, *, longest: int = 160) -> list[Row]:
    """Prompts of 8 to ``longest`` random tokens, most of them about 40, in no order."""
    chance = random.Random(0)
    return [
        Row(
            [chance.randrange(300, 1024) for _ in range(min(longest, max(8, int(chance.lognormvariate(3.7, 0.6)))))],
            new_tokens,
            f"a{at % adapters}",
        )
        for at in chance.sample(range(n), n)
    ]


def weights_of(state: Mapping[str, torch.Tensor], scaling: float) -> AdapterWeights:
    """An adapter from the tensors PEFT names."""
    names = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in state}
    return make_weights(
        {
            name: (state[f"base_model.model.{name}.lora_A.weight"], state[f"base_model.model.{name}.lora_B.weight"])
            for name in names
        },
        scaling,
    )


class Loose:
    """Adapters that are all in memory already."""

    def __init__(self, layers: AdapterLayers) -> None:
        self._layers = layers

    def hold(self, adapter: Hashable) -> bool:
        return adapter in self._layers

    def release(self, adapter: Hashable) -> None:
        """They stay."""

    def use(self, groups: Sequence[Group], device: torch.device | str) -> None:
        self._layers.use(groups, device)

    def resident(self) -> Sequence[Hashable]:
        return ()
