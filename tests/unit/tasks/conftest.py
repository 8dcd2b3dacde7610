"""Tasks run in this process: on a real database and a real Redis, without a worker."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from experts import kinds
from storage import runs
from storage.database import transact
from storage.hints import Hint
from storage.runs import RunView
from storage.submitting import AcceptedLine, RunOptions, submit
from tasks import aggregate, answer, finalize, models, plan, route, sweep, train
from tests.doubles.engines import ENGINES
from tests.doubles.routers import ROUTERS
from tests.support.experts import serve
from tests.support.servers import Backends
from tests.tiny_base import save_tiny_base
from tests.unit.storage.builders import Store
from tests.unit.worker.waiting import disconnect
from worker import runtime as runtimes
from worker.runtime import Runtime, make_runtime
from worker.settings import load

TASKS = (aggregate, answer, finalize, plan, route, sweep, train)


class Dispatcher:
    """Keeps what would be sent. That messages are made of it is tested with the dispatcher itself."""

    def __init__(self) -> None:
        self.sent: list[Hint] = []

    def send(self, hints: Iterable[Hint]) -> int:
        before = len(self.sent)
        self.sent += hints
        return len(self.sent) - before


@dataclass(frozen=True)
class Bench:
    """One process's runtime, with what tests ask of it."""

    runtime: Runtime
    store: Store
    dispatcher: Dispatcher

    def run(self, task: str, *args: Any) -> Any:
        """The task as a worker would run it; what it raises comes out."""
        done: Any = self.runtime.app.tasks[task].apply(args=args, throw=True)
        return done.get(disable_sync_subtasks=False)

    def submit(self, texts: list[str], **options: Any) -> RunView:
        lines = [AcceptedLine(n + 1, f"q{n}", text) for n, text in enumerate(texts)]
        taken = transact(self.runtime.engine, lambda c: submit(c, RunOptions(**{"top_k": 1, **options}), lines))
        return self.view(taken.id)

    def view(self, run: int | RunView) -> RunView:
        key = run if isinstance(run, int) else run.id
        return transact(self.runtime.engine, lambda c: runs.view(c, key))

    def planned(self, texts: list[str], **options: Any) -> RunView:
        run = self.submit(texts, **options)
        self.run("plan_run", run.id)
        return self.view(run)

    def routed(self, texts: list[str], **options: Any) -> RunView:
        run = self.planned(texts, **options)
        for shard in self.shards(run, "queued"):
            self.run("route_shard", shard)
        return self.view(run)

    def answered(self, texts: list[str], **options: Any) -> RunView:
        run = self.routed(texts, **options)
        for chunk in self.chunks(run, "queued"):
            self.run("answer_chunk", chunk)
        return self.view(run)

    def combined(self, texts: list[str], **options: Any) -> RunView:
        run = self.answered(texts, **options)
        for shard in self.shards(run, "answering"):
            self.run("aggregate_shard", [], shard)
        return self.view(run)

    def finalized(self, texts: list[str], **options: Any) -> RunView:
        run = self.combined(texts, **options)
        self.run("finalize_run", run.id)
        return self.view(run)

    def shards(self, run: RunView, state: str | None = None) -> list[int]:
        return self.store.values(
            "SELECT id FROM shard WHERE run_id = :run AND state = coalesce(:state, state) ORDER BY id",
            run=run.id,
            state=state,
        )

    def chunks(self, run: RunView, state: str | None = None) -> list[int]:
        return self.store.values(
            "SELECT id FROM chunk WHERE run_id = :run AND state = coalesce(:state, state) ORDER BY id",
            run=run.id,
            state=state,
        )

    def outcomes(self, run: RunView) -> dict[str, tuple[bool, str | None]]:
        """custom_id -> (whether it went well, the error's code)."""
        rows = self.store.rows(
            "SELECT q.custom_id, o.ok, o.error_code FROM outcome o JOIN query q ON q.run_id = o.run_id"
            " AND q.idx = o.idx WHERE o.run_id = :run ORDER BY q.idx",
            run=run.id,
        )
        return {custom_id: (ok, code) for custom_id, ok, code in rows}

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of the tables that runs and jobs write, to tell whether anything changed."""
        tables = ("run", "query", "shard", "decision", "chunk", "answer", "outcome", "job", "job_event")
        return {table: self.store.rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables}

    def serve(self, engine: str = "echo", kind: str = "heuristic") -> None:
        home = self.runtime.settings.home
        transact(self.runtime.engine, lambda c: serve(c, home, engine=engine, kind=kind))


@pytest.fixture
def bench(workdir: Path, backends: Backends, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A process of every role, with nothing loaded and nothing served yet."""
    for registry, doubles in ((kinds.ENGINES, ENGINES), (kinds.ROUTERS, ROUTERS)):
        for name, place in doubles.items():
            monkeypatch.setitem(registry, name, place)
    settings = load(
        home=workdir / "home",
        database_url=backends.database_url,
        redis_url=backends.redis_url,
        encoder={"name": "hashing"},
        routing={"kind": "heuristic"},
        pipeline={"shard_size_min": 8, "shard_size_max": 8, "back_off_seconds": 0.001},
    )
    made = make_runtime(settings)
    dispatcher = Dispatcher()
    held = Runtime(settings, made.engine, made.store, made.app, dispatcher, made.redis_url)  # type: ignore[arg-type]
    monkeypatch.setattr(runtimes, "_of_process", {os.getpid(): held})
    # What a process keeps loaded is known by numbers that every fresh database counts from one.
    monkeypatch.setattr(route, "_routers", models.Resident(2))
    monkeypatch.setattr(answer, "_engines", models.Resident(4))
    monkeypatch.setattr(answer, "_knowledge", models.Resident(8))
    yield Bench(held, Store(made.engine), dispatcher)
    made.close()
    disconnect(made.app)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny base; what a process loaded of it stays loaded."""
    return str(save_tiny_base(tmp_path_factory.mktemp("base") / "tiny"))
