"""Combining the answers of a shard: the chord's callback, and what the sweeper calls when a chord was lost."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from celery import Task, shared_task
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from experts.combining import Combiner, ExpertAnswer, disagreement, make_combiner
from storage import rates, shards, windows
from storage.hints import FinalizeHint, Hint
from storage.lines import error_line, output_line
from storage.shards import AnsweredQuery, ClaimedShard, OutcomeRow
from tasks.isolate import Failed, isolate
from tasks.work import Work
from worker import names
from worker.faults import fault_point

log = structlog.get_logger(__name__)

# What an expert nobody has judged yet counts for.
_UNKNOWN_QUALITY = 0.8


@shared_task(name=names.AGGREGATE_SHARD, bind=True)
def aggregate_shard(self: Task, results: Sequence[int], shard_id: int) -> None:
    """Safe to run twice, and too early: a shard with open chunks, or one that is done, is left alone.

    ``results`` are the chunk numbers the chord collected; the database knows better and is asked instead.
    """
    work = Work(self)
    pipeline = work.runtime.settings.pipeline
    shard = work.transact(
        lambda c: shards.claim_for_combining(
            c, shard_id, owner=work.owner, ttl_s=pipeline.lease_seconds, max_attempts=pipeline.max_attempts
        )
    )
    if shard is None:
        return
    with bound_contextvars(run=shard.run, shard=shard_id), work.holding(shard.lease):
        fault_point("combine.claimed")
        _combine(work, shard)


def _combine(work: Work, shard: ClaimedShard) -> None:
    started = time.perf_counter()
    queries, quality = work.transact(lambda c: (shards.answered_queries(c, shard), rates.expert_quality(c)))
    combiner = make_combiner(shard.strategy)

    def combine(part: Sequence[AnsweredQuery]) -> list[OutcomeRow]:
        return [outcome(shard, query, combiner, quality) for query in part]

    outcomes = [
        failed_outcome(shard, query, "combine_failed", f"The answers could not be combined: {result.reason}")
        if isinstance(result, Failed)
        else result
        for query, result in zip(queries, isolate(queries, combine), strict=True)
    ]
    combine_ms = 1000 * (time.perf_counter() - started)

    def settle(connection: Connection) -> list[Hint]:
        ended = shards.settle_combining(connection, shard, outcomes, combine_ms=combine_ms)
        return [FinalizeHint(shard.run_id)] if ended else []

    hints = work.transact(settle)
    fault_point("combine.settled")
    log.info("shard.combined", queries=len(outcomes), ms=round(combine_ms))
    if not (shard.interactive and hints):  # a question has but one shard and frees nobody's window
        window = work.runtime.settings.pipeline.window_shards
        hints += work.transact(lambda c: windows.fill(c, window=window))
    work.runtime.dispatcher.send(hints)


def outcome(shard: ClaimedShard, query: AnsweredQuery, combiner: Combiner, quality: Mapping[str, float]) -> OutcomeRow:
    """The one end of one query: the combined answer, or the error that kept every expert from answering."""
    weights = {expert["name"]: float(expert["weight"]) for expert in query.experts}
    usable = [
        ExpertAnswer(
            expert=answer["expert"],
            weight=weights.get(answer["expert"], 0.0),
            text=answer["text"],
            answered=answer["answered"],
            confidence=answer["confidence"],
            quality=quality.get(answer["expert"], _UNKNOWN_QUALITY),
        )
        for answer in query.answers
        if answer["error_code"] is None
    ]
    if not usable:
        code, message = _first_error(query)
        return failed_outcome(shard, query, code, message)
    combined = combiner.combine(usable)
    passport = passport_of(query, shard)
    apart = disagreement(usable)
    passport |= {
        "answered": combined.answered,
        "answer_confidence": combined.confidence,
        "answered_by": combined.expert,
        "strategy": shard.strategy,
        "disagreement": None if apart is None else round(apart, 4),
        "passages": next(a["passages"] for a in query.answers if a["expert"] == combined.expert),
        "alternatives": [
            {"expert": a.expert, "text": a.text, "answered": a.answered, "confidence": a.confidence}
            for a in combined.alternatives
        ],
    }
    line = output_line(
        run=shard.run,
        idx=query.idx,
        custom_id=query.custom_id,
        created=shard.created,
        model="moe/auto",
        text=combined.text,
        passport=passport,
        usage=_usage(query),
        finish_reason=next(
            (a["finish_reason"] for a in query.answers if a["expert"] == combined.expert and a["finish_reason"]), "stop"
        ),
    )
    return OutcomeRow(query.idx, line)


def _usage(query: AnsweredQuery) -> tuple[int, int]:
    """Tokens of prompts and of answers, over every expert that counts any."""
    return (
        sum(answer["prompt_tokens"] or 0 for answer in query.answers),
        sum(answer["completion_tokens"] or 0 for answer in query.answers),
    )


def _first_error(query: AnsweredQuery) -> tuple[str, str]:
    for answer in query.answers:
        if answer["error_code"] is not None:
            return answer["error_code"], answer["error_message"]
    return "routing_failed", query.reason


def failed_outcome(shard: ClaimedShard, query: AnsweredQuery, code: str, message: str) -> OutcomeRow:
    """An error line that still says where the query had been sent."""
    line = error_line(
        run=shard.run,
        idx=query.idx,
        custom_id=query.custom_id,
        line_no=query.line_no,
        code=code,
        message=message,
        passport=passport_of(query, shard),
    )
    return OutcomeRow(query.idx, line, code, message)


def passport_of(query: AnsweredQuery, shard: ClaimedShard) -> dict[str, Any]:
    """What every line says of its way through the system."""
    answers = {answer["expert"]: answer for answer in query.answers}
    return {
        "line": query.line_no,
        "experts": [_expert(expert, answers.get(expert["name"])) for expert in query.experts],
        "confidence": round(query.confidence, 4),
        "coverage": round(query.coverage, 4),
        "in_scope": query.in_scope,
        "reason": query.reason,
        "router_version": query.router_version,
        "ms": {
            "route": round(query.route_ms, 2),
            "answer": round(max((answer["ms"] for answer in query.answers), default=0.0), 2),
        },
        "attempt": max([shard.lease.attempts, *(answer["attempt"] for answer in query.answers)]),
    }


def _expert(chosen: Mapping[str, Any], answer: Mapping[str, Any] | None) -> dict[str, Any]:
    described = {"name": chosen["name"], "version": chosen["version"], "weight": round(float(chosen["weight"]), 4)}
    if answer is not None:
        described |= {
            "knowledge": answer["knowledge"],
            "answered": answer["answered"],
            "confidence": round(float(answer["confidence"]), 4),
        }
        if answer["adapter"] is not None:
            described["adapter"] = answer["adapter"]
        if answer["completion_tokens"] is not None:
            described["tokens"] = {"prompt": answer["prompt_tokens"], "completion": answer["completion_tokens"]}
        if answer["error_code"] is not None:
            described["error"] = answer["error_code"]
    return described
