"""Cutting a run into shards and handing out the first of them."""

from celery import Task, shared_task
from sqlalchemy import Connection

from storage import shards, windows
from storage.hints import FinalizeHint, Hint
from storage.rates import shard_size
from tasks.work import Work
from worker import names


@shared_task(name=names.PLAN_RUN, bind=True)
def plan_run(self: Task, run_id: int) -> None:
    """Safe to run twice: a run leaves the state `validating` once, and filling windows only fills what is free."""
    work = Work(self)
    pipeline = work.runtime.settings.pipeline

    def plan(connection: Connection) -> list[Hint]:
        size = shard_size(
            connection,
            seconds=pipeline.shard_seconds,
            least=pipeline.shard_size_min,
            most=pipeline.shard_size_max,
        )
        ended = shards.plan(connection, run_id, size)
        return [FinalizeHint(run_id)] if ended else [*windows.fill(connection, window=pipeline.window_shards)]

    work.runtime.dispatcher.send(work.transact(plan))
