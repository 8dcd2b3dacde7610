"""Connections to Postgres, and what is done when one breaks."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from storage.errors import StorageUnavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Class 08: connection; 40: rollback asked for (deadlock, serialization); 53: resources; 57P0x: server going down or
# coming up; 55P03: lock not available in time. Everything else is a mistake of ours and is raised at once.
_RETRY_STATES = ("08", "40", "53", "57P0", "55P03")


def database_url(address: str) -> URL:
    """The address with the driver this program uses. Raises ValueError for anything but Postgres."""
    url = make_url(address)
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(f"database_url must start with postgresql://, not {url.get_backend_name()}://")
    return url.set(drivername="postgresql+psycopg")


def connect(address: str, *, application: str = "moe", pool_size: int = 4) -> Engine:
    """An engine on ``address``. Nothing is opened yet; make it after a fork, never before."""
    return create_engine(
        database_url(address),
        pool_size=pool_size,
        max_overflow=4,
        pool_timeout=30,
        pool_pre_ping=True,
        hide_parameters=True,  # they are queries and answers, and errors end up in logs
        connect_args={
            "application_name": application,
            "connect_timeout": 10,
            # A connection whose other end is gone without a word is found out in a minute, not in a quarter of an hour.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            "options": "-c lock_timeout=30s -c idle_in_transaction_session_timeout=120s -c timezone=UTC",
        },
    )


def is_transient(error: DBAPIError) -> bool:
    """Whether the same statement may succeed if it is sent again."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # the connection broke before the server could say anything
        return error.connection_invalidated or type(error.orig).__name__ == "OperationalError"
    return str(state).startswith(_RETRY_STATES)


def transact(engine: Engine, work: Callable[[Connection], T], *, patience_s: float = 60.0) -> T:
    """Run ``work`` in one transaction, again from the start when the server or the connection failed under it.

    ``work`` must be safe to run twice: a commit whose acknowledgement was lost is repeated. Waits between tries with
    jitter, ``patience_s`` in all, then raises StorageUnavailable.
    """
    give_up = time.monotonic() + patience_s
    tries = 0
    while True:
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if not is_transient(error):
                raise
            tries += 1
            pause = min(0.05 * 2**tries, 2.0) * random.uniform(0.5, 1.5)
            if time.monotonic() + pause > give_up:
                raise StorageUnavailable(str(error.orig).strip() or type(error.orig).__name__) from error
            log.warning("database.retry", tries=tries, error=str(error.orig).strip().splitlines()[:1])
            time.sleep(pause)
