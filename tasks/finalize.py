"""Ending a run: closing what a cancel or a deadline left open, then writing its files, once."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import structlog
from celery import Task, shared_task
from structlog.contextvars import bound_contextvars

from storage import finalizing
from storage.finalizing import FinalizingRun
from tasks.work import Work
from worker import names
from worker.faults import fault_point
from worker.heartbeat import Heartbeat

log = structlog.get_logger(__name__)


@shared_task(name=names.FINALIZE_RUN, bind=True)
def finalize_run(self: Task, run_id: int) -> None:
    """Safe to run twice: closing lines and recording files each move the run's state, which they do once.

    The files of a generation have the same names and bytes whoever writes them; they appear complete or not at all.
    """
    work = Work(self)
    work.transact(lambda c: finalizing.close_open_lines(c, run_id))
    lease_s = work.runtime.settings.pipeline.lease_seconds
    run = work.transact(lambda c: finalizing.claim(c, run_id, owner=work.owner, ttl_s=lease_s))
    if run is None:
        return
    with bound_contextvars(run=run.public_id), work.holding(run.lease) as heartbeat:
        fault_point("finalize.claimed")
        output = _write(work, run, heartbeat, "output", ok=True)
        errors = _write(work, run, heartbeat, "errors", ok=False)
        fault_point("finalize.written")
        work.transact(lambda c: finalizing.settle_files(c, run, output, errors))
        fault_point("finalize.settled")
        log.info("run.finalized", ending=run.ending, output=output["lines"], errors=errors["lines"])


def _write(work: Work, run: FinalizingRun, heartbeat: Heartbeat, kind: str, *, ok: bool) -> dict[str, Any]:
    path = f"{finalizing.folder_of(run.public_id)}/{run.generation}/{kind}.jsonl"
    count = 0

    def blocks() -> Iterator[bytes]:
        nonlocal count
        with work.runtime.engine.begin() as connection:
            for lines in finalizing.lines(connection, run.lease.id, ok=ok):
                heartbeat.check()
                count += len(lines)
                yield ("\n".join(lines) + "\n").encode()

    stored = work.runtime.store.put_file(path, blocks())
    return {**asdict(stored), "lines": count}
