"""A training worker that trains nothing: what it would leave behind, in the database and for those who wait."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from storage import catalogue, expert_versions, jobs
from storage.expert_versions import Adapter
from storage.hints import Hint, JobHint
from tests.support.experts import card
from tests.unit.storage.builders import Store, claim_job
from worker.dispatch import Dispatcher
from worker.runtime import Runtime

FIGURES: dict[str, Any] = {
    "n": 40,
    "exact_match": 0.75,
    "base_exact_match": 0.25,
    "token_f1": 0.875,
    "base_token_f1": 0.375,
    "ci": [0.35, 0.65],
    "p": 0.001,
    "base_unchanged": True,
}
MATRIX = {"beta": {"n": 10, "exact_match": 0.1, "base_exact_match": 0.2}}
# What a training comes to, as ``moe jobs`` and those who wait for it see it.
PASSED: dict[str, Any] = {
    "expert": "tax",
    "version": 1,
    "state": "live",
    "promoted": True,
    "reasons": ["better than the base"],
    "refresh_job": None,
    "metrics": FIGURES | {"matrix": MATRIX},
}
HELD_BACK = PASSED | {"state": "candidate", "promoted": False, "reasons": ["not better than the base", "F1 [0.1]"]}
MEASURED = {"expert": "tax", "version": 1} | FIGURES | {"wrong": [{"line": 7, "expected": "x [y]", "answer": "z"}]}


class Sent:
    """In place of the dispatcher: keeps what would be sent."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []

    def send(self, hints: Iterable[Hint]) -> int:
        self.hints += hints
        return 1


@dataclass
class Trainer:
    """Does jobs as soon as they are sent: ``results`` by kind; a text there is the error a job fails with.

    After a training that went live the router is taught the expert, in a job of its own, as the worker does it.
    """

    store: Store
    results: dict[str, Mapping[str, Any] | str] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)

    def send(self, hints: Iterable[Hint]) -> int:
        for hint in hints:
            assert isinstance(hint, JobHint)
            self.do(hint.job_id)
        return 1

    def do(self, job_id: int) -> None:
        job = claim_job(self.store, job_id)
        self.done.append(job_id)
        self.store(jobs.report, job_id, f"{job.kind} of job {job_id}")
        result = self.results[job.kind]
        if isinstance(result, str):
            self.store(jobs.fail, job, "training_failed", result)
            return
        if result.get("promoted"):
            refresh = self.store(jobs.add_refresh)
            self.do(refresh)
            result = {**result, "refresh_job": refresh}
        self.store(jobs.succeed, job, result)


@pytest.fixture
def trainer(client: Runtime, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Works at once, also for commands; indexes and router are brought in line whenever that is asked for."""
    made = Trainer(Store(client.engine), {"refresh": {"router_version": 7}})
    monkeypatch.setattr(Dispatcher, "send", lambda self, hints: made.send(hints))
    return made


def add_version(store: Store, name: str, *, live: bool = False, adapter: bool = True, **more: Any) -> int:
    """The next version of the expert, which need not be there yet; its number."""
    files = Adapter(f"adapters/{name}", "aa" * 32, "bb" * 32, "cc" * 32) if adapter else None
    expert_id = store(expert_versions.ensure_expert, name)
    given: dict[str, Any] = {"engine": "transformers", "card": card(name) | {"adapter": adapter}, "adapter": files}
    number = store(expert_versions.add_version, expert_id, **(given | more))
    if live:
        store(expert_versions.promote, name, number)
    return number


def write_examples(path: Path, n: int = 24, *, first: int = 0) -> str:
    """A file of ``n`` sound examples, the first about question ``first``; its path."""
    rows = [{"question": f"What is question {i}?", "answer": f"Answer {i}."} for i in range(first, first + n)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def live_number(store: Store, name: str) -> int:
    return store(catalogue.expert, name).version
