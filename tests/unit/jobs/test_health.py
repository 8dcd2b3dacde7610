"""What ``moe status`` shows while no worker runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import redis
from celery import Celery

from jobs.health import health, wait_for_workers
from jobs.submit import BatchOptions, submit_batch
from storage.database import connect
from tests.unit.jobs.lines import joined, short
from worker.app import create_app
from worker.runtime import Runtime

KEYS = {
    "database",
    "redis",
    "router",
    "experts",
    "open_runs",
    "queues",
    "workers",
    "processes",
    "flower",
    "warnings",
}
DOWN = ["runs do not go on until both servers are up; nothing is lost"]


def away(client: Runtime, address: str) -> Runtime:
    """The client with its Redis elsewhere."""
    app: Celery = create_app(client.settings, address)
    return replace(client, app=app, redis_url=address)


def test_queues_experts_and_missing_workers_are_told(client: Runtime, jobs_redis: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(jobs_redis) as server:
        server.flushdb()
    path = tmp_path / "batch.jsonl"
    path.write_bytes(joined(short("a"), short("b")))
    for _ in range(3):
        submit_batch(client, str(path), BatchOptions())
    found = health(client)
    assert set(found) == KEYS
    assert (found["database"], found["redis"], found["open_runs"]) == ("up", "up", 3)
    assert found["router"].startswith("heuristic ")
    assert found["experts"] == ["alpha", "beta", "gamma"]
    assert (found["workers"], found["processes"], found["flower"]) == ({}, {}, None)
    queues = {queue["queue"]: (queue["messages"], queue["waiting"]) for queue in found["queues"]}
    assert set(queues) == {
        f"{name}{lane}"
        for name in ("control", "routing", "expert.alpha", "expert.beta", "expert.gamma")
        for lane in ("", ".interactive")
    } | {"training"}
    assert queues.pop("control") == (3, 0)
    assert set(queues.values()) == {(0, 0)}
    assert found["warnings"] == [
        "no control worker replies; start one with `moe worker control`",
        "no router worker replies; start one with `moe worker router`",
        "no training worker replies; start one with `moe worker training`",
        "no worker serves alpha; 0 queries wait for it",
        "no worker serves beta; 0 queries wait for it",
        "no worker serves gamma; 0 queries wait for it",
    ]


def test_without_experts_the_next_step_is_told(bare_client: Runtime) -> None:
    found = health(bare_client)
    assert (found["router"], found["experts"]) == (None, [])
    assert found["warnings"][-1] == "no router is live; load experts with `moe experts load DIR`"


def test_redis_away_is_told_and_the_rest_is_shown(client: Runtime) -> None:
    found = health(away(client, "redis://127.0.0.1:1/0"))
    assert found["redis"].startswith("down (")
    assert (found["database"], found["experts"], found["workers"]) == ("up", ["alpha", "beta", "gamma"], {})
    assert found["warnings"] == DOWN


def test_the_database_away_is_told_and_the_rest_is_shown(client: Runtime) -> None:
    engine = connect("postgresql://nobody@127.0.0.1:1/moe")
    found = health(replace(client, engine=engine))
    engine.dispose()
    assert found["database"].startswith("down (the database cannot be reached: ")
    assert (found["redis"], found["router"], found["experts"]) == ("up", None, [])
    assert found["warnings"] == DOWN


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:1", "redis://127.0.0.1:notaport/0"])
def test_an_address_that_is_none_is_told(client: Runtime, address: str) -> None:
    found = health(replace(client, redis_url=address))
    assert found["redis"].startswith("down (")
    assert found["database"] == "up"


def test_waiting_for_nobody_is_done_at_once(client: Runtime) -> None:
    assert wait_for_workers(client, [], timeout_s=0) is True


def test_workers_that_do_not_reply_in_time_are_told(client: Runtime) -> None:
    assert wait_for_workers(client, ["control"], timeout_s=0) is False
