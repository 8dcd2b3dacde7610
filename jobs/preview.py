"""A dry run: where the lines would go, what is wrong with them, how long it would take. Nothing stays stored."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from jobs.errors import Failed
from jobs.follow import wait_until_ended
from jobs.submit import BatchOptions, submit_batch
from storage import rates, run_routing, runs
from storage.database import transact
from storage.runs import RunView
from worker.runtime import Runtime

_SHOWN_INVALID = 20


@dataclass(frozen=True, slots=True)
class _Spread:
    per_expert: dict[str, int]
    asked_per_expert: dict[str, int]
    outside: int
    invalid: list[dict[str, Any]]
    route_ms: float


def dry_run(runtime: Runtime, path: str, options: BatchOptions, *, timeout_s: float = 86_400) -> dict[str, Any]:
    """Route every line through the real routers, count, and take everything away again. Raises BadInput, Failed.

    The lines are in the database while they are routed, and are deleted before this returns; should this process be
    killed meanwhile, the sweeper deletes them.
    """
    started = time.monotonic()
    run = submit_batch(runtime, path, options)
    try:
        ended = wait_until_ended(runtime, run.id, timeout_s=timeout_s)
        spread = transact(runtime.engine, lambda c: _spread(c, ended))
        estimate = transact(runtime.engine, lambda c: _estimate(c, spread, ended.n_ok, runtime))
    except TimeoutError as error:
        raise Failed(str(error)) from None
    finally:
        transact(runtime.engine, lambda c: runs.remove(c, run.id))
    return {
        "lines_total": run.n_total,
        "lines_valid": run.n_total - run.n_rejected,
        "lines_invalid": run.n_rejected,
        "invalid": spread.invalid,
        "experts": [
            {"name": name, "lines": lines, "asked": spread.asked_per_expert.get(name, 0)}
            for name, lines in sorted(spread.per_expert.items(), key=lambda item: (-item[1], item[0]))
        ],
        "outside": spread.outside,
        "outside_share": round(spread.outside / max(ended.n_ok, 1), 4),
        "estimated_seconds": estimate,
        "measured_seconds": round(time.monotonic() - started, 2),
    }


def _spread(connection: Connection, run: RunView) -> _Spread:
    parts = run_routing.spread(connection, run.id)
    invalid = connection.execute(
        text(
            "SELECT q.line_no, o.error_code, o.error_message FROM outcome o"
            " JOIN query q ON q.run_id = o.run_id AND q.idx = o.idx"
            " WHERE o.run_id = :run ORDER BY o.idx LIMIT :n"
        ),
        {"run": run.id, "n": _SHOWN_INVALID},
    )
    route_ms = connection.execute(
        text("SELECT coalesce(sum(route_ms), 0) FROM shard WHERE run_id = :run"), {"run": run.id}
    ).scalar_one()
    return _Spread(
        {part.expert: part.first for part in parts if part.first},
        {part.expert: part.asked for part in parts},
        runs.outside(connection, run),
        [{"line": line, "code": code, "message": message} for line, code, message in invalid],
        float(route_ms),
    )


def _estimate(connection: Connection, spread: _Spread, n_lines: int, runtime: Runtime) -> dict[str, Any]:
    """Seconds per stage, from measured rates; null where nothing was measured yet. Stages overlap, so the slowest
    one decides."""
    workers = runtime.settings.concurrency
    known = rates.expert_rates(connection)
    unknown = sorted(name for name in spread.asked_per_expert if name not in known)
    combining = rates.combining_rate(connection)
    stages: dict[str, float | None] = {
        "route": spread.route_ms / 1000 / workers.router,
        "answer": None
        if unknown
        else sum(known[name].seconds_per_query * n for name, n in spread.asked_per_expert.items()) / workers.expert,
        "combine": None if combining is None else n_lines / combining / workers.control,
    }
    measured = [seconds for seconds in stages.values() if seconds is not None]
    total = max(measured) if len(measured) == len(stages) else None
    return {
        "total": None if total is None else round(total, 3),
        **{stage: None if seconds is None else round(seconds, 3) for stage, seconds in stages.items()},
        "not_measured": unknown,
    }
