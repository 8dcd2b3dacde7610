"""Serving many adapters on one base, against the ways one would try first and against the base without any.

    python -m tests.bench.serving [--queries 2048] [--adapters 8 32] [--rounds 1] [--json FILE]
    python -m tests.bench.serving --gpu [--shape 7b|tiny] [--device cuda] [--queries 512] [--adapters 16]

Every arm greedily makes 24 tokens for each query, on one thread, in one process, in turns. The limit is the base
without adapters on all queries sorted by length, by our own loop or by ``generate`` in batches of 32, whichever is
faster. One query at a time is measured on a sample and extrapolated. Ratios are rates against the limit.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict

from experts.serving.adapters import AdapterLayers
from experts.serving.generation import GenerationSpec, Generator, Row
from experts.serving.plan import plan_batches
from experts.serving.residency import Residency, ResidencySpec
from tests.bench import serving_gpu
from tests.bench.serving_models import SHAPES, Loose, make_model, make_tokenizer, queries, weights_of

NEW_TOKENS = 24
BATCH = 32
TARGETS = ["q_proj", "k_proj", "v_proj"]
RANK = 16


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds and processor seconds of ``work``."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}


def in_batches(model: Any, rows: Sequence[Row], size: int, **others: Callable[[Sequence[Row]], Any]) -> None:
    """``model.generate`` over left-padded batches of rows sorted by length; ``others`` give further arguments."""
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
                **{name: value(part) for name, value in others.items()},
            )


def one_at_a_time(peft_model: Any, rows: Sequence[Row]) -> None:
    for row in rows:
        peft_model.set_adapter(row.adapter)
        in_batches(peft_model, [row], 1)


def adapted(n: int, model: Any) -> Any:
    """A PEFT model with ``n`` random adapters; its base is ``model``."""
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, init_lora_weights=False)
    peft_model = get_peft_model(model, config, adapter_name="a0")
    for at in range(1, n):
        peft_model.add_adapter(f"a{at}", config)
    return peft_model.eval()


def pooled(n: int, given: argparse.Namespace) -> dict[str, Any]:
    """All arms over ``n`` adapters. PEFT's own model is a copy of the base, so that no arm runs through its layers."""
    rows = queries(given.queries, n, NEW_TOKENS)
    bare = [Row(row.prompt, row.max_tokens) for row in rows]
    model, tokenizer = make_model(SHAPES["small"]), make_tokenizer()
    peft_model = adapted(n, make_model(SHAPES["small"]))
    layers = AdapterLayers(model)
    held = Loose(layers)
    for at in range(n):
        layers.add(f"a{at}", weights_of(get_peft_model_state_dict(peft_model, adapter_name=f"a{at}"), 2.0))
    generator = Generator(model, tokenizer, GenerationSpec())
    sample = random.Random(1).sample(list(rows), min(given.sample, len(rows)))
    names = {"adapter_names": lambda part: [row.adapter for row in part]}
    arms: dict[str, tuple[Callable[[], Any], float]] = {
        "ours": (lambda: generator.generate(rows, held), 1),
        "base, our loop": (lambda: generator.generate(bare), 1),
        "base, generate in 32s": (lambda: in_batches(model, bare, BATCH), 1),
        "PEFT mixed, sorted in 32s": (lambda: in_batches(peft_model, rows, BATCH, **names), 1),
        "one at a time": (lambda: one_at_a_time(peft_model, sample), len(rows) / len(sample)),
    }
    in_batches(peft_model, rows[:BATCH], BATCH, **names)  # warms allocator and caches
    generator.generate(rows[: 2 * BATCH], held)
    taken: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for _ in range(given.rounds):
        for arm, (work, times) in arms.items():
            taken[arm].append({what: times * spent for what, spent in timed(work).items()})
    return _rates(taken, len(rows)) | {"adapters": n, "queries": len(rows), "sampled_one_at_a_time": len(sample)}


def _rates(taken: dict[str, list[dict[str, float]]], n: int) -> dict[str, Any]:
    """Queries a second per arm and processor second, and what each is of the limit."""
    rates = {
        measure: {arm: n / float(np.median([run[measure] for run in runs])) for arm, runs in taken.items()}
        for measure in ("seconds", "cpu_seconds")
    }
    found: dict[str, Any] = {}
    for measure, by_arm in rates.items():
        limit = max(by_arm["base, our loop"], by_arm["base, generate in 32s"])
        found[f"queries_per_{measure[:-1]}"] = {arm: round(rate, 2) for arm, rate in by_arm.items()}
        found[f"of_limit_by_{measure}"] = {arm: round(rate / limit, 3) for arm, rate in by_arm.items()}
        found[f"against_one_at_a_time_by_{measure}"] = round(by_arm["ours"] / by_arm["one at a time"], 2)
    return found


def many_registered(given: argparse.Namespace) -> list[dict[str, float]]:
    """What holding adapters costs as more are held: loading one more, and queries to eight of them."""
    model, tokenizer = make_model(SHAPES["small"]), make_tokenizer()
    layers = AdapterLayers(model)
    loose, generator = Loose(layers), Generator(model, tokenizer)
    rows = queries(min(given.queries, 256), 8, NEW_TOKENS)
    peft_model = adapted(1, make_model(SHAPES["small"]))
    weights = weights_of(get_peft_model_state_dict(peft_model, adapter_name="a0"), 2.0)
    found = []
    for n in (8, 32, 64, 128, 256):
        at = sum(f"a{place}" in layers for place in range(n))
        load = timed(lambda at=at, n=n: [layers.add(f"a{place}", weights) for place in range(at, n)])
        served = min((timed(lambda: generator.generate(rows, loose)) for _ in range(2)), key=lambda t: t["cpu_seconds"])
        found.append(
            {
                "adapters": n,
                "ms_per_load": round(1000 * load["cpu_seconds"] / (n - at), 3),
                "queries_per_cpu_second": round(len(rows) / served["cpu_seconds"], 1),
            }
        )
    return found


def loading(folder: Path) -> dict[str, Any]:
    """Milliseconds of a cold load from disk, of a hit, and of PEFT's own loading; and swaps that a plan avoids."""
    from safetensors.torch import load_file

    model = make_model(SHAPES["small"])
    peft_model = adapted(16, make_model(SHAPES["small"]))
    peft_model.save_pretrained(str(folder))
    residency = Residency(
        AdapterLayers(model),
        lambda name: weights_of(load_file(folder / str(name) / "adapter_model.safetensors"), 2.0),
        ResidencySpec(adapters=5),
    )

    def touch(name: str) -> float:
        started = time.perf_counter()
        assert residency.hold(name)
        residency.release(name)
        return 1000 * (time.perf_counter() - started)

    names = ["default" if name == "a0" and not (folder / "a0").exists() else name for name in peft_model.peft_config]
    cold = [touch(name) for name in names]
    hits = [touch(names[-1]) for _ in range(100)]
    other = PeftModel.from_pretrained(make_model(SHAPES["small"]), str(folder / names[0]), adapter_name="first")
    theirs = [timed(lambda n=n: other.load_adapter(str(folder / n), adapter_name=n))["seconds"] for n in names[1:]]
    chunks = random.Random(3).choices([f"a{at}" for at in range(16)], k=128)
    plan = plan_batches(chunks, [], 5, patience=32)
    return {
        "cold_load_ms": round(float(np.median(cold)), 2),
        "hit_ms": round(float(np.median(hits)), 4),
        "peft_load_ms": round(1000 * float(np.median(theirs)), 2),
        "chunks": len(chunks),
        "swaps": plan.swaps,
        "swaps_avoided": plan.swaps_avoided,
    }


def show(found: dict[str, Any]) -> None:
    """The same as a table."""
    for row in found["pooled"]:
        print(f"\n{row['queries']} queries over {row['adapters']} adapters, {NEW_TOKENS} new tokens")
        print(f"{'':28}{'queries/s':>12}{'of limit':>12}{'queries/cpu s':>16}{'of limit':>12}")
        for arm, rate in row["queries_per_second"].items():
            busy, ratios = row["queries_per_cpu_second"][arm], row["of_limit_by_cpu_seconds"][arm]
            print(f"{arm:28}{rate:12.1f}{row['of_limit_by_seconds'][arm]:12.3f}{busy:16.1f}{ratios:12.3f}")
        print(f"ours against one at a time: {row['against_one_at_a_time_by_cpu_seconds']} times")
    print("\nadapters held, ms to load one more, queries per processor second to eight of them")
    for row in found["registered"]:
        print(f"{row['adapters']:8}{row['ms_per_load']:12}{row['queries_per_cpu_second']:12}")
    print("\n" + json.dumps(found["loading"]))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--queries", type=int, default=2048)
    arguments.add_argument("--adapters", type=int, nargs="+", default=[8, 32])
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--sample", type=int, default=64)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--gpu", action="store_true")
    arguments.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    arguments.add_argument("--device", default="cuda")
    given = arguments.parse_args()
    if given.gpu:
        found: dict[str, Any] = serving_gpu.measure(given)
        print(json.dumps(found, indent=1))
    else:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            found = {
                "pooled": [pooled(n, given) for n in given.adapters],
                "registered": many_registered(given),
                "loading": loading(Path(folder)),
            }
        show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
