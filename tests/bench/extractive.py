"""The real engine end to end, against a bare loop that does nothing but embed, route, search and extract.

    python -m tests.bench.extractive [--lines 5400] [--dtype auto|float32|bfloat16] [--json FILE]

Both run the shipped questions (repeated with different beginnings) through the same encoder, router and engine, each on
one thread. The bare loop has every text at once and sorts all of them by length, stores nothing and is one process.
Compared is how many lines each answers per second, and per second of processor time.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from experts.encoders.base import EncoderSpec, load_encoder
from experts.engines.base import EngineBatch, EngineQuery, EngineSpec, make_engine
from experts.knowledge import KnowledgeBase
from experts.routing.decide import Policy, decide
from experts.routing.router import load_router
from jobs import ask, catalogue
from jobs.demo import expectations
from jobs.follow import wait_until_ended
from jobs.submit import BatchOptions, submit_batch
from jobs.training_jobs import wait_for_job
from storage import catalogue as stored
from storage import versions
from storage.database import transact
from tests.bench.cluster import cluster, cpu_seconds
from worker.runtime import Runtime

OPENINGS = ("", "Please tell me: ", "I would like to know this. ", "A question: ", "Quick one - ", "For a friend: ")


def questions(n: int) -> list[str]:
    """``n`` questions, no two the same while the openings last."""
    shipped = [expected.text for expected in expectations().values()]
    return [OPENINGS[at // len(shipped) % len(OPENINGS)] + shipped[at % len(shipped)] for at in range(n)]


class BareLoop:
    """Embed, route, search, extract: in this process, in perfect batches, storing nothing."""

    def __init__(self, client: Runtime) -> None:
        self._encoder = load_encoder(EncoderSpec(dtype=client.settings.encoder.dtype, threads=1))
        live = transact(client.engine, versions.live_router)
        assert live is not None
        self._router = load_router(client.store.fetch_tree(live.artefact, live.artefact_sha256))
        self._bases = {
            e.name: KnowledgeBase.load(client.store.fetch_tree(e.artefact, e.artefact_sha256 or ""), self._encoder.name)
            for e in transact(client.engine, stored.experts)
            if e.artefact
        }
        self._engine = make_engine("extractive", EngineSpec())

    def run(self, texts: list[str]) -> tuple[float, float]:
        """Answer everything; seconds and processor seconds it took."""
        started, used = time.perf_counter(), time.process_time()
        embedded = self._encoder.embed(texts)
        scores = self._router.score(texts, embedded)
        decisions = decide(self._router.experts, texts, scores, {}, Policy())
        vectors = embedded.vectors
        for name, base in self._bases.items():
            rows = np.array([row for row, d in enumerate(decisions) if name in dict(d.experts)], np.int64)
            self._engine.answer(EngineBatch(name, {}, [EngineQuery(texts[row]) for row in rows], vectors[rows], base))
        return time.perf_counter() - started, time.process_time() - used


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--lines", type=int, default=5400)
    arguments.add_argument("--dtype", default="auto")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--asks", type=int, default=100)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    texts = questions(given.lines)
    settings = {"MOE_ENCODER__THREADS": "1", "MOE_ENCODER__DTYPE": given.dtype, "OMP_NUM_THREADS": "1"}
    with cluster(**settings) as made:
        client = made.client()
        made.start("control", "router", "expert", "training", "beat")
        made.ready(client, 4)
        catalogue.load(client, catalogue.SHIPPED)
        wait_for_job(client, catalogue.refresh(client))
        os.killpg(made.processes["training"].pid, 9)
        made.processes.pop("training").wait()
        path = made.home / "batch.jsonl"
        path.write_text("".join(json.dumps({"id": f"q{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
        bare = BareLoop(client)
        taken: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
        spent: dict[str, float] = {}
        for _ in range(given.rounds + 1):  # in turns, so that a slow moment of the machine meets both
            pids = {name: process.pid for name, process in made.processes.items()}
            pids["postgres"], pids["redis"] = made.servers.postgres.pid() or 0, made.servers.redis.pid() or 0
            before, started = cpu_seconds(pids), time.perf_counter()
            run = submit_batch(client, str(path), BatchOptions())
            assert wait_until_ended(client, run.id).n_ok == len(texts)
            seconds = time.perf_counter() - started
            spent = {name: used - before[name] for name, used in cpu_seconds(pids).items()}
            taken["ours"].append((seconds, sum(spent.values())))
            taken["bare"].append(bare.run(texts))
        found: dict[str, Any] = {
            arm: {
                "lines_per_s": round(len(texts) / float(np.median([s for s, _ in runs[1:]])), 1),
                "lines_per_cpu_s": round(len(texts) / float(np.median([c for _, c in runs[1:]])), 1),
                "cores_used": round(float(np.median([c / s for s, c in runs[1:]])), 2),
            }
            for arm, runs in taken.items()  # the first of each warmed everything
        }
        found["ours"]["cpu_seconds"] = {name: round(used, 1) for name, used in spent.items()}
        for figure in ("lines_per_s", "lines_per_cpu_s"):
            found[f"ratio_{figure}"] = round(found["ours"][figure] / found["bare"][figure], 3)
        found["ask_ms"] = latency(client, texts[: given.asks])
        client.close()
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


def latency(client: Runtime, texts: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds of single questions on a warm stack: the whole, and the stages that are measured."""
    taken: dict[str, list[float]] = {"whole": [], "route": [], "answer": []}
    for text in texts:
        reply = ask.ask(client, text)
        taken["whole"].append(1000 * reply.seconds)
        for stage in ("route", "answer"):
            taken[stage].append(reply.line["moe"]["ms"][stage])
    taken["queues and storage"] = [
        whole - route - answer
        for whole, route, answer in zip(*(taken[s] for s in ("whole", "route", "answer")), strict=True)
    ]
    return {
        stage: {"median": round(float(np.median(ms)), 1), "p95": round(float(np.percentile(ms, 95)), 1)}
        for stage, ms in taken.items()
    }


if __name__ == "__main__":
    main()
