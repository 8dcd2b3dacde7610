"""Waiting for what another thread or process does, and leaving nothing open behind."""

import gc
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from celery import Celery
from kombu import pools

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, timeout_s: float = 20.0) -> T:
    """What ``condition`` returns once it is true; fails with ``what`` otherwise."""
    give_up = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        pause.wait(0.01)
    return found


def disconnect(app: Celery) -> None:
    """Close what `app.close()` leaves open: the connections messages were sent over, and those of the results."""
    gc.collect()  # results of a chord unsubscribe when they are collected, for which they would connect again
    pools.reset()  # type: ignore[no-untyped-call]
    consumer = app.backend.result_consumer
    if consumer._pubsub is not None:
        consumer._pubsub.close()
        consumer._pubsub = None
    app.backend.client.connection_pool.disconnect()
