from typing import Any

import pytest
from celery import Celery
from celery.app import defaults
from kombu.exceptions import ContentDisallowed, EncodeError
from kombu.serialization import registry
from kombu.transport.redis import Channel

from worker import names
from worker.app import PREFIX, create_app
from worker.cycle import InteractiveFirst
from worker.roles import ROLES
from worker.settings import Settings
from worker.transport import Transport

URL = "redis://127.0.0.1:1/0"

# What was tried together under faults; a change here wants those trials again.
TRIED: dict[str, Any] = {
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_serializer": "json",
    "result_accept_content": ["json"],
    "event_serializer": "json",
    "task_acks_late": True,
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    "task_reject_on_worker_lost": False,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    "worker_hijack_root_logger": False,
    "worker_proc_alive_timeout": 60,
}
TRIED_OPTIONS: dict[str, Any] = {
    "global_keyprefix": "moe:",
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 10,
    "socket_keepalive": True,
    "health_check_interval": 10,
}


@pytest.fixture(scope="module")
def offline() -> Celery:
    """An application that never connects."""
    return create_app(Settings.model_construct(), URL)


@pytest.mark.parametrize("name", sorted(TRIED))
def test_a_setting_is_the_one_that_was_tried(offline: Celery, name: str) -> None:
    assert getattr(offline.conf, name) == TRIED[name]


@pytest.mark.parametrize("name", sorted(TRIED_OPTIONS))
def test_a_transport_option_is_the_one_that_was_tried(offline: Celery, name: str) -> None:
    assert offline.conf.broker_transport_options[name] == TRIED_OPTIONS[name]


def test_every_setting_is_one_that_celery_knows(offline: Celery) -> None:
    """It takes unknown ones without a word."""
    assert len(offline.conf.changes) > 30
    assert {name for name in offline.conf.changes if name not in defaults.DEFAULTS} <= {"deprecated_settings"}


def test_every_transport_option_is_one_that_the_transport_knows(offline: Celery) -> None:
    known = {*Channel.from_transport_options, "priority_steps", "queue_order_strategy", "visibility_timeout"}
    assert {name for name in offline.conf.broker_transport_options if name not in known} == set()


def test_no_task_outlives_its_message(offline: Celery) -> None:
    """A message that is given to somebody else while its task runs would have the work done twice."""
    assert offline.conf.task_time_limit * 3 <= offline.conf.broker_transport_options["visibility_timeout"]


def test_the_count_of_a_chord_outlives_every_task_in_it(offline: Celery) -> None:
    assert offline.conf.result_chord_expires >= 3 * offline.conf.task_time_limit
    assert offline.conf.result_expires < offline.conf.result_chord_expires


def test_the_fixed_queues_are_explicit_and_served_in_our_order(offline: Celery) -> None:
    assert sorted(offline.amqp.queues) == sorted(queue for role in ROLES.values() for queue in role.queues)
    assert offline.conf.task_default_queue == names.CONTROL
    assert offline.connection().get_transport_cls() is Transport
    assert offline.conf.broker_transport_options["queue_order_strategy"] == "worker.cycle:InteractiveFirst"


def test_a_channel_uses_what_was_set(app: Celery) -> None:
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        assert isinstance(channel._queue_cycle, InteractiveFirst)
        assert (channel.visibility_timeout, channel.unacked_restore_interval) == (21_600, 5)
        assert (channel.global_keyprefix, channel.priority_steps) == ("moe:", [0])


def test_every_key_in_redis_has_our_prefix(app: Celery, redis_url: str) -> None:
    app.send_task(names.SWEEP, queue=names.CONTROL)
    app.send_task(names.ANSWER_CHUNK, args=[1], queue="expert.alpha", ignore_result=False)
    with app.connection_for_read() as connection:
        keys = {key.decode() for key in connection.default_channel.client.keys("*")}
    assert {f"{PREFIX}control", f"{PREFIX}expert.alpha"} <= keys
    assert [key for key in keys if not key.startswith(PREFIX)] == []


@pytest.mark.parametrize("serializer", ["pickle", "yaml"])
def test_nothing_but_json_is_taken(app: Celery, serializer: str) -> None:
    app.send_task("some_task", args=[1], queue=names.CONTROL, serializer=serializer)
    refused = []

    def on_message(message: Any) -> None:
        message.ack()
        with pytest.raises(ContentDisallowed):
            message.decode()
        refused.append(message.content_type)

    with app.connection_for_read() as connection:
        consumer = app.amqp.TaskConsumer(connection.default_channel, [app.amqp.queues[names.CONTROL]])
        consumer.on_message = on_message
        with consumer:
            connection.drain_events(timeout=10)
    assert refused == [registry.name_to_type[serializer]]


def test_what_is_not_json_is_not_sent(app: Celery) -> None:
    with pytest.raises(EncodeError):
        app.send_task("some_task", args=[object()], queue=names.CONTROL)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_worker_includes_the_tasks_of_its_role_only(role: str) -> None:
    assert create_app(Settings.model_construct(), URL, ROLES[role]).conf.include == list(ROLES[role].include)


def test_a_sender_includes_no_tasks(offline: Celery) -> None:
    assert list(offline.conf.include) == []


def test_the_clock_makes_the_sweeper_run_as_often_as_is_set() -> None:
    settings = Settings(pipeline={"sweep_seconds": 7})
    schedule = create_app(settings, URL).conf.beat_schedule
    assert list(schedule) == [names.SWEEP]
    entry = schedule[names.SWEEP]
    assert (entry["task"], entry["schedule"]) == (names.SWEEP, 7)
    # Sweeps that nobody takes do not pile up.
    assert entry["options"] == {"queue": names.CONTROL, "expires": 24}


def test_the_clock_keeps_nothing_on_disk(offline: Celery) -> None:
    assert offline.conf.beat_scheduler == "celery.beat:Scheduler"
