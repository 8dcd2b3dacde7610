import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from celery import Celery, _state

from storage.hints import (
    AnswerHint,
    ChordHint,
    CombineHint,
    FinalizeHint,
    Hint,
    JobHint,
    PlanHint,
    RouteHint,
)
from worker.app import PREFIX, create_app
from worker.dispatch import Dispatcher
from worker.embedded.servers import free_port
from worker.settings import Settings


@pytest.fixture(autouse=True)
def in_a_workers_child() -> Iterator[None]:
    """Where all hints but a submitted run's are sent from; Celery knows by this flag that it waits for no result."""
    _state._set_task_join_will_block(True)
    yield
    _state._set_task_join_will_block(False)


@dataclass(frozen=True)
class Sent:
    """A message as it lies in Redis."""

    queue: str
    task: str
    args: list[Any]
    ignore_result: bool
    chord: dict[str, Any] | None


def sent(redis_url: str) -> list[Sent]:
    """Every message in every queue, the oldest of each queue first."""
    found = []
    with redis.Redis.from_url(redis_url) as client:
        for key in sorted(client.keys(PREFIX + "*")):
            if client.type(key) != b"list":
                continue
            for raw in reversed(client.lrange(key, 0, -1)):
                message = json.loads(raw)
                args, _, embedded = json.loads(base64.b64decode(message["body"]))
                headers = message["headers"]
                queue = key.decode().removeprefix(PREFIX)
                found.append(Sent(queue, headers["task"], args, headers["ignore_result"], embedded["chord"]))
    return found


@pytest.mark.parametrize(
    ("hint", "queue", "task", "args"),
    [
        (PlanHint(7), "control", "plan_run", [7]),
        (FinalizeHint(7), "control", "finalize_run", [7]),
        (RouteHint(7, False), "routing", "route_shard", [7]),
        (RouteHint(7, True), "routing.interactive", "route_shard", [7]),
        (CombineHint(7, False), "control", "aggregate_shard", [[], 7]),
        (CombineHint(7, True), "control.interactive", "aggregate_shard", [[], 7]),
        (JobHint(7), "training", "train", [7]),
        (ChordHint(7, (), False), "control", "aggregate_shard", [[], 7]),
        (ChordHint(7, (), True), "control.interactive", "aggregate_shard", [[], 7]),
    ],
)
def test_a_hint_becomes_one_message(
    app: Celery, redis_url: str, hint: Hint, queue: str, task: str, args: list[Any]
) -> None:
    assert Dispatcher(app).send([hint]) == 1
    assert sent(redis_url) == [Sent(queue, task, args, True, None)]


@pytest.mark.parametrize(("interactive", "queue"), [(False, "expert.alpha"), (True, "expert.alpha.interactive")])
def test_the_result_of_a_chunk_is_kept_for_its_chord(
    app: Celery, redis_url: str, interactive: bool, queue: str
) -> None:
    assert Dispatcher(app).send([AnswerHint(7, "alpha", interactive)]) == 1
    assert sent(redis_url) == [Sent(queue, "answer_chunk", [7], False, None)]


@pytest.mark.parametrize("interactive", [False, True])
def test_a_routed_shard_becomes_a_chord_of_its_chunks(app: Celery, redis_url: str, interactive: bool) -> None:
    chunks = tuple(AnswerHint(n, name, interactive) for n, name in enumerate(["alpha", "beta", "alpha"]))
    assert Dispatcher(app).send([ChordHint(99, chunks, interactive)]) == 1
    lane = ".interactive" if interactive else ""
    found = sent(redis_url)
    assert [(m.queue, m.task, m.args, m.ignore_result) for m in found] == [
        (f"expert.alpha{lane}", "answer_chunk", [0], False),
        (f"expert.alpha{lane}", "answer_chunk", [2], False),
        (f"expert.beta{lane}", "answer_chunk", [1], False),
    ]
    for message in found:
        assert message.chord is not None
        assert (message.chord["task"], message.chord["args"]) == ("aggregate_shard", [99])
        assert message.chord["options"]["queue"] == f"control{lane}"


def test_who_sends_a_chord_waits_for_no_result_of_it(app: Celery, redis_url: str) -> None:
    """A subscription per chunk would stay for as long as the worker's child lives, and nobody reads what comes in."""
    chunks = tuple(AnswerHint(n, "alpha", False) for n in range(3))
    with redis.Redis.from_url(redis_url) as client:
        before = set(client.pubsub_channels(PREFIX + "*"))
        assert Dispatcher(app).send([ChordHint(99, chunks, False)]) == 1
        assert set(client.pubsub_channels(PREFIX + "*")) - before == set()


def test_hints_are_sent_in_their_order(app: Celery, redis_url: str) -> None:
    assert Dispatcher(app).send([PlanHint(3), PlanHint(1), FinalizeHint(2)]) == 3
    assert [message.args for message in sent(redis_url)] == [[3], [1], [2]]


def test_no_hints_need_no_redis() -> None:
    assert Dispatcher(nowhere()).send([]) == 0


def nowhere() -> Celery:
    """An application whose Redis is away."""
    return create_app(Settings.model_construct(), f"redis://127.0.0.1:{free_port()}/0")


CHORD = ChordHint(1, (AnswerHint(1, "alpha", False),), False)


@pytest.mark.parametrize("hint", [PlanHint(1), AnswerHint(1, "alpha", False), CHORD], ids=["plan", "answer", "chord"])
@pytest.mark.timeout(5)
def test_without_redis_nothing_is_raised_and_the_sweeper_sends_it_later(hint: Hint) -> None:
    assert Dispatcher(nowhere()).send([hint, PlanHint(2), PlanHint(3)]) == 0


def test_a_redis_that_is_full_costs_the_message_only(app: Celery, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            assert Dispatcher(app).send([PlanHint(1), PlanHint(2)]) == 0
        finally:
            client.config_set("maxmemory", before)
    assert Dispatcher(app).send([PlanHint(3)]) == 1
    assert [message.args for message in sent(redis_url)] == [[3]]
