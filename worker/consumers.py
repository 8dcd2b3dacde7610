"""Expert workers follow the experts in the database: a new one is served without a restart, and after one."""

import threading
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_ready, worker_shutting_down
from sqlalchemy import Engine

from storage import catalogue
from storage.database import connect, transact
from worker.addresses import addresses
from worker.logs import describe
from worker.roles import expert_queues
from worker.settings import Settings

log = structlog.get_logger(__name__)

_EVERY_S = 2.0


def follow_experts(app: Celery, settings: Settings) -> None:
    """Keep the queues that this worker consumes equal to those of the serving experts, from when it is ready."""
    stop = threading.Event()

    def on_ready(sender: Any = None, **_: Any) -> None:
        threading.Thread(target=_follow, args=(sender, settings, stop), name="follow-experts", daemon=True).start()

    worker_ready.connect(on_ready, weak=False)
    worker_shutting_down.connect(lambda **_: stop.set(), weak=False)


def _follow(consumer: Any, settings: Settings, stop: threading.Event) -> None:
    engine = connect(addresses(settings).database_url, application="moe follow", pool_size=1)
    while not stop.wait(_EVERY_S):
        try:
            _adjust(consumer, engine)
        except Exception as error:  # noqa: BLE001  (without this thread no new expert is ever served)
            log.warning("experts.unknown", **describe(error))


def _adjust(consumer: Any, engine: Engine) -> None:
    wanted = expert_queues(transact(engine, catalogue.names_to_answer_for, patience_s=5))
    tasks = consumer.task_consumer
    if tasks is None:  # between two connections to Redis
        return
    consumed = {queue.name for queue in tasks.queues}
    for queue in wanted:
        if queue not in consumed:
            log.info("queue.added", queue=queue)
            consumer.call_soon(consumer.add_task_queue, queue)
    for queue in consumed - set(wanted):
        log.info("queue.dropped", queue=queue)
        consumer.call_soon(consumer.cancel_task_queue, queue)
