"""The sweeper: on a clock, it makes due again what a crash, a lost message or a lost chord left behind."""

import time

import redis
import structlog
from celery import Task, shared_task
from sqlalchemy import Connection

from storage import runs, schedules, sweeping, windows
from storage.hints import AnswerHint, FinalizeHint, Hint, JobHint
from storage.sweeping import Patience
from tasks.watch import limits, watch
from tasks.work import Work
from worker import names
from worker.app import PREFIX
from worker.settings import Pipeline

log = structlog.get_logger(__name__)

# Longer than any dry run waits.
_PREVIEW_AGE_S = 90_000.0
_LOOK_EVERY_S = 60.0
_looked_at = float("-inf")


@shared_task(name=names.SWEEP, bind=True)
def sweep(self: Task) -> None:
    """Safe to run any number of times at once: rows are taken with SKIP LOCKED, and a doubled message does nothing."""
    work = Work(self)
    pipeline = work.runtime.settings.pipeline
    recovered = work.transact(lambda c: sweeping.recover(c, patience(pipeline)))
    hints = work.transact(lambda c: _overdue_and_due(c, pipeline))
    chunk_hints = work.transact(
        lambda c: sweeping.due_chunks(c, stale_s=pipeline.stale_hint_seconds, window=pipeline.hints_per_queue)
    )
    if chunk_hints:
        hints += _with_room(work.runtime.redis_url, chunk_hints, pipeline.hints_per_queue)
    if recovered or hints:
        log.info("sweep.found", recovered=recovered, hints=len(hints))
    # Marked first: should this process die between, they are sent by a later sweep.
    hints = work.transact(lambda c: sweeping.mark_published(c, hints))
    hints += work.transact(lambda c: windows.fill(c, window=pipeline.window_shards))
    hints += [JobHint(job_id) for job_id in work.transact(schedules.fire_due)]
    work.runtime.dispatcher.send(hints)
    _look_around(work)
    # Last and on its own: a large one takes a while.
    work.transact(lambda c: runs.remove_stale_preview(c, older_than_s=_PREVIEW_AGE_S))


def _look_around(work: Work) -> None:
    """Raise the alerts that are due, about once a minute; several sweepers that do so at once do no harm."""
    global _looked_at
    if time.monotonic() - _looked_at < _LOOK_EVERY_S:
        return
    _looked_at = time.monotonic()
    for alert in work.transact(lambda c: watch(c, limits(work.runtime.settings))):
        log.warning("router.alert", kind=alert.kind, run=alert.run_id, expert=alert.expert, message=alert.message)


def patience(pipeline: Pipeline) -> Patience:
    """The settings that say how often work is tried."""
    return Patience(pipeline.max_attempts, pipeline.back_off_seconds)


def _overdue_and_due(connection: Connection, pipeline: Pipeline) -> list[Hint]:
    overdue = runs.expire_overdue(connection)
    due = sweeping.due_others(connection, stale_s=pipeline.stale_hint_seconds, window=pipeline.hints_per_queue)
    return [*(FinalizeHint(run_id) for run_id in overdue), *due]


def _with_room(redis_url: str, hints: list[AnswerHint], window: int) -> list[AnswerHint]:
    """Those hints that fit: a queue that holds ``window`` messages already is long, not lost."""
    by_queue: dict[str, list[AnswerHint]] = {}
    for hint in hints:
        by_queue.setdefault(names.lane(names.expert_queue(hint.expert), hint.interactive), []).append(hint)
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        pipe = client.pipeline(transaction=False)
        for queue in by_queue:
            pipe.llen(PREFIX + queue)
        try:
            lengths = pipe.execute()
        except redis.RedisError as error:
            log.warning("sweep.redis_away", error=str(error))
            return []
    kept = []
    for (_, waiting), length in zip(by_queue.items(), lengths, strict=True):
        kept += waiting[: max(0, window - int(length))]
    return kept
