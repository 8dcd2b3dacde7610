"""How fast is everything around an engine? Against a plain Celery program that stores the same, in one run.

python -m tests.bench.orchestration [--lines 100000] [--plain 2000] [--json FILE]
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from jobs.follow import wait_until_ended
from jobs.submit import BatchOptions, submit_batch
from tests.bench import plain
from tests.bench.cluster import Cluster, Memory, cluster, cpu_seconds, serve_echo
from worker.runtime import Runtime

WORKERS = ("control", "router", "expert")


def write_lines(path: Path, n: int) -> Path:
    """A batch of ``n`` short questions."""
    with path.open("w") as file:
        for number in range(n):
            file.write(f'{{"id": "q{number}", "text": "What would an expert say to question number {number}?"}}\n')
    return path


def measure(made: Cluster, client: Runtime, n: int) -> dict[str, Any]:
    """Submit ``n`` lines and wait; seconds, rates, peak memory and processor time per process."""
    path = write_lines(made.home / f"{n}.jsonl", n)
    pids = {name: process.pid for name, process in made.processes.items()}
    pids |= {"postgres": made.servers.postgres.pid() or 0, "redis": made.servers.redis.pid() or 0}
    before = cpu_seconds(pids)
    with Memory(pids) as memory:
        started = time.perf_counter()
        run = submit_batch(client, str(path), BatchOptions(top_k=1))
        submitted = time.perf_counter()
        ended = wait_until_ended(client, run.id, timeout_s=3600)
        done = time.perf_counter()
    after = cpu_seconds(pids)
    assert ended.n_ok == n, ended
    return {
        "lines": n,
        "submit_lines_per_s": round(n / (submitted - started)),
        "pipeline_lines_per_s": round(n / (done - submitted)),
        "end_to_end_lines_per_s": round(n / (done - started)),
        "peak_mib": {name: round(held) for name, held in sorted(memory.peak_mib.items())},
        "cpu_seconds": {name: round(after[name] - before[name], 1) for name in pids},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--lines", type=int, nargs="+", default=[10_000, 100_000])
    arguments.add_argument("--plain", type=int, default=2000)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    found: dict[str, Any] = {"ours": []}
    with cluster(MOE_ENCODER__NAME="hashing", MOE_ROUTING__KIND="random") as made:
        client = serve_echo(made)
        made.start(*WORKERS, "beat")
        made.ready(client, len(WORKERS))
        measure(made, client, 2000)  # warm
        for n in given.lines:
            found["ours"].append(measure(made, client, n))
            print(json.dumps(found["ours"][-1]))
        client.close()
    if given.plain:
        with cluster() as made:
            found["plain"] = plain.measure(made, given.plain)
            print(json.dumps(found["plain"]))
        best = max(row["end_to_end_lines_per_s"] for row in found["ours"] if row["lines"] >= 10_000)
        found["ratio"] = round(best / found["plain"]["lines_per_s"], 1)
        print(f"ratio to one chord per query: {found['ratio']}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
