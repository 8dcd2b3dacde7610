"""Turning hints into messages. Called after the commit that made them true."""

from collections.abc import Iterable

import redis.exceptions
import structlog
from celery import Celery, Signature, chord
from kombu.exceptions import OperationalError

from storage.hints import (
    AnswerHint,
    ChordHint,
    CombineHint,
    FinalizeHint,
    Hint,
    JobHint,
    PlanHint,
    RouteHint,
)
from worker import names

log = structlog.get_logger(__name__)


class Dispatcher:
    """Sends messages for hints; a message that cannot be sent is left to the sweeper."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, hints: Iterable[Hint]) -> int:
        """Send them in order; how many were sent. Stops at the first failure, since the next would wait as long."""
        sent = 0
        for hint in hints:
            try:
                self._send(hint)
            except (OperationalError, redis.exceptions.RedisError, OSError) as error:
                log.warning("dispatch.failed", hint=repr(hint), error=str(error))
                break
            sent += 1
        return sent

    def _send(self, hint: Hint) -> None:
        match hint:
            case ChordHint(shard_id, chunks, interactive) if chunks:
                chord([self._answer(chunk) for chunk in chunks], app=self._app)(self._combine(shard_id, interactive))
            case ChordHint(shard_id, _, interactive) | CombineHint(shard_id, interactive):
                self._combine(shard_id, interactive, [[]]).apply_async()
            case AnswerHint():
                self._answer(hint).apply_async()
            case RouteHint(shard_id, interactive):
                self._task(names.ROUTE_SHARD, shard_id, names.lane(names.ROUTING, interactive)).apply_async()
            case PlanHint(run_id):
                self._task(names.PLAN_RUN, run_id, names.CONTROL).apply_async()
            case FinalizeHint(run_id):
                self._task(names.FINALIZE_RUN, run_id, names.CONTROL).apply_async()
            case JobHint(job_id):
                self._task(names.TRAIN, job_id, names.TRAINING).apply_async()

    def _task(self, name: str, key: int, queue: str) -> Signature:
        return self._app.signature(name, args=[key], queue=queue, ignore_result=True)

    def _answer(self, hint: AnswerHint) -> Signature:
        # The chord counts these results, so they are kept; each is the number of its chunk.
        queue = names.lane(names.expert_queue(hint.expert), hint.interactive)
        return self._app.signature(names.ANSWER_CHUNK, args=[hint.chunk_id], queue=queue, ignore_result=False)

    def _combine(self, shard_id: int, interactive: bool, results: list[list[int]] | None = None) -> Signature:
        # In a chord Celery puts the list of the header's results before the arguments.
        return self._app.signature(
            names.AGGREGATE_SHARD,
            args=[*(results or []), shard_id],
            queue=names.lane(names.CONTROL, interactive),
            ignore_result=True,
        )
