"""What one would write first: one Celery chord per query, each task storing its own row. The control arm.

The same servers, the same number of worker processes, the same tables and columns, JSON messages, late acknowledgement.
Nothing is leased, and nothing is recovered.
"""

import os
import time
from typing import Any

import psycopg
from celery import Celery, chord

from storage.lines import output_line
from tests.bench.cluster import Cluster

app = Celery("plain", broker=os.environ.get("MOE_REDIS_URL"), backend=os.environ.get("MOE_REDIS_URL"))
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, task_serializer="json", accept_content=["json"])
_connections: dict[int, psycopg.Connection[Any]] = {}

EXPERT = '[{"name": "expert_0", "version": 1, "weight": 1.0}]'


def connection() -> psycopg.Connection[Any]:
    if os.getpid() not in _connections:
        url = os.environ["MOE_DATABASE_URL"]
        _connections[os.getpid()] = psycopg.connect(url, autocommit=False)
    return _connections[os.getpid()]


@app.task
def route(run_id: int, idx: int) -> None:
    db = connection()
    with db.transaction():
        db.execute(
            "INSERT INTO decision (run_id, idx, router_version_id, experts, confidence, coverage, in_scope, reason,"
            " explanation) VALUES (%s, %s, 1, %s, 1, 1, true, 'because', '{}')",
            (run_id, idx, EXPERT),
        )
    chord([answer.s(run_id, idx)])(aggregate.s(run_id, idx))


@app.task
def answer(run_id: int, idx: int) -> int:
    db = connection()
    with db.transaction():
        (text,) = db.execute("SELECT text FROM query WHERE run_id = %s AND idx = %s", (run_id, idx)).fetchone() or ("",)
        db.execute(
            "INSERT INTO answer (run_id, idx, expert_id, chunk_id, epoch, text, answered, confidence, passages, ms)"
            " VALUES (%s, %s, 1, 1, 1, %s, true, 1, '[]', 0)",
            (run_id, idx, text),
        )
    return idx


@app.task
def aggregate(results: list[int], run_id: int, idx: int) -> None:
    db = connection()
    with db.transaction():
        row = db.execute(
            "SELECT q.custom_id, a.text FROM query q JOIN answer a USING (run_id, idx) WHERE run_id = %s AND idx = %s",
            (run_id, idx),
        ).fetchone()
        assert row is not None
        line = output_line(
            run="batch_plain", idx=idx, custom_id=row[0], created=0, model="moe/auto", text=row[1], passport={}
        )
        db.execute(
            "INSERT INTO outcome (run_id, idx, ok, line) VALUES (%s, %s, true, %s)",
            (run_id, idx, line),
        )
        db.execute("UPDATE run SET n_ok = n_ok + 1 WHERE id = %s", (run_id,))


def measure(made: Cluster, n: int) -> dict[str, Any]:
    """Send ``n`` queries through and wait for the last outcome."""
    os.environ.update(made.environment)
    app.conf.update(broker_url=made.environment["MOE_REDIS_URL"], result_backend=made.environment["MOE_REDIS_URL"])
    program = ["-m", "celery", "-A", "tests.bench.plain"]
    made.run("plain", [*program, "worker", "--concurrency", "4", "--loglevel", "warning"])
    with psycopg.connect(made.environment["MOE_DATABASE_URL"], autocommit=True) as db:
        while not app.control.inspect(timeout=1).ping():
            time.sleep(0.2)
        started = time.perf_counter()
        row = db.execute(
            "INSERT INTO run (public_id, kind, state, ending, generation, priority, top_k, strategy, n_total)"
            " VALUES ('batch_plain', 'batch', 'in_progress', 'completed', 1, 2, 1, 'weighted', %s) RETURNING id",
            (n,),
        ).fetchone()
        assert row is not None
        run_id = row[0]
        for idx in range(n):
            db.execute(
                "INSERT INTO query (run_id, idx, line_no, custom_id, text) VALUES (%s, %s, %s, %s, %s)",
                (run_id, idx, idx + 1, f"q{idx}", f"What would an expert say to question number {idx}?"),
            )
            route.delay(run_id, idx)
        while True:
            done = db.execute("SELECT n_ok FROM run WHERE id = %s", (run_id,)).fetchone()
            if done and done[0] == n:
                break
            time.sleep(0.02)
        seconds = time.perf_counter() - started
    return {"lines": n, "lines_per_s": round(n / seconds, 1)}
