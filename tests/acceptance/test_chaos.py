"""Things are killed, stopped, emptied and restarted in the middle of runs; nothing is lost and nothing doubled."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psutil
import pytest
import redis
from sqlalchemy import text

from storage import runs
from storage.database import transact
from storage.runs import RunView
from tests.acceptance.conftest import ROLES, StackMaker
from tests.acceptance.harness import Stack, count, errors, finish, outputs, submit, wait_for, write_batch
from tests.support.experts import NAMES
from tests.support.servers import Backends, open_folder, start_servers, stop_servers
from worker.app import PREFIX
from worker.runtime import Runtime

N = 240
TEXTS = [f"question {n} about {NAMES[n % 3]}" for n in range(N)]


def start_slow_run(stack: Stack, client: Runtime) -> RunView:
    """A run whose chunks take a while, with some of them already answered."""
    run = submit(client, write_batch(stack.home / "batch.jsonl", TEXTS), top_k=1)
    wait_for(lambda: answered(client) > 0, "a first answer")
    return run


def answered(client: Runtime) -> int:
    return count(client.engine, "SELECT count(*) FROM answer")


def leased(client: Runtime) -> int:
    return count(client.engine, "SELECT count(*) FROM chunk WHERE state = 'leased'")


def all_answered_once(client: Runtime, run: RunView) -> None:
    assert run.state == "completed"
    assert (run.n_ok, run.n_error) == (N, 0)
    assert {
        key: line["response"]["body"]["choices"][0]["message"]["content"] for key, line in outputs(client, run).items()
    } == {f"q{n}": text for n, text in enumerate(TEXTS)}


def test_a_killed_worker_child_loses_no_query(make_stack: StackMaker) -> None:
    """Its parent frees the work at once; the other tries go on."""
    stack = make_stack(engine="slow")
    stack.start(*ROLES)
    client = stack.client()
    run = start_slow_run(stack, client)
    for _ in range(3):
        wait_for(lambda: leased(client), "a chunk at work")
        stack.child("expert").kill()
        time.sleep(0.3)
    all_answered_once(client, finish(client, run))


@pytest.mark.parametrize("role", ["expert", "router", "control"])
def test_a_killed_worker_group_loses_no_query(make_stack: StackMaker, role: str) -> None:
    stack = make_stack(engine="slow")
    stack.start(*ROLES)
    client = stack.client()
    run = start_slow_run(stack, client)
    stack.kill(role)
    time.sleep(0.5)
    stack.start(role)
    all_answered_once(client, finish(client, run))


def test_a_worker_stopped_beyond_its_lease_cannot_write_when_it_wakes(make_stack: StackMaker) -> None:
    stack = make_stack(engine="slow")
    stack.start(*ROLES)
    client = stack.client()
    run = start_slow_run(stack, client)
    wait_for(lambda: leased(client), "a chunk at work")
    stack.signal("expert", signal.SIGSTOP)
    stack.start("expert:2")
    ended = finish(client, run)
    stack.signal("expert", signal.SIGCONT)
    zombie = "lease.lost"
    wait_for(lambda: zombie in (stack.home / "expert.log").read_text(), "the stopped worker to notice")
    all_answered_once(client, ended)
    with client.engine.connect() as connection:
        doubled = connection.execute(text("SELECT count(*) FROM chunk WHERE state = 'done' AND epoch > 1")).scalar_one()
    assert doubled >= 1


def test_a_poison_line_costs_only_itself(make_stack: StackMaker) -> None:
    """A chunk that kills its worker is halved until the one bad line is alone and gets its error line."""
    stack = make_stack(engine="poison")
    stack.start(*ROLES)
    client = stack.client()
    texts = [f"question {n} about alpha" for n in range(16)]
    texts[13] = "POISON about alpha"
    run = finish(client, submit(client, write_batch(stack.home / "b.jsonl", texts), top_k=1), timeout_s=90)
    assert (run.n_ok, run.n_error) == (15, 1)
    assert errors(client, run)["q13"]["error"]["code"] == "worker_killed"
    assert errors(client, run)["q13"]["moe"]["experts"][0]["name"] == "alpha"
    # Three tries for the whole chunk, one per half on the way down, three for the single query.
    assert count(client.engine, "SELECT sum(epoch) FROM chunk WHERE 13 = ANY(idxs)") <= 3 + 3 + 3


def test_a_line_that_kills_routers_costs_only_itself(make_stack: StackMaker) -> None:
    stack = make_stack(kind="poison")
    stack.start(*ROLES)
    client = stack.client()
    texts = [f"question {n} about alpha" for n in range(16)]
    texts[5] = "ROUTEKILL about alpha"
    run = finish(client, submit(client, write_batch(stack.home / "b.jsonl", texts), top_k=1), timeout_s=90)
    assert (run.n_ok, run.n_error) == (15, 1)
    assert errors(client, run)["q5"]["error"]["code"] == "worker_killed"


def test_lines_that_raise_fail_alone_and_kill_nobody(make_stack: StackMaker) -> None:
    stack = make_stack(engine="poison", kind="poison")
    stack.start(*ROLES)
    client = stack.client()
    texts = [f"question {n} about beta" for n in range(48)]
    texts[3], texts[40] = "BROKEN about beta", "ROUTEBREAK about beta"
    run = finish(client, submit(client, write_batch(stack.home / "b.jsonl", texts), top_k=1))
    failed = errors(client, run)
    assert {key: line["error"]["code"] for key, line in failed.items()} == {
        "q3": "engine_error",
        "q40": "routing_failed",
    }
    assert count(client.engine, "SELECT max(epoch) FROM chunk") == 1


def test_an_unusable_answer_becomes_an_error_or_is_cleaned(make_stack: StackMaker) -> None:
    stack = make_stack(engine="filthy")
    stack.start(*ROLES)
    client = stack.client()
    texts = [f"{word} about alpha" for word in ("NUL", "SURROGATE", "EMPTY", "HUGE", "plain")]
    run = finish(client, submit(client, write_batch(stack.home / "b.jsonl", texts), top_k=1))
    said = {k: line["response"]["body"]["choices"][0]["message"]["content"] for k, line in outputs(client, run).items()}
    assert said["q0"] == "beforeafter"
    assert said["q1"] == "lone  one"
    assert len(said["q3"]) == 100_000
    assert said["q4"] == "plain about alpha"
    assert errors(client, run)["q2"]["error"]["code"] == "bad_output"


def test_lost_and_doubled_messages_change_nothing(make_stack: StackMaker) -> None:
    stack = make_stack(engine="slow")
    stack.start("control", "router", "beat")  # nobody takes the experts' messages yet
    client = stack.client()
    run = submit(client, write_batch(stack.home / "batch.jsonl", TEXTS), top_k=1)
    with redis.Redis.from_url(stack.backends.redis_url) as broker:
        queues = [PREFIX + f"expert.{name}" for name in NAMES]
        wait_for(lambda: all(broker.llen(queue) > 1 for queue in queues), "messages for every expert")
        broker.delete(queues[0])  # lost
        copies = broker.lrange(queues[1], 0, -1)
        broker.rpush(queues[1], *copies, *copies)  # tripled
    stack.start("expert")
    all_answered_once(client, finish(client, run))
    assert count(client.engine, "SELECT count(*) FROM chunk WHERE state = 'done'") == count(
        client.engine, "SELECT count(*) FROM chunk"
    )


def test_foreign_messages_harm_nobody(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)
    client = stack.client()
    app = client.app
    app.send_task("answer_chunk", args=[999_999_999], queue="expert.alpha")
    app.send_task("answer_chunk", args=["not a number"], queue="expert.alpha")
    app.send_task("no_such_task", args=[1], queue="routing")
    app.send_task("route_shard", args=[{"a": "b"}], queue="routing")
    app.send_task("finalize_run", args=[-1], queue="control")
    app.send_task("plan_run", args=[], queue="control")
    with redis.Redis.from_url(stack.backends.redis_url) as broker:
        broker.lpush(PREFIX + "control", b"\x80\x04not json", b"{}", b"[]")
    run = finish(client, submit(client, write_batch(stack.home / "batch.jsonl", TEXTS), top_k=1))
    all_answered_once(client, run)


def test_an_expert_without_a_worker_keeps_its_lines_waiting_and_nobody_elses(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start("control", "router", "beat")
    stack.start("expert:2", experts=("alpha", "beta"))  # nobody for gamma
    client = stack.client()
    waiting = submit(
        client, write_batch(stack.home / "w.jsonl", [f"question {n} about gamma" for n in range(40)]), top_k=1
    )
    others = submit(
        client, write_batch(stack.home / "o.jsonl", [f"question {n} about beta" for n in range(40)]), top_k=1
    )
    assert finish(client, others).n_ok == 40
    assert transact(client.engine, lambda c: runs.view(c, waiting.id)).state == "in_progress"
    found = stack.moe_json("status")
    assert any("no worker serves gamma" in warning for warning in found["warnings"])
    stack.start("expert")
    assert finish(client, waiting).n_ok == 40


def test_a_deadline_turns_open_lines_into_error_lines(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start("control", "router", "beat")  # no expert worker: nothing can be answered
    client = stack.client()
    soon = datetime.now(UTC) + timedelta(seconds=2)
    run = submit(client, write_batch(stack.home / "b.jsonl", TEXTS), deadline=soon, top_k=1)
    ended = finish(client, run)
    assert (ended.state, ended.n_ok, ended.n_error) == ("expired", 0, N)
    assert {line["error"]["code"] for line in errors(client, ended).values()} == {"batch_expired"}


def test_cancel_in_mid_run_keeps_what_is_finished_and_closes_the_rest(make_stack: StackMaker) -> None:
    stack = make_stack(engine="slow")
    stack.start(*ROLES)
    client = stack.client()
    run = submit(client, write_batch(stack.home / "batch.jsonl", TEXTS * 6), top_k=1)
    wait_for(lambda: transact(client.engine, lambda c: runs.view(c, run.id)).n_ok > 0, "a first outcome")
    stack.moe("batch", "cancel", run.public_id)
    ended = finish(client, run)
    assert ended.state == "cancelled"
    assert 0 < ended.n_ok < 6 * N
    assert {line["error"]["code"] for line in errors(client, ended).values()} == {"batch_cancelled"}
    assert stack.moe("batch", "cancel", run.public_id).returncode == 0  # twice is once


FAULTS = [
    ("router", "shard.claimed"),
    ("router", "shard.routed"),
    ("router", "shard.settled"),
    ("expert", "chunk.claimed"),
    ("expert", "chunk.answered"),
    ("expert", "chunk.settled"),
    ("control", "combine.claimed"),
    ("control", "combine.settled"),
    ("control", "finalize.claimed"),
    ("control", "finalize.written"),
    ("control", "finalize.settled"),
]


def test_dying_at_any_named_point_loses_nothing(make_stack: StackMaker) -> None:
    """Every point of the way kills its process now and then; the run still ends right."""
    stack = make_stack()
    for role in ("control", "router", "expert"):
        points = ",".join(f"{point}=kill:0.15" for owner, point in FAULTS if owner == role)
        stack.start(role, MOE_FAULTS=points)
    stack.start("beat")
    client = stack.client()
    run = finish(client, submit(client, write_batch(stack.home / "batch.jsonl", TEXTS), top_k=1), timeout_s=120)
    assert run.state == "completed"
    killed = {key for key, line in errors(client, run).items() if line["error"]["code"] == "worker_killed"}
    assert len(killed) == run.n_error  # a query may be unlucky often enough to be given up, but never lost
    assert run.n_ok + run.n_error == N


def test_an_error_at_any_named_point_loses_nothing(make_stack: StackMaker) -> None:
    stack = make_stack()
    for role in ("control", "router", "expert"):
        points = ",".join(f"{point}=raise:0.2" for owner, point in FAULTS if owner == role)
        stack.start(role, MOE_FAULTS=points)
    stack.start("beat")
    client = stack.client()
    run = finish(client, submit(client, write_batch(stack.home / "batch.jsonl", TEXTS), top_k=1), timeout_s=120)
    assert run.n_ok + run.n_error == N


class TestServers:
    """These harm the servers themselves, so they have their own."""

    @pytest.fixture
    def own(self) -> Iterator[Backends]:
        with open_folder() as folder:
            servers = start_servers(folder)
            yield Backends(servers.postgres.start(), servers.redis.address(), servers)
            stop_servers(servers)

    def test_redis_killed_without_warning_and_emptied(self, make_stack: StackMaker, own: Backends) -> None:
        stack = make_stack(engine="slow", backends=own)
        stack.start(*ROLES)
        client = stack.client()
        run = start_slow_run(stack, client)
        pid = own.servers.redis.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        psutil.Process(pid).wait(10)
        for file in own.servers.redis.folder.glob("*appendonly*"):
            file.unlink()
        time.sleep(1)
        own.servers.redis.start()
        all_answered_once(client, finish(client, run, timeout_s=90))

    def test_postgres_restarted_in_the_middle(self, make_stack: StackMaker, own: Backends) -> None:
        stack = make_stack(engine="slow", backends=own)
        stack.start(*ROLES)
        client = stack.client()
        run = start_slow_run(stack, client)
        own.servers.postgres.stop(immediately=True)
        time.sleep(1)
        own.servers.postgres.start()
        all_answered_once(client, finish(client, run, timeout_s=90))

    def test_a_batch_is_taken_while_redis_is_away(self, make_stack: StackMaker, own: Backends) -> None:
        stack = make_stack(backends=own)
        client = stack.client()
        own.servers.redis.stop()
        run = submit(client, write_batch(stack.home / "batch.jsonl", TEXTS), top_k=1)
        own.servers.redis.start()
        stack.start(*ROLES)
        all_answered_once(client, finish(client, run))

    def test_redis_out_of_memory_costs_time_only(self, make_stack: StackMaker, own: Backends) -> None:
        stack = make_stack(backends=own, engine="slow")
        stack.start(*ROLES)
        client = stack.client()
        run = start_slow_run(stack, client)
        with redis.Redis.from_url(own.redis_url) as broker:
            broker.config_set("maxmemory", 1)
            time.sleep(2)
            broker.config_set("maxmemory", 0)
        all_answered_once(client, finish(client, run, timeout_s=90))
