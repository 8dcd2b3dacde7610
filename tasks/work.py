"""What all tasks share: claim, hold, settle."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import structlog
from celery import Task
from sqlalchemy import Connection

from storage.database import transact
from storage.errors import StorageUnavailable
from storage.leases import Lease, LeaseLost, give_back
from worker.heartbeat import Heartbeat
from worker.logs import describe
from worker.runtime import Runtime, task_runtime

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Work:
    """One run of a task: its runtime, and the name under which it holds leases."""

    def __init__(self, task: Task) -> None:
        self.runtime: Runtime = task_runtime(task.app)
        self.owner = owner(str(task.request.hostname), str(task.request.id))

    def transact(self, work: Callable[[Connection], T]) -> T:
        """One transaction, repeated while the database is away; see storage.database.transact."""
        return transact(self.runtime.engine, work)

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[Heartbeat]:
        """Keep the lease alive for the block. Whatever goes wrong in it, the worker lives and nothing is recorded.

        A lost lease or a lost database ends the block quietly: somebody else has the work, or will. Any other error
        gives the lease back with back-off.
        """
        heartbeat = Heartbeat(self.runtime.engine, lease)
        try:
            with heartbeat:
                yield heartbeat
        except LeaseLost as lost:
            log.info("lease.lost", table=lease.table, id=lease.id, reason=str(lost))
        except StorageUnavailable as error:
            log.error("lease.abandoned", table=lease.table, id=lease.id, reason=str(error))
        except Exception as error:  # noqa: BLE001  (a worker outlives whatever its work raises)
            log.error("work.failed", table=lease.table, id=lease.id, attempt=lease.attempts, **describe(error))
            if not self.is_last_try(lease):
                self.transact(lambda connection: give_back(connection, lease, self.rest_s(lease)))
            # After the last try the lease is let run out: the sweeper then halves the work or gives it up.

    def is_last_try(self, lease: Lease) -> bool:
        """Whether another failure must not be answered with another try."""
        return lease.attempts >= self.runtime.settings.pipeline.max_attempts

    def rest_s(self, lease: Lease) -> float:
        """Back-off after the present try."""
        return float(self.runtime.settings.pipeline.back_off_seconds * 2 ** (lease.attempts - 1))


def owner(hostname: str, task_id: str) -> str:
    """Names one execution of one message on one worker."""
    return f"{hostname}/{task_id}"
