"""Answering a chunk: one expert, its knowledge base, all its queries in one batch."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import structlog
from celery import Task, shared_task
from structlog.contextvars import bound_contextvars

from experts.encoders.base import Vectors
from experts.engines.base import (
    AdapterReference,
    Engine,
    EngineAnswer,
    EngineBatch,
    EngineQuery,
    HoldsAdapters,
    make_engine,
)
from experts.errors import EngineUnavailable, ExpertsError, ModelUnusable
from experts.knowledge import KnowledgeBase
from storage import chunks
from storage.chunks import AnswerRow, ChunkQuery, ClaimedChunk
from storage.errors import ArtefactDamaged
from storage.hints import CombineHint
from tasks.bases import engine_spec
from tasks.isolate import Failed, isolate
from tasks.models import Resident
from tasks.work import Work
from worker import names
from worker.faults import fault_point
from worker.heartbeat import Heartbeat
from worker.logs import describe

log = structlog.get_logger(__name__)

MAX_ANSWER_CHARS = 100_000

_knowledge: Resident[KnowledgeBase] = Resident(64)
_engines: Resident[Engine] = Resident(4)


@shared_task(name=names.ANSWER_CHUNK, bind=True)
def answer_chunk(self: Task, chunk_id: int) -> int:
    """Safe to run twice: only who holds the chunk's lease settles, and a settled chunk cannot be claimed.

    Raises nothing but what a database that is away for minutes raises: a part of a chord that fails keeps the chord
    from firing, and the sweeper has to. Returns the chunk's number.
    """
    work = Work(self)
    pipeline = work.runtime.settings.pipeline
    chunk = work.transact(
        lambda c: chunks.claim(
            c, chunk_id, owner=work.owner, ttl_s=pipeline.lease_seconds, max_attempts=pipeline.max_attempts
        )
    )
    if chunk is None:
        return chunk_id
    with (
        bound_contextvars(run=chunk.run, shard=chunk.shard_id, chunk=chunk_id, expert=chunk.expert),
        work.holding(chunk.lease) as heartbeat,
    ):
        fault_point("chunk.claimed")
        was_last = _answer(work, chunk, heartbeat)
        in_chord = bool(self.request.chord or self.request.callbacks)
        if was_last and not in_chord:  # sent again by the sweeper: no chord waits for it
            work.runtime.dispatcher.send([CombineHint(chunk.shard_id, names.is_interactive(_queue(self)))])
    return chunk_id


def _queue(task: Task) -> str:
    return str((task.request.delivery_info or {}).get("routing_key") or "")


def _answer(work: Work, chunk: ClaimedChunk, heartbeat: Heartbeat) -> bool:
    started = time.perf_counter()
    settings = work.runtime.settings
    queries = work.transact(lambda c: chunks.queries(c, chunk))
    try:
        knowledge = _load_knowledge(work, chunk)
        adapter = _fetch_adapter(work, chunk)
        spec = engine_spec(settings)
        engine = _engines.get((chunk.engine, spec), lambda: make_engine(chunk.engine, spec))
        expert = _Expert(engine, knowledge, adapter)
        rows = _rows(chunk, expert, queries, heartbeat, is_last_try=work.is_last_try(chunk.lease))
    except (ArtefactDamaged, ExpertsError, OSError) as error:
        if not work.is_last_try(chunk.lease):
            raise
        log.error("expert.unavailable", **describe(error))
        rows = [_error(query, "expert_unavailable", f"{chunk.expert}: {error}") for query in queries]
    fault_point("chunk.answered")
    busy_ms = 1000 * (time.perf_counter() - started)
    was_last = work.transact(lambda c: chunks.settle_answers(c, chunk, rows, busy_ms=busy_ms))
    fault_point("chunk.settled")
    log.info("chunk.answered", queries=len(rows), ms=round(busy_ms), attempt=chunk.lease.attempts, **_adapters())
    return was_last


@dataclass(frozen=True, slots=True)
class _Expert:
    """What answers a chunk, loaded."""

    engine: Engine
    knowledge: KnowledgeBase | None
    adapter: AdapterReference | None


def _adapters() -> dict[str, float]:
    """What was done to hold adapters, since the process began."""
    return next((engine.residency() for engine in _engines.held() if isinstance(engine, HoldsAdapters)), {})


def _fetch_adapter(work: Work, chunk: ClaimedChunk) -> AdapterReference | None:
    adapter = chunk.adapter
    if adapter is None:
        return None
    folder = work.runtime.store.fetch_tree(adapter.artefact, adapter.tree_sha256)
    return AdapterReference(str(folder), adapter.sha256, adapter.base_sha256)


def _load_knowledge(work: Work, chunk: ClaimedChunk) -> KnowledgeBase | None:
    reference = chunk.knowledge
    if reference is None:
        return None

    def load() -> KnowledgeBase:
        log.info("knowledge.loading", number=reference.number)
        folder = work.runtime.store.fetch_tree(reference.artefact, reference.sha256)
        return KnowledgeBase.load(folder, work.runtime.settings.encoder.name)

    return _knowledge.get(reference.sha256, load)


def _rows(
    chunk: ClaimedChunk,
    expert: _Expert,
    queries: Sequence[ChunkQuery],
    heartbeat: Heartbeat,
    *,
    is_last_try: bool,
) -> list[AnswerRow]:
    started = time.perf_counter()

    def answer(part: Sequence[ChunkQuery]) -> list[EngineAnswer]:
        heartbeat.check()
        asked = [EngineQuery(query.text, query.request) for query in part]
        batch = EngineBatch(chunk.expert, chunk.card, asked, _vectors(part), expert.knowledge, expert.adapter)
        answers = expert.engine.answer(batch)
        if len(answers) != len(part):
            raise ValueError(f"engine {chunk.engine} gave {len(answers)} answers to {len(part)} queries")
        return answers

    fatal = (ModelUnusable, EngineUnavailable)
    results = isolate(queries, answer, is_last_try=is_last_try, fatal=fatal)
    ms = 1000 * (time.perf_counter() - started) / max(len(queries), 1)
    return [_row(chunk.expert, query, result, ms) for query, result in zip(queries, results, strict=True)]


def _vectors(queries: Sequence[ChunkQuery]) -> Vectors | None:
    stored = [query.embedding for query in queries]
    if any(vector is None for vector in stored):
        return None
    return np.stack([np.frombuffer(vector or b"", np.float16) for vector in stored]).astype(np.float32)


def _row(expert: str, query: ChunkQuery, result: EngineAnswer | Failed, ms: float) -> AnswerRow:
    if isinstance(result, Failed):
        return _error(query, "engine_error", f"{expert} could not answer: {result.reason}", ms)
    if result.error is not None:
        return _error(query, result.error.code, result.error.message, ms)
    text = clean(result.text)
    if text is None:
        return _error(query, "bad_output", f"{expert} gave an answer that is not usable text", ms)
    passages = [{"expert": expert, **asdict(passage)} for passage in result.passages]
    usage = result.usage
    return AnswerRow(
        query.idx,
        text,
        result.answered,
        float(np.clip(result.confidence, 0, 1)),
        passages,
        ms,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        completion_tokens=None if usage is None else usage.completion_tokens,
        finish_reason=result.finish_reason,
    )


def _error(query: ChunkQuery, code: str, message: str, ms: float = 0.0) -> AnswerRow:
    return AnswerRow(query.idx, None, False, 0.0, [], ms, error_code=code, error_message=clean(message) or code)


def clean(text: object) -> str | None:
    """The text as it can be stored and sent: no NUL, no lone surrogates, not endless; None where nothing is left."""
    if not isinstance(text, str):
        return None
    usable = text.replace("\x00", "").encode("utf-8", "ignore").decode("utf-8")[:MAX_ANSWER_CHARS]
    return usable if usable.strip() else None
