"""Runs at any point of their way, made with the storage functions themselves."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, Row, text

from storage import catalogue, chunks, finalizing, jobs, leases, runs, shards, submitting, windows
from storage.catalogue import ExpertView, NewExpert
from storage.chunks import AnswerRow, ClaimedChunk
from storage.finalizing import FinalizingRun
from storage.hints import ChordHint
from storage.jobs import ClaimedJob
from storage.leases import Lease
from storage.lines import error_line, output_line
from storage.runs import RunView
from storage.shards import ClaimedShard, DecisionRow, NewChunk, OutcomeRow
from storage.submitting import AcceptedLine, RejectedLine, RunOptions

P = ParamSpec("P")
T = TypeVar("T")

OWNER = "router@host/message"
TTL_S = 60.0
MAX_ATTEMPTS = 3
CARD: dict[str, Any] = {"title": "An expert", "description": "Answers.", "keywords": ["a"]}


class Store:
    """Calls storage functions, each in a transaction of its own, as the tasks do."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.engine.begin() as connection:
            return function(connection, *args, **kwargs)

    def sql(self, statement: str, **parameters: Any) -> int:
        """Run a statement; the number of rows it touched."""
        with self.engine.begin() as connection:
            return connection.execute(text(statement), parameters).rowcount

    def rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            return [tuple(row) for row in connection.execute(text(query), parameters)]

    def row(self, query: str, **parameters: Any) -> Row[Any]:
        with self.engine.begin() as connection:
            return connection.execute(text(query), parameters).one()

    def values(self, query: str, **parameters: Any) -> list[Any]:
        return [row[0] for row in self.rows(query, **parameters)]

    def value(self, query: str, **parameters: Any) -> Any:
        (found,) = self.values(query, **parameters)
        return found


def put_expert(store: Store, name: str = "alpha") -> ExpertView:
    """A stored expert with one version and nothing else."""
    store(catalogue.put_expert, NewExpert(name, "echo", CARD, [], []))
    return store(catalogue.expert, name)


def accepted(n: int) -> list[AcceptedLine]:
    """``n`` lines with the ids q0, q1, …, on the file's lines 1, 2, …"""
    return [AcceptedLine(i + 1, f"q{i}", f"question {i}") for i in range(n)]


def rejected(line_no: int, code: str = "invalid_json", message: str = "This line is not JSON.") -> RejectedLine:
    return RejectedLine(line_no, code, message)


def submit(store: Store, lines: int | Iterable[AcceptedLine | RejectedLine] = 4, **options: Any) -> RunView:
    """A run that was taken in and not yet planned."""
    given = accepted(lines) if isinstance(lines, int) else lines
    submitted = store(submitting.submit, RunOptions(**options), given)
    return store(runs.view, submitted.id)


def start(
    store: Store,
    lines: int | Iterable[AcceptedLine | RejectedLine] = 4,
    *,
    shard_size: int = 2,
    window: int = 100,
    **options: Any,
) -> RunView:
    """A run that was planned, its shards queued as far as the window goes."""
    run = submit(store, lines, **options)
    store(shards.plan, run.id, shard_size)
    store(windows.fill, window=window)
    return store(runs.view, run.id)


def shard_ids(store: Store, run: RunView, state: str | None = None) -> list[int]:
    return store.values(
        "SELECT id FROM shard WHERE run_id = :run AND state = coalesce(:state, state) ORDER BY start, id",
        run=run.id,
        state=state,
    )


def chunk_ids(store: Store, run: RunView, state: str | None = None) -> list[int]:
    return store.values(
        "SELECT id FROM chunk WHERE run_id = :run AND state = coalesce(:state, state) ORDER BY id",
        run=run.id,
        state=state,
    )


def claim_routing(store: Store, shard_id: int, *, owner: str = OWNER, max_attempts: int = MAX_ATTEMPTS) -> ClaimedShard:
    claimed = store(shards.claim_for_routing, shard_id, owner=owner, ttl_s=TTL_S, max_attempts=max_attempts)
    assert claimed is not None
    return claimed


def claim_chunk(store: Store, chunk_id: int, *, owner: str = OWNER, max_attempts: int = MAX_ATTEMPTS) -> ClaimedChunk:
    claimed = store(chunks.claim, chunk_id, owner=owner, ttl_s=TTL_S, max_attempts=max_attempts)
    assert claimed is not None
    return claimed


def claim_combining(
    store: Store, shard_id: int, *, owner: str = OWNER, max_attempts: int = MAX_ATTEMPTS
) -> ClaimedShard:
    claimed = store(shards.claim_for_combining, shard_id, owner=owner, ttl_s=TTL_S, max_attempts=max_attempts)
    assert claimed is not None
    return claimed


def claim_run(store: Store, run: RunView, *, owner: str = OWNER) -> FinalizingRun:
    claimed = store(finalizing.claim, run.id, owner=owner, ttl_s=TTL_S)
    assert claimed is not None
    return claimed


def claim_job(store: Store, job_id: int, *, owner: str = OWNER, max_attempts: int = MAX_ATTEMPTS) -> ClaimedJob:
    claimed = store(jobs.claim, job_id, owner=owner, ttl_s=TTL_S, max_attempts=max_attempts)
    assert claimed is not None
    return claimed


def running_job(store: Store, subject: str | None = None) -> ClaimedJob:
    """A job that a worker has in hand."""
    return claim_job(store, store(jobs.add, "train", subject=subject))


def decision(idx: int, experts: Sequence[str]) -> DecisionRow:
    """Equal weights for these experts."""
    chosen = [{"name": name, "version": 1, "weight": 1 / len(experts)} for name in experts]
    return DecisionRow(idx, chosen, 0.75, 0.5, True, "By a test.", {}, None)


def routed(
    connection: Connection, shard: ClaimedShard, experts: Sequence[ExpertView], chunk_size: int = 100
) -> tuple[list[DecisionRow], list[NewChunk]]:
    """Every open line of the shard goes to every one of these experts."""
    idxs = [query.idx for query in shards.open_queries(connection, shard)]
    made = [
        NewChunk(expert.name, expert.id, expert.version_id, expert.knowledge_id, idxs[at : at + chunk_size])
        for expert in experts
        for at in range(0, len(idxs), chunk_size)
    ]
    return [decision(idx, [expert.name for expert in experts]) for idx in idxs], made


def settle_routing(
    store: Store, shard: ClaimedShard, experts: Sequence[ExpertView], chunk_size: int = 100
) -> ChordHint | None:
    decisions, made = store(routed, shard, experts, chunk_size)
    return store(shards.settle_routing, shard, decisions, made, router_version_id=1, route_ms=8.0)


def answer_rows(chunk: ClaimedChunk) -> list[AnswerRow]:
    return [AnswerRow(idx, f"{chunk.expert} on {idx}", True, 0.5, [], 1.0) for idx in chunk.idxs]


def settle_answers(store: Store, chunk: ClaimedChunk) -> bool:
    return store(chunks.settle_answers, chunk, answer_rows(chunk), busy_ms=4.0)


def good(shard: ClaimedShard, idx: int, custom_id: str | None = None) -> OutcomeRow:
    """An outcome with a line for the output file."""
    passport = {"line": idx + 1, "answered_by": "alpha"}
    line = output_line(
        run=shard.run, idx=idx, custom_id=custom_id, created=shard.created, model="moe", text="yes", passport=passport
    )
    return OutcomeRow(idx, line)


def bad(
    shard: ClaimedShard,
    idx: int,
    custom_id: str | None = None,
    *,
    code: str = "engine_error",
    message: str = "It broke.",
) -> OutcomeRow:
    """An outcome with a line for the error file."""
    line = error_line(run=shard.run, idx=idx, custom_id=custom_id, line_no=idx + 1, code=code, message=message)
    return OutcomeRow(idx, line, code, message)


def outcomes_of(connection: Connection, shard: ClaimedShard, failing: Iterable[int] = ()) -> list[OutcomeRow]:
    """One for each line that was answered; those in ``failing`` end as errors, as do those nobody could answer."""
    broken = set(failing)
    return [
        bad(shard, query.idx, query.custom_id)
        if query.idx in broken or all(answer["error_code"] for answer in query.answers)
        else good(shard, query.idx, query.custom_id)
        for query in shards.answered_queries(connection, shard)
    ]


def settle_combining(store: Store, shard: ClaimedShard, failing: Iterable[int] = ()) -> bool:
    rows = store(outcomes_of, shard, failing)
    return store(shards.settle_combining, shard, rows, combine_ms=2.0)


def route(store: Store, shard_id: int, experts: Sequence[ExpertView], chunk_size: int = 100) -> list[int]:
    """Route a queued shard; its chunks."""
    hint = settle_routing(store, claim_routing(store, shard_id), experts, chunk_size)
    return [] if hint is None else [chunk.chunk_id for chunk in hint.chunks]


def answer(store: Store, chunk_id: int) -> bool:
    return settle_answers(store, claim_chunk(store, chunk_id))


def combine(store: Store, shard_id: int, failing: Iterable[int] = ()) -> bool:
    return settle_combining(store, claim_combining(store, shard_id), failing)


def answer_all(store: Store, run: RunView, experts: Sequence[ExpertView], failing: Iterable[int] = ()) -> RunView:
    """Bring every shard of the run to its end; the run then waits for its files."""
    broken = set(failing)
    for shard_id in shard_ids(store, run, "queued"):
        for chunk_id in route(store, shard_id, experts):
            answer(store, chunk_id)
        combine(store, shard_id, broken)
    return store(runs.view, run.id)


def files_of(connection: Connection, run: FinalizingRun) -> tuple[list[str], list[str]]:
    """The lines of the output file and of the error file."""
    output, errors = (
        [line for part in finalizing.lines(connection, run.lease.id, ok=ok) for line in part] for ok in (True, False)
    )
    return output, errors


def settle_files(store: Store, run: FinalizingRun) -> bool:
    output, errors = store(files_of, run)
    stored = [
        {"path": f"runs/{run.public_id}/{kind}.jsonl", "sha256": "0" * 64, "size": 0, "lines": len(lines)}
        for kind, lines in (("output", output), ("errors", errors))
    ]
    return store(finalizing.settle_files, run, *stored)


def finalize(store: Store, run: RunView) -> RunView:
    """Close what is open where the run is being ended, and write its files."""
    store(finalizing.close_open_lines, run.id)
    settle_files(store, claim_run(store, run))
    return store(runs.view, run.id)


def ended(
    store: Store,
    lines: int | Iterable[AcceptedLine | RejectedLine] = 4,
    *,
    failing: Iterable[int] = (),
    **options: Any,
) -> RunView:
    """A run that went all its way; the lines in ``failing`` (by idx) ended as errors."""
    run = start(store, lines, **options)
    return finalize(store, answer_all(store, run, [put_expert(store)], failing))


def expire_leases(store: Store) -> None:
    """The clock of these tests: whatever is leased now ran out a second ago."""
    for table in leases.GIVEN_BACK:
        store.sql(
            f"UPDATE {table} SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_until IS NOT NULL"
        )


def end_rests(store: Store) -> None:
    """Let every pause between two tries be over."""
    for table in leases.GIVEN_BACK:
        store.sql(f"UPDATE {table} SET not_before = clock_timestamp() WHERE not_before > clock_timestamp()")


def state_of(store: Store, lease: Lease) -> str:
    return str(store.value(f"SELECT state FROM {lease.table} WHERE id = :id", id=lease.id))


def at_once(store: Store, works: Sequence[Callable[[Connection], T]]) -> list[T]:
    """Do each of ``works`` in a transaction of its own, all begun before the first does anything; what they came to."""
    ready = threading.Barrier(len(works))

    def one(work: Callable[[Connection], T]) -> T:
        with store.engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1")
            ready.wait()
            return work(connection)

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(one, work) for work in works]]


def behind(
    store: Store, first: Callable[[Connection], Any], second: Callable[[Connection], T], *, commit: bool = True
) -> Future[T]:
    """Begin ``second`` between ``first`` and its commit (or rollback), which it has to wait for; what it came to."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with store.engine.connect() as connection, ThreadPoolExecutor(1) as pool:
        first(connection)
        late = pool.submit(store, second)
        while store.value(waiting) == 0:
            assert not late.done()
        (connection.commit if commit else connection.rollback)()
    return late
