"""Keeping a lease alive while the work is done."""

import threading
from types import TracebackType

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from storage.leases import Lease, LeaseLost, renew

log = structlog.get_logger(__name__)


class Heartbeat:
    """Renews a lease every third of its time, in a side thread, for as long as the ``with`` block runs.

    ``check()`` raises LeaseLost once the lease is gone (taken over, or the run was cancelled), so that long work stops
    early. When the database cannot be reached the beat is missed; the fence of the settling transaction decides then.
    """

    def __init__(self, engine: Engine, lease: Lease) -> None:
        self._engine = engine
        self._lease = lease
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{lease.table}-{lease.id}", daemon=True)

    def check(self) -> None:
        """Raise LeaseLost when somebody else may be at the work."""
        if self._lost.is_set():
            raise LeaseLost(f"{self._lease.table} {self._lease.id}: the lease was lost while working")

    def _beat(self) -> None:
        while not self._stop.wait(self._lease.ttl_s / 3):
            try:
                with self._engine.begin() as connection:
                    held = renew(connection, self._lease)
            except SQLAlchemyError as error:
                log.warning("heartbeat.missed", table=self._lease.table, id=self._lease.id, error=str(error))
                continue
            if not held:
                self._lost.set()
                return

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
