"""Kombu's Redis transport, made proof against messages that are none."""

import queue
from typing import Any

import structlog
from kombu.transport import redis

log = structlog.get_logger(__name__)


class Channel(redis.Channel):
    """Drops what cannot be read as a message.

    Whoever can write to Redis could otherwise end every worker with one line that is not JSON. A dropped message costs
    nothing: the sweeper sends it again if it was one of ours.
    """

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.warning("message.unreadable", error=type(error).__name__)
            raise queue.Empty from None


class Transport(redis.Transport):
    Channel = Channel
