"""The same on an accelerator: a base of seven thousand million random numbers, 16 adapters, tokens a second, memory.

Run through ``python -m tests.bench.serving --gpu``. Against the base alone in sorted batches by ``generate``, and
against vLLM, where it can be imported, with the same weights and adapters. ``--shape tiny --device cpu`` tries it out.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from experts.language.adapting import AdapterWeights, make_weights
from experts.serving.adapters import AdapterLayers
from experts.serving.generation import GenerationSpec, Generator, Row
from tests.bench.serving_models import SHAPES, Loose, make_model, make_tokenizer, queries
from tests.tiny_base import tiny_tokenizer

NEW_TOKENS = 64
RANK = 16
TARGETS = ("q_proj", "k_proj", "v_proj")
BATCHES = (32, 128)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second and the largest memory of each arm."""
    cuda = given.device.startswith("cuda")
    dtype = torch.bfloat16 if cuda else torch.float32
    model, tokenizer = make_model(SHAPES[given.shape], dtype, given.device), make_tokenizer()
    n = given.adapters[0] if len(given.adapters) == 1 else 16
    rows = queries(given.queries, n, NEW_TOKENS, longest=1024 if cuda else 160)
    bare = [Row(row.prompt, row.max_tokens) for row in rows]
    adapters = {f"a{at}": random_adapter(model, at) for at in range(n)}
    layers = AdapterLayers(model)
    for name, weights in adapters.items():
        layers.add(name, weights)
    generator = Generator(model, tokenizer, GenerationSpec(rows=256, tokens=131072, prompt_tokens=8192))
    arms: dict[str, Callable[[], Any]] = {
        "ours": lambda: generator.generate(rows, Loose(layers)),
        "base, our loop": lambda: generator.generate(bare),
        **{f"base, generate in {size}s": lambda size=size: plain(model, bare, size) for size in BATCHES},
    }
    generator.generate(rows[:8], Loose(layers))
    found: dict[str, Any] = {arm: one(work, len(rows), given.device) for arm, work in arms.items()}
    if importlib.util.find_spec("vllm") is not None:
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), model, adapters)
            layers.detach()
            del model, generator, layers, arms
            torch.cuda.empty_cache()
            found["vLLM"] = vllm(Path(folder), rows, n)
    return {"shape": given.shape, "queries": len(rows), "adapters": n, "arms": found}


def one(work: Callable[[], Any], n: int, device: str) -> dict[str, float]:
    """New tokens a second, and the most memory that was in use on the device."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if device.startswith("cuda") else 0
    return {"tokens_per_s": round(n * NEW_TOKENS / seconds, 1), "peak_gb": round(peak / 1e9, 2)}


def plain(model: Any, rows: Sequence[Row], size: int) -> None:
    """``generate`` over left-padded batches of rows sorted by length."""
    ordered = sorted(rows, key=lambda row: -len(row.prompt))
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        longest = len(part[0].prompt)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for at, row in enumerate(part):
            ids[at, longest - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[at, longest - len(row.prompt) :] = 1
        with torch.inference_mode():
            model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )


def random_adapter(model: Any, seed: int) -> AdapterWeights:
    """Rank 16 on queries, keys and values."""
    chance = torch.Generator().manual_seed(seed)
    layers = {
        name: (
            torch.randn(RANK, layer.in_features, generator=chance) / layer.in_features**0.5,
            torch.randn(layer.out_features, RANK, generator=chance) / RANK,
        )
        for name, layer in model.named_modules()
        if name.rpartition(".")[2] in TARGETS
    }
    return make_weights(layers, 2.0)


def save(folder: Path, model: Any, adapters: dict[str, AdapterWeights]) -> None:
    """The base and its adapters as PEFT stores them."""
    model.save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    for name, weights in adapters.items():
        (folder / name).mkdir()
        tensors = {
            f"base_model.model.{layer}.lora_{part}.weight": tensor
            for layer, pair in weights.layers.items()
            for part, tensor in zip("AB", pair, strict=True)
        }
        save_file(tensors, folder / name / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": list(TARGETS)}
        (folder / name / "adapter_config.json").write_text(json.dumps(config))


def vllm(folder: Path, rows: Sequence[Row], n: int) -> dict[str, float]:
    """vLLM on the same prompts, each under its adapter."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    engine = LLM(
        model=str(folder / "base"),
        skip_tokenizer_init=True,
        enable_lora=True,
        max_loras=n,
        max_lora_rank=RANK,
        dtype="bfloat16",
        max_model_len=2048,
    )
    prompts = [{"prompt_token_ids": list(row.prompt)} for row in rows]
    places = {f"a{at}": at + 1 for at in range(n)}
    requests = [LoRARequest(str(row.adapter), places[str(row.adapter)], str(folder / str(row.adapter))) for row in rows]
    greedy = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False)
    engine.generate(prompts[:8], greedy, lora_request=requests[:8], use_tqdm=False)
    free, total = torch.cuda.mem_get_info()  # vLLM works in a process of its own
    found = one(lambda: engine.generate(prompts, greedy, lora_request=requests, use_tqdm=False), len(rows), "cuda")
    return found | {"peak_gb": round((total - free) / 1e9, 2)}
