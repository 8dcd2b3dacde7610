"""Kombu's Redis transport, made proof against messages that are none, and connections that are gone."""

import queue
from typing import Any

import structlog
from kombu.transport import redis
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)


class QoS(redis.QoS):
    """Gives messages back when a channel closes, if there is still a connection to give them back over."""

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Without a connection kombu raises an AttributeError here, which would end the worker."""
        try:
            super().restore_unacked_once(stderr)  # type: ignore[no-untyped-call]
        except (AttributeError, OSError, RedisError) as error:
            log.warning("messages.not_given_back", error=type(error).__name__)


class Channel(redis.Channel):
    """Drops what cannot be read as a message.

    Whoever can write to Redis could otherwise end every worker with one line that is not JSON. A dropped message costs
    nothing: the sweeper sends it again if it was one of ours.
    """

    QoS = QoS

    def _brpop_read(self, **options: Any) -> bool:
        try:
            return bool(super()._brpop_read(**options))  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            log.warning("message.unreadable", error=type(error).__name__)
            raise queue.Empty from None


class Transport(redis.Transport):
    Channel = Channel
