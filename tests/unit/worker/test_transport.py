import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.entity import Queue
from kombu.messaging import Consumer

from worker import names
from worker.app import PREFIX

KEY = PREFIX + names.CONTROL
Change = Callable[[dict[str, Any]], object]


def good_messages(app: Celery, client: redis.Redis, n: int) -> list[bytes]:
    """Messages as Celery sends them, taken out of the queue again."""
    for number in range(n):
        app.send_task("some_task", args=[number], queue=names.CONTROL)
    found = [client.rpop(KEY) for _ in range(n)]
    return [message for message in found if isinstance(message, bytes)]


def taken(app: Celery, client: redis.Redis, waiting: list[bytes]) -> list[int]:
    """The numbers a consumer gets out of a queue that holds these messages, in this order."""
    for message in waiting:
        client.lpush(KEY, message)
    got: list[int] = []
    with app.connection_for_read() as connection:
        channel = connection.default_channel

        def on_message(message: Any) -> None:
            message.ack()
            got.append(message.payload[0][0])

        with Consumer(channel, [Queue(names.CONTROL)], on_message=on_message, accept=["json"]):  # type: ignore[no-untyped-call]
            while client.llen(KEY):
                # Each try ends with a message or with "nothing to read"; only the latter may be said by an exception.
                try:
                    connection.drain_events(timeout=0.2)
                except TimeoutError:
                    continue
    return got


UNREADABLE = {
    "bytes that are no text": b"\x80\x04K\x01.",
    "nothing": b"",
    "words": b"hello",
    "an empty object": b"{}",
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "a string": b'"x"',
    "not a number": b"NaN",
    "a number of five thousand digits": b"9" * 5000,
    "brackets two hundred thousand deep": b"[" * 200_000,
    "an unknown type": b'{"__type__": "nonsense", "__value__": 1}',
    "a bad date": b'{"__type__": "datetime", "__value__": "never"}',
    "bad base64": b'{"__type__": "base64", "__value__": 5}',
}


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.mark.parametrize("what", sorted(UNREADABLE))
def test_an_unreadable_message_is_dropped_and_its_neighbours_are_kept(
    app: Celery, client: redis.Redis, what: str
) -> None:
    before, after = good_messages(app, client, 2)
    assert taken(app, client, [before, UNREADABLE[what], UNREADABLE[what], after]) == [0, 1]
    assert client.llen(KEY) == 0


BROKEN: dict[str, Change] = {
    "no properties": lambda m: m.pop("properties"),
    "properties that are a list": lambda m: m.update(properties=[]),
    "properties that are null": lambda m: m.update(properties=None),
    "headers that are a list": lambda m: m.update(headers=[1]),
    "a body that is a number": lambda m: m.update(body=5),
    "an unknown encoding of the body": lambda m: m["properties"].update(body_encoding="rot13"),
    "an unknown compression": lambda m: m["headers"].update(compression="nonsense"),
    "a tag that is an object": lambda m: m["properties"].update(delivery_tag={}),
    "a route that is a number": lambda m: m["properties"].update(delivery_info=5),
}


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_a_message_with_a_broken_part_is_dropped_and_its_neighbours_are_kept(
    app: Celery, client: redis.Redis, what: str
) -> None:
    before, broken, after = good_messages(app, client, 3)
    changed = json.loads(broken)
    BROKEN[what](changed)
    assert taken(app, client, [before, json.dumps(changed).encode(), after]) == [0, 2]


def test_good_messages_come_in_the_order_they_were_sent(app: Celery, client: redis.Redis) -> None:
    assert taken(app, client, good_messages(app, client, 5)) == [0, 1, 2, 3, 4]


def test_a_dropped_message_leaves_nothing_behind(app: Celery, client: redis.Redis) -> None:
    assert taken(app, client, [b"hello", *good_messages(app, client, 1)]) == [0]
    assert client.exists(PREFIX + "unacked", PREFIX + "unacked_index") == 0


def test_a_channel_closes_although_its_connection_is_gone(app: Celery) -> None:
    """Messages it still holds cannot be given back then; that must not end the worker."""
    app.send_task("some_task", args=[1], queue=names.CONTROL)
    connection = app.connection_for_read()
    channel = connection.channel()
    assert channel.basic_get(names.CONTROL) is not None  # taken and not acknowledged
    channel.connection.client = None
    channel._pool = None

    channel.close()

    assert channel.closed
    connection.release()
