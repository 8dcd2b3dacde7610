"""What runs and what waits, from the database, Redis and the workers themselves."""

import time
from collections.abc import Sequence
from typing import Any

import redis
from sqlalchemy import Connection, text

from storage import catalogue, invariants, runs, versions
from storage.database import transact
from storage.errors import StorageError
from worker import names
from worker.addresses import read_note
from worker.app import PREFIX
from worker.embedded import stack
from worker.roles import ROLES, expert_queues
from worker.runtime import Runtime

_REPLY_S = 1.0


# Twelve sweeps by default.
_OVERDUE_S = 60.0


def health(runtime: Runtime) -> dict[str, Any]:
    """Everything ``moe status`` shows. Never raises for a part that is away; it says so instead."""
    noted = stack.running(runtime.settings)
    found: dict[str, Any] = {
        "database": "up",
        "redis": "up",
        "router": None,
        "experts": [],
        "open_runs": 0,
        "queues": [],
        "workers": {},
        "processes": stack.processes(noted) if noted else {},
        "flower": {"url": noted["flower"]["url"], "user": noted["flower"]["user"]} if noted else None,
        "warnings": [],
    }
    try:
        waiting = transact(runtime.engine, lambda c: _from_database(c, found), patience_s=3)
    except StorageError as error:
        found["database"], waiting = f"down ({error})", {}
    queues = [queue for role in ROLES.values() for queue in role.queues] + expert_queues(found["experts"])
    lengths = _lengths(runtime, queues, found)
    found["queues"] = [
        {"queue": queue, "messages": lengths.get(queue, 0), "waiting": waiting.get(queue, 0)}
        for queue in sorted(queues)
    ]
    if noted is None and read_note(runtime.settings):
        found["warnings"].append(
            "the stack's supervisor died, so nothing that dies is started again; `moe up` mends it"
        )
    if found["redis"] == "up":
        found["workers"] = _workers(runtime)
    found["warnings"] += _warnings(found, waiting)
    return found


def _from_database(connection: Connection, found: dict[str, Any]) -> dict[str, int]:
    router = versions.live_router(connection)
    found["router"] = None if router is None else f"{router.kind} {router.id}"
    found["experts"] = catalogue.names(connection, serving=True)
    found["open_runs"] = runs.open_runs(connection)
    overdue = invariants.overdue_leases(connection, older_than_s=_OVERDUE_S)
    if overdue:
        found["warnings"].append(
            f"{overdue} leases ran out and nobody took them back; do beat and a control worker run?"
        )
    rows = connection.execute(
        text(
            "SELECT e.name, sum(cardinality(c.idxs)) FROM chunk c JOIN expert e ON e.id = c.expert_id"
            " WHERE c.state = 'queued' GROUP BY e.name"
        )
    )
    return {names.expert_queue(name): int(n) for name, n in rows}


def _lengths(runtime: Runtime, queues: list[str], found: dict[str, Any]) -> dict[str, int]:
    try:
        with redis.Redis.from_url(runtime.redis_url, socket_timeout=3) as client:
            pipe = client.pipeline(transaction=False)
            for queue in queues:
                pipe.llen(PREFIX + queue)
            return dict(zip(queues, map(int, pipe.execute()), strict=True))
    except (redis.RedisError, ValueError) as error:
        found["redis"] = f"down ({error})"
        return {}


def wait_for_workers(runtime: Runtime, roles: Sequence[str], *, timeout_s: float = 60) -> bool:
    """Wait until a worker of every one of these roles replies; False when one does not in time."""
    deadline = time.monotonic() + timeout_s
    missing = set(roles)
    while missing and time.monotonic() < deadline:
        replies = runtime.app.control.inspect(timeout=0.5).ping() or {}
        missing -= {worker.split("@")[0].split("-")[0] for worker in replies}
    return not missing


def _workers(runtime: Runtime) -> dict[str, list[str]]:
    """worker -> the queues it consumes, of those that reply within a second."""
    replies = runtime.app.control.inspect(timeout=_REPLY_S).active_queues() or {}
    return {worker: sorted(queue["name"] for queue in queues) for worker, queues in sorted(replies.items())}


def _warnings(found: dict[str, Any], waiting: dict[str, int]) -> list[str]:
    if found["redis"] != "up" or found["database"] != "up":
        return ["runs do not go on until both servers are up; nothing is lost"]
    consumed = {queue for queues in found["workers"].values() for queue in queues}
    warnings = [
        f"the {role.name} worker runs but does not reply yet"
        if found["processes"].get(role.name)
        else f"no {role.name} worker replies; start one with `moe worker {role.name}`"
        for role in ROLES.values()
        if role.queues and not consumed.intersection(role.queues)
    ]
    for expert in found["experts"]:
        queue = names.expert_queue(expert)
        if queue not in consumed:
            warnings.append(f"no worker serves {expert}; {waiting.get(queue, 0):,} queries wait for it")
    if found["router"] is None:
        warnings.append("no router is live; load experts with `moe experts load DIR`")
    return warnings
