"""Routing a shard: embed its queries in one go, choose experts, cut chunks, send the chord."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from celery import Task, shared_task
from celery.signals import worker_init
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from experts.encoders.base import Vectors
from experts.encoders.remembering import RememberingEncoder
from experts.errors import ExpertsError, ModelUnusable
from experts.kinds import ENGINES_WITH_VECTORS, HASHING
from experts.routing.decide import Decision, Policy, decide
from experts.routing.router import RouterModel, load_router
from experts.routing.validation import validate
from experts.standing import Limits, Standing, standing_of
from storage import catalogue, shards, standing, versions
from storage.catalogue import ExpertView
from storage.errors import ArtefactDamaged
from storage.shards import ClaimedShard, DecisionRow, NewChunk, OpenQuery
from storage.versions import RouterView
from tasks import models
from tasks.isolate import Failed, isolate
from tasks.watch import limits
from tasks.work import Work
from worker import names
from worker.faults import fault_point
from worker.heartbeat import Heartbeat
from worker.logs import describe
from worker.settings import Settings, load

log = structlog.get_logger(__name__)

_routers: models.Resident[RouterModel] = models.Resident(2)


@dataclass(frozen=True, slots=True)
class Scorer:
    """What scores a query: a router, and the encoder where vectors are needed."""

    router: RouterModel
    encoder: RememberingEncoder | None


@worker_init.connect
def import_encoder_before_forking(**_: object) -> None:
    """A child that takes the place of a killed one then starts at once instead of importing for seconds."""
    if load().encoder.name != HASHING:
        import experts.encoders.sentence  # noqa: F401


@shared_task(name=names.ROUTE_SHARD, bind=True)
def route_shard(self: Task, shard_id: int) -> None:
    """Safe to run twice: only who holds the shard's lease settles, and settling moves it on."""
    work = Work(self)
    pipeline = work.runtime.settings.pipeline

    def claim(connection: Connection) -> tuple[RouterView | None, ClaimedShard | None]:
        live = versions.live_router(connection)
        if live is None:  # nothing was trained yet; the sweeper asks again, and no try is spent
            return None, None
        return live, shards.claim_for_routing(
            connection, shard_id, owner=work.owner, ttl_s=pipeline.lease_seconds, max_attempts=pipeline.max_attempts
        )

    version, shard = work.transact(claim)
    if version is None:
        log.warning("router.missing", shard=shard_id)
    if version is None or shard is None:
        return
    with bound_contextvars(run=shard.run, shard=shard_id), work.holding(shard.lease) as heartbeat:
        fault_point("shard.claimed")
        _route(work, shard, version, heartbeat)


def _route(work: Work, shard: ClaimedShard, version: RouterView, heartbeat: Heartbeat) -> None:
    started = time.perf_counter()
    queries, known, standings = work.transact(lambda c: _read(c, shard, limits(work.runtime.settings)))
    try:
        scorer = _scorer(work, version, known)
    except (ArtefactDamaged, ExpertsError, OSError) as error:
        if not work.is_last_try(shard.lease):
            raise
        log.error("router.unavailable", **describe(error))
        decided = [_row(query, Failed(str(error)), known) for query in queries]
    else:
        decided = _decide(work, shard, queries, known, standings, scorer, heartbeat)
    chunks = [] if shard.route_only else cut_chunks(decided, known, work.runtime.settings.pipeline.chunk_size)
    route_ms = 1000 * (time.perf_counter() - started)
    fault_point("shard.routed")
    chord = work.transact(
        lambda c: shards.settle_routing(c, shard, decided, chunks, router_version_id=version.id, route_ms=route_ms)
    )
    fault_point("shard.settled")
    log.info("shard.routed", queries=len(queries), chunks=len(chunks), ms=round(route_ms), **_remembered(work))
    if chord is not None:
        work.runtime.dispatcher.send([chord])


def _read(
    connection: Connection, shard: ClaimedShard, limits: Limits
) -> tuple[list[OpenQuery], dict[str, ExpertView], dict[str, Standing]]:
    experts = catalogue.experts(connection)
    standings = {measured.expert: standing_of(measured, limits) for measured in standing.serving(connection, experts)}
    return shards.open_queries(connection, shard), {expert.name: expert for expert in experts}, standings


def _scorer(work: Work, version: RouterView, known: Mapping[str, ExpertView]) -> Scorer:
    """The router with the encoder it needs, both loaded. Raises what keeps one of them from being loaded."""
    encoder = work.runtime.settings.encoder.name
    if version.encoder not in (None, encoder):
        raise ModelUnusable(
            f"router {version.id} was trained with encoder {version.encoder!r}, not with {encoder!r};"
            " load the experts again to train another"
        )
    router = _routers.get(version.id, lambda: _load(work, version))
    vectors_needed = router.needs_vectors or any(
        expert.engine in ENGINES_WITH_VECTORS or expert.card.get("retrieval") for expert in known.values()
    )
    return Scorer(router, models.encoder(work.runtime.settings) if vectors_needed else None)


def _decide(
    work: Work,
    shard: ClaimedShard,
    queries: Sequence[OpenQuery],
    known: Mapping[str, ExpertView],
    standings: Mapping[str, Standing],
    scorer: Scorer,
    heartbeat: Heartbeat,
) -> list[DecisionRow]:
    how = policy(work.runtime.settings, shard.top_k, scorer.router, known)

    def route(part: Sequence[OpenQuery]) -> list[tuple[Decision, bytes | None]]:
        heartbeat.check()
        texts = [query.text for query in part]
        embedded = None if scorer.encoder is None else scorer.encoder.embed(texts)
        scores = scorer.router.score(texts, embedded)
        decisions = decide(scorer.router.experts, texts, scores, standings, how)
        for decision in decisions:
            validate(decision, known)
        vectors = None if embedded is None else embedded.vectors
        return list(zip(decisions, _as_bytes(vectors, len(part)), strict=True))

    results = isolate(queries, route, is_last_try=work.is_last_try(shard.lease))
    return [_row(query, result, known) for query, result in zip(queries, results, strict=True)]


def _load(work: Work, version: RouterView) -> RouterModel:
    log.info("router.loading", version=version.id, kind=version.kind)
    return load_router(work.runtime.store.fetch_tree(version.artefact, version.artefact_sha256))


def _remembered(work: Work) -> dict[str, int]:
    """How many texts this process was asked to embed so far, and how many of them it remembered."""
    encoder = models.encoder_in_use(work.runtime.settings)
    return {} if encoder is None else {"texts": encoder.n_asked, "remembered": encoder.n_remembered}


def _as_bytes(vectors: Vectors | None, n: int) -> list[bytes | None]:
    if vectors is None:
        return [None] * n
    return [row.tobytes() for row in vectors.astype(np.float16)]


def policy(settings: Settings, top_k: int, router: RouterModel, known: Mapping[str, ExpertView]) -> Policy:
    """The routing settings as the decision needs them."""
    routing = settings.routing
    return Policy(
        top_k=top_k,
        min_weight=routing.min_weight,
        in_scope_threshold=routing.in_scope_threshold,
        load_factor=routing.load_factor,
        load_from=routing.load_from,
        capacity_factor=routing.capacity_factor,
        availability=routing.availability,
        tie_margin=routing.tie_margin,
        balance_budget=routing.balance_budget,
        max_misroute=routing.max_misroute,
        risk=None if routing.max_misroute is None else router.risk(routing.max_misroute),
        parents={name: expert.card.get("parent") for name, expert in known.items()},
    )


def _row(
    query: OpenQuery, result: tuple[Decision, bytes | None] | Failed, known: Mapping[str, ExpertView]
) -> DecisionRow:
    if isinstance(result, Failed):
        reason = f"The query could not be routed: {result.reason}"
        return DecisionRow(query.idx, [], 0.0, 0.0, False, reason, {}, None)
    decision, vector = result
    chosen, reason = decision.experts, decision.reason
    if query.pinned is not None:
        chosen, reason = ((query.pinned, 1.0),), f"The line asked for {query.pinned}. Routing says: {reason}"
    experts = [
        {"name": name, "version": known[name].version, "weight": weight} for name, weight in chosen if name in known
    ]
    return DecisionRow(
        query.idx,
        experts,
        decision.confidence,
        decision.coverage,
        decision.in_scope,
        reason,
        decision.explanation,
        vector,
    )


def cut_chunks(decisions: Sequence[DecisionRow], known: Mapping[str, ExpertView], chunk_size: int) -> list[NewChunk]:
    """One chunk per expert, or several of at most ``chunk_size`` queries, in the order of the queries."""
    by_expert: dict[str, list[int]] = {}
    for decision in decisions:
        for expert in decision.experts:
            by_expert.setdefault(expert["name"], []).append(decision.idx)
    return [
        NewChunk(name, known[name].id, known[name].version_id, known[name].knowledge_id, idxs[at : at + chunk_size])
        for name, idxs in sorted(by_expert.items())
        for at in range(0, len(idxs), chunk_size)
    ]
