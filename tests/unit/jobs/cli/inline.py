"""Workers in place of messages: what a message asks for is done at once, by the tasks themselves, in this process."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from storage.hints import Hint, JobHint, PlanHint, RouteHint
from tasks import models, plan, route, train
from worker import names
from worker import runtime as runtimes
from worker.dispatch import Dispatcher
from worker.runtime import make_runtime
from worker.settings import load

TASKS = (plan, route, train)


@contextmanager
def inline_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Router and training workers with the settings of the environment."""
    made = make_runtime(load())

    def send(self: Dispatcher, hints: Iterable[Hint]) -> int:
        done = 0
        for hint in hints:
            match hint:
                case PlanHint(key):
                    task = names.PLAN_RUN
                case RouteHint(key):
                    task = names.ROUTE_SHARD
                case JobHint(key):
                    task = names.TRAIN
                case _:
                    continue
            made.app.tasks[task].apply(args=[key], throw=True).get(disable_sync_subtasks=False)
            done += 1
        return done

    monkeypatch.setattr(Dispatcher, "send", send)
    monkeypatch.setattr(runtimes, "_of_process", {os.getpid(): made})
    monkeypatch.setattr(route, "_routers", models.Resident(2))
    yield
    made.close()
