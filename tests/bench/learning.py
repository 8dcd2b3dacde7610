"""What the bundled experts learn: right answers on questions kept apart, of the base and of the trained expert.

    python -m tests.bench.learning [--seeds 5] [--threads 1] [--json FILE]

Each expert of experts/learned is trained anew with each seed, as ``moe experts create`` does it, and asked its test
questions; so is the base. The base's hash is compared before and after.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from experts.adapters.data import Example, read_examples, split
from experts.adapters.evaluation import compare, evaluate
from experts.adapters.spec import suggested
from experts.adapters.training import train_adapter
from experts.language.base import Base, BaseSpec, load_base, weights_sha256
from experts.language.generating import generate

LEARNED = Path(__file__).parent.parent.parent / "experts" / "learned"
_TOKENS = 48


def trial(base: Base, train: list[Example], test: list[Example], seed: int) -> dict[str, Any]:
    """One training of one expert, measured on ``test``."""
    learn, validate = split(train, 0.1, seed)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        spec = replace(suggested(base.num_parameters), seed=seed, patience=4)
        trained = train_adapter(base, learn, validate, spec, folder=Path(folder))
    cpu_seconds = time.process_time() - started
    ours = evaluate(lambda asked: generate(base, trained.weights, asked, _TOKENS), test)
    plain = evaluate(lambda asked: generate(base, None, asked, _TOKENS), test)
    difference = compare(ours, plain).exact
    return {
        "seed": seed,
        "exact_match": round(ours.exact, 4),
        "base_exact_match": round(plain.exact, 4),
        "ci": [round(difference.low, 4), round(difference.high, 4)],
        "cpu_seconds": round(cpu_seconds, 1),
        "steps": trained.steps,
    }


def measured(base: Base, seeds: int) -> dict[str, Any]:
    """Every expert with every seed."""
    found: dict[str, Any] = {}
    before = weights_sha256(base.model)
    for folder in sorted(path for path in LEARNED.iterdir() if (path / "train.jsonl").is_file()):
        train, test = (read_examples(folder / name).examples for name in ("train.jsonl", "test.jsonl"))
        trials = [trial(base, train, test, seed) for seed in range(seeds)]
        exact = [one["exact_match"] for one in trials]
        found[folder.name] = {
            "test": len(test),
            "base": round(mean(one["base_exact_match"] for one in trials), 4),
            "expert": round(mean(exact), 4),
            "least": min(exact),
            "most": max(exact),
            "cpu_seconds": round(mean(one["cpu_seconds"] for one in trials), 1),
            "trials": trials,
        }
        print(
            {key: value for key, value in found[folder.name].items() if key != "trials"} | {"expert_name": folder.name}
        )
    return {"experts": found, "base_unchanged": weights_sha256(base.model) == before}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--base", default="bundled")
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    found = measured(load_base(BaseSpec(given.base, "float32", threads=given.threads)), given.seeds)
    print(f"base unchanged: {found['base_unchanged']}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
