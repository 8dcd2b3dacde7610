"""Waiting for a run, and telling how it goes."""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from storage import runs
from storage.database import transact
from storage.runs import RunView
from worker.runtime import Runtime


def summary(runtime: Runtime, run: RunView) -> dict[str, Any]:
    """A run as scripts see it."""
    return {
        "run": run.public_id,
        "name": run.name,
        "state": state_of(run),
        "lines_total": run.n_total,
        "completed": run.n_ok,
        "failed": run.n_error,
        "rejected": run.n_rejected,
        "lines_accounted": run.n_ok + run.n_error,
        "output_file": _file(runtime, run.output),
        "error_file": _file(runtime, run.errors),
        "generation": run.generation,
        "top_k": run.top_k,
        "strategy": run.strategy,
        "priority": run.priority,
        "deadline": _time(run.deadline),
        "created_at": _time(run.created_at),
        "started_at": _time(run.started_at),
        "finished_at": _time(run.finished_at),
    }


def state_of(run: RunView) -> str:
    """The run's state; a paused one says so."""
    return "paused" if run.paused and not run.ended else run.state


def _file(runtime: Runtime, stored: dict[str, Any] | None) -> str | None:
    return None if stored is None else runtime.store.locate(stored["path"])


def _time(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat()


def details(connection: Connection, run: RunView) -> dict[str, Any]:
    """How the lines spread over the experts, and how many no expert covers."""
    return {
        "experts": [
            {"name": n, "lines": lines, "mean_weight": round(w, 3)}
            for n, lines, w in runs.experts_used(connection, run)
        ],
        "outside": runs.outside(connection, run),
        "causes": [
            {
                "code": cause.code,
                "message": cause.message,
                "lines": cause.lines,
                "sample_lines": list(cause.sample_lines),
                "sample_ids": list(cause.sample_ids),
            }
            for cause in runs.causes(connection, run)
        ],
    }


def wait_until_ended(
    runtime: Runtime,
    run_id: int,
    *,
    on_change: Callable[[RunView], None] = lambda run: None,
    timeout_s: float | None = None,
    pause_s: float = 0.2,
) -> RunView:
    """The run once it has ended; ``on_change`` sees every new state of it. Raises TimeoutError."""
    give_up = None if timeout_s is None else time.monotonic() + timeout_s
    before = None
    while True:
        run = transact(runtime.engine, lambda c: runs.view(c, run_id))
        if run != before:
            on_change(run)
            before = run
        if run.ended:
            return run
        if give_up is not None and time.monotonic() > give_up:
            raise TimeoutError(f"run {run.public_id} did not end within {timeout_s:.0f} s; it is {state_of(run)}")
        time.sleep(pause_s)
