"""Any order of work, failure, sweep and command on several runs at once ends with one outcome for every line."""

import sys
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, Row, text

from storage import chunks, finalizing, invariants, leases, retrying, runs, shards, submitting, sweeping, windows
from storage.chunks import AnswerRow, ClaimedChunk
from storage.errors import NotAllowed
from storage.finalizing import FinalizingRun
from storage.leases import LeaseLost
from storage.runs import RunView
from storage.shards import ClaimedShard, DecisionRow, NewChunk, OutcomeRow
from storage.states import CHUNK_OPEN, RUN_ENDED, SHARD_OPEN
from storage.submitting import AcceptedLine, RejectedLine, RunOptions
from storage.sweeping import Patience
from tests.unit.storage.builders import (
    Store,
    decision,
    end_rests,
    expire_leases,
    files_of,
    outcomes_of,
    put_expert,
    rejected,
)

# Leases and rests are so long that none of them ends by itself: the rules decide when time passes.
LONG_S = 3600.0
MAX_ATTEMPTS = 2
PATIENCE = Patience(MAX_ATTEMPTS, back_off_s=LONG_S, back_off_limit_s=LONG_S)
MOST_RUNS = 4
MOST_RETRIES = 2
# Far more rounds of sweeping and working than any of these runs can need.
ROUNDS = 60

SEEN = {
    "run": """SELECT id, state, generation, epoch, attempts, kind, priority, public_id, n_total,
                     paused_at IS NOT NULL AS paused, n_error - n_rejected AS n_failed, n_rejected,
                     lease_until IS NOT NULL AS leased, coalesce(lease_until < clock_timestamp(), false) AS expired,
                     not_before <= clock_timestamp() AS rested
              FROM run ORDER BY id""",
    "shard": """SELECT id, run_id, state, epoch, attempts, chunks_left, depth, start, stop,
                       lease_until IS NOT NULL AS leased, coalesce(lease_until < clock_timestamp(), false) AS expired,
                       not_before <= clock_timestamp() AS rested
                FROM shard ORDER BY id""",
    "chunk": """SELECT id, run_id, shard_id, state, epoch, attempts, depth, idxs,
                       lease_until IS NOT NULL AS leased, coalesce(lease_until < clock_timestamp(), false) AS expired,
                       not_before <= clock_timestamp() AS rested
                FROM chunk ORDER BY id""",
    "outcome": "SELECT run_id, idx, ok, error_code, shard_id, epoch, line::text AS line FROM outcome",
    "answer": "SELECT run_id, idx, expert_id, chunk_id, epoch, error_code FROM answer",
    "decision": "SELECT run_id, idx, experts FROM decision",
}
KEYS = {"outcome": ("run_id", "idx"), "answer": ("run_id", "idx", "expert_id"), "decision": ("run_id", "idx")}
TERMINAL = {
    "shard": ("done", "split", "cancelled"),
    "chunk": ("done", "dead", "split", "cancelled"),
    "run": RUN_ENDED,
}

# What the lines of a run are like.
LINES = st.lists(st.sampled_from(["good", "good", "good", "good", "twice", "broken"]), min_size=1, max_size=8)

Table = Literal["run", "shard", "chunk", "outcome", "answer", "decision"]
Snapshot = dict[str, dict[Any, Row[Any]]]


def look(connection: Connection) -> Snapshot:
    """Everything that matters of all runs."""
    found: Snapshot = {}
    for table, query in SEEN.items():
        key = KEYS.get(table)
        rows = connection.execute(text(query)).all()
        found[table] = {tuple(getattr(row, name) for name in key) if key else row.id: row for row in rows}
    return found


@dataclass(frozen=True)
class Routing:
    """What a router that claimed a shard is about to store."""

    claim: ClaimedShard
    decisions: list[DecisionRow]
    chunks: list[NewChunk]
    goes_to = "answering"


@dataclass(frozen=True)
class Answering:
    claim: ClaimedChunk
    answers: list[AnswerRow]
    goes_to = "done"


@dataclass(frozen=True)
class Combining:
    claim: ClaimedShard
    outcomes: list[OutcomeRow]
    goes_to = "done"


@dataclass(frozen=True)
class Writing:
    """The lines a control worker read for the files of a run."""

    claim: FinalizingRun
    output: list[str]
    errors: list[str]

    @property
    def goes_to(self) -> str:
        return self.claim.ending


Work = Routing | Answering | Combining | Writing


class Batches(RuleBasedStateMachine):
    """Workers, sweepers, people and lost leases on one database.

    A worker's result is made when it claims, as it would be, and may be settled at any later time: while its lease
    holds, a second time, or when the row was long given to others. `seen` is the database after the last step; from
    it the rules know what must happen next.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.store = Store(engine)
        for table in ("run", "expert"):
            self.store.sql(f"DELETE FROM {table}")
        self.experts = [put_expert(self.store, name) for name in ("alpha", "beta")]
        self.work: list[Work] = []
        self.steps = 0
        self.retries: dict[int, int] = {}
        self.reopened: set[tuple[int, int]] = set()
        self.seen = self.before = self.store(look)

    # --- what is there ------------------------------------------------------------------------------------------

    def runs(self, *states: str) -> list[int]:
        return [row.id for row in self.seen["run"].values() if not states or row.state in states]

    def view(self, run_id: int) -> RunView:
        return self.store(runs.view, run_id)

    def is_open(self, run_id: int) -> bool:
        """Whether the run hands out work now."""
        run = self.seen["run"][run_id]
        return run.state == "in_progress" and not run.paused

    def claimable(self, table: Table, waiting: str, leased: str) -> list[int]:
        """The rows that a message to a worker would be answered for with a lease."""
        return [
            row.id
            for row in self.seen[table].values()
            if self.is_open(row.run_id)
            and (
                (row.state == waiting and row.rested and (table == "chunk" or row.chunks_left == 0))
                or (row.state == leased and row.expired and row.attempts < MAX_ATTEMPTS)
            )
        ]

    def to_route(self) -> list[int]:
        return self.claimable("shard", "queued", "routing")

    def to_answer(self) -> list[int]:
        return self.claimable("chunk", "queued", "leased")

    def to_combine(self) -> list[int]:
        return self.claimable("shard", "answering", "combining")

    def to_write(self) -> list[int]:
        return [
            row.id
            for row in self.seen["run"].values()
            if row.state == "finalizing" and row.rested and (row.expired or not row.leased)
        ]

    def due(self) -> list[tuple[str, int]]:
        """Every task that has something to do."""
        every = {"route": self.to_route, "answer": self.to_answer, "combine": self.to_combine, "write": self.to_write}
        return [(kind, row_id) for kind, due in every.items() for row_id in due()]

    def held(self) -> list[Work]:
        """The work whose lease nobody has taken away, whether it ran out or not."""
        return [work for work in self.work if self.holds(work)]

    def late(self) -> list[Work]:
        return [work for work in self.work if not self.holds(work)]

    def holds(self, work: Work) -> bool:
        lease = work.claim.lease
        row = self.seen[lease.table][lease.id]
        return bool(row.leased and row.epoch == lease.epoch)

    def owner_of(self, work: Work) -> str:
        lease = work.claim.lease
        return str(self.store.value(f"SELECT owner FROM {lease.table} WHERE id = :id", id=lease.id))

    # --- a step of one worker -----------------------------------------------------------------------------------

    def claim(self, kind: str, row_id: int) -> ClaimedShard | ClaimedChunk | FinalizingRun | None:
        self.steps += 1
        given: dict[str, Any] = {"owner": f"worker-{self.steps}", "ttl_s": LONG_S}
        if kind == "write":
            return self.store(finalizing.claim, row_id, **given)
        given["max_attempts"] = MAX_ATTEMPTS
        if kind == "answer":
            return self.store(chunks.claim, row_id, **given)
        take = shards.claim_for_routing if kind == "route" else shards.claim_for_combining
        return self.store(take, row_id, **given)

    def start(self, kind: str, row_id: int, data: st.DataObject) -> Work:
        """Claim a row that is due and make the result."""
        claim = self.claim(kind, row_id)
        assert claim is not None
        work: Work
        match kind, claim:
            case "route", ClaimedShard():
                work = Routing(claim, *self.route_lines(claim, data))
            case "answer", ClaimedChunk():
                failing = data.draw(st.sampled_from([set(), set(), set(claim.idxs), {claim.idxs[0]}]))
                work = Answering(claim, [answered(claim, idx, fails=idx in failing) for idx in claim.idxs])
            case "combine", ClaimedShard():
                failing = data.draw(st.sets(st.integers(claim.start, claim.stop - 1), max_size=2))
                work = Combining(claim, self.store(outcomes_of, claim, failing))
            case "write", FinalizingRun():
                work = Writing(claim, *self.store(files_of, claim))
            case _:
                raise AssertionError(kind)
        self.work.append(work)
        self.seen = self.store(look)
        return work

    def route_lines(self, claim: ClaimedShard, data: st.DataObject) -> tuple[list[DecisionRow], list[NewChunk]]:
        """Every line goes to the first experts of the list, or, where routing failed, to none."""
        queries = self.store(shards.open_queries, claim)
        widths = data.draw(st.lists(st.integers(0, 2), min_size=len(queries), max_size=len(queries)))
        chunk_size = data.draw(st.integers(1, 4))
        made = []
        for place, expert in enumerate(self.experts):
            idxs = [query.idx for query, width in zip(queries, widths, strict=True) if width > place]
            made += [
                NewChunk(expert.name, expert.id, expert.version_id, None, idxs[at : at + chunk_size])
                for at in range(0, len(idxs), chunk_size)
            ]
        names = [expert.name for expert in self.experts]
        return [decision(q.idx, names[:width]) for q, width in zip(queries, widths, strict=True)], made

    def store_result(self, work: Work) -> object:
        match work:
            case Routing(claim, decisions, made):
                return self.store(shards.settle_routing, claim, decisions, made, router_version_id=1, route_ms=8.0)
            case Answering(claim, answers):
                return self.store(chunks.settle_answers, claim, answers, busy_ms=4.0)
            case Combining(claim, outcomes):
                return self.store(shards.settle_combining, claim, outcomes, combine_ms=2.0)
            case Writing(claim, output, errors):
                stored = [{"path": "", "sha256": "", "size": 0, "lines": len(lines)} for lines in (output, errors)]
                return self.store(finalizing.settle_files, claim, *stored)

    def settle(self, work: Work) -> None:
        """Settle under a lease that holds: everything is stored, or, after a cancel, nothing."""
        lease = work.claim.lease
        before = self.seen
        if isinstance(work, Combining) and before["run"][work.claim.run_id].state != "in_progress":
            with pytest.raises(LeaseLost):
                self.store_result(work)
            self.expect_nothing_changed(before)
            return
        result = self.store_result(work)
        self.seen = self.store(look)
        row = self.seen[lease.table][lease.id]
        assert (row.state, row.leased, row.epoch) == (work.goes_to, False, lease.epoch)
        match work:
            case Routing(claim, decisions, made):
                assert row.chunks_left == len(made)
                hinted = [hint.chunk_id for hint in result.chunks]  # type: ignore[attr-defined]
                assert sorted(hinted) == sorted(self.seen["chunk"].keys() - before["chunk"].keys())
                assert {(claim.run_id, d.idx) for d in decisions} == added("decision", before, self.seen)
            case Answering(claim, answers):
                assert result == (self.seen["shard"][claim.shard_id].chunks_left == 0)
                stored = {(claim.run_id, a.idx, claim.expert_id) for a in answers}
                assert stored == added("answer", before, self.seen)
            case Combining(claim, outcomes):
                assert result == (self.seen["run"][claim.run_id].state == "finalizing")
                assert {(claim.run_id, o.idx) for o in outcomes} == added("outcome", before, self.seen)
            case Writing():
                assert result is True

    def settle_late(self, work: Work) -> None:
        """Settle under a lease that is over: nothing is stored, whoever has the row now."""
        lease = work.claim.lease
        before = self.seen
        row = before[lease.table][lease.id]
        if row.epoch == lease.epoch and row.state == work.goes_to:
            assert not self.store_result(work)  # settled before, or given up for this worker
        else:
            with pytest.raises(LeaseLost):
                self.store_result(work)
        self.expect_nothing_changed(before)

    def expect_nothing_changed(self, before: Snapshot) -> None:
        self.seen = self.store(look)
        assert self.seen == before

    def do(self, kind: str, row_id: int, data: st.DataObject) -> None:
        """The whole of a task, undisturbed."""
        self.settle(self.start(kind, row_id, data))

    # --- rules: taking in and handing out -----------------------------------------------------------------------

    @initialize(several=st.lists(LINES, min_size=1, max_size=2), size=st.integers(1, 4), window=st.integers(1, 8))
    def begin(self, several: list[list[str]], size: int, window: int) -> None:
        """Some runs are under way already."""
        for lines in several:
            self.submit(lines, 2)
        for run_id in self.store.values("SELECT id FROM run ORDER BY id"):
            self.store(shards.plan, run_id, size)
        self.store(windows.fill, window=window)

    @precondition(lambda self: len(self.seen["run"]) < MOST_RUNS)
    @rule(lines=LINES, priority=st.sampled_from([1, 2, 4, 8]))
    def submit(self, lines: list[str], priority: int) -> None:
        given: list[AcceptedLine | RejectedLine] = []
        for number, kind in enumerate(lines, 1):
            custom_id = "twice" if kind == "twice" else f"q{number}"
            given.append(
                rejected(number) if kind == "broken" else AcceptedLine(number, custom_id, f"question {number}")
            )
        run = self.store(submitting.submit, RunOptions(priority=priority), given)
        good = {line.custom_id for line in given if isinstance(line, AcceptedLine)}
        assert (run.n_total, run.n_rejected) == (len(lines), len(lines) - len(good))

    @precondition(lambda self: self.runs("validating"))
    @rule(data=st.data(), size=st.integers(1, 4))
    def plan(self, data: st.DataObject, size: int) -> None:
        run_id = data.draw(st.sampled_from(self.runs("validating")))
        ended = self.store(shards.plan, run_id, size)
        self.seen = self.store(look)
        cut = [row for row in self.seen["shard"].values() if row.run_id == run_id]
        assert ended == (cut == [])
        assert all(row.state == "planned" for row in cut)

    @precondition(lambda self: any(row.state == "planned" for row in self.seen["shard"].values()))
    @rule(window=st.integers(1, 8))
    def fill_window(self, window: int) -> None:
        hints = self.store(windows.fill, window=window)
        before, self.seen = self.seen, self.store(look)
        moved = [i for i, row in before["shard"].items() if row.state != self.seen["shard"][i].state]
        assert sorted(hint.shard_id for hint in hints) == moved
        assert all(self.seen["shard"][i].state == "queued" and self.is_open(before["shard"][i].run_id) for i in moved)

    # --- rules: work --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.to_route())
    @rule(data=st.data(), whole=st.booleans())
    def route(self, data: st.DataObject, whole: bool) -> None:
        work = self.start("route", data.draw(st.sampled_from(self.to_route())), data)
        if whole:
            self.settle(work)

    @precondition(lambda self: self.to_answer())
    @rule(data=st.data(), whole=st.booleans())
    def answer(self, data: st.DataObject, whole: bool) -> None:
        work = self.start("answer", data.draw(st.sampled_from(self.to_answer())), data)
        if whole:
            self.settle(work)

    @precondition(lambda self: self.to_combine())
    @rule(data=st.data(), whole=st.booleans())
    def combine(self, data: st.DataObject, whole: bool) -> None:
        work = self.start("combine", data.draw(st.sampled_from(self.to_combine())), data)
        if whole:
            self.settle(work)

    @precondition(lambda self: self.to_write())
    @rule(data=st.data(), whole=st.booleans())
    def write_files(self, data: st.DataObject, whole: bool) -> None:
        work = self.start("write", data.draw(st.sampled_from(self.to_write())), data)
        if whole:
            self.settle(work)

    @precondition(lambda self: self.due())
    @rule(data=st.data(), steps=st.integers(1, 8))
    def work_undisturbed(self, data: st.DataObject, steps: int) -> None:
        for _ in range(steps):
            due = self.due()
            if due:
                self.do(*data.draw(st.sampled_from(due)), data)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def settle_held(self, data: st.DataObject) -> None:
        self.settle(data.draw(st.sampled_from(self.held())))

    @precondition(lambda self: self.late())
    @rule(data=st.data())
    def settle_too_late(self, data: st.DataObject) -> None:
        self.settle_late(data.draw(st.sampled_from(self.late())))

    @precondition(lambda self: self.seen["run"])
    @rule(data=st.data(), kind=st.sampled_from(["plan", "route", "answer", "combine", "close", "write"]))
    def message_for_nothing(self, data: st.DataObject, kind: str) -> None:
        """A message that was doubled, late or forged is answered with nothing."""
        table, due = {
            "plan": ("run", self.runs("validating")),
            "route": ("shard", self.to_route()),
            "answer": ("chunk", self.to_answer()),
            "combine": ("shard", self.to_combine()),
            "close": ("run", self.runs("cancelling", "expiring")),
            "write": ("run", self.to_write()),
        }[kind]
        row_id = data.draw(st.sampled_from([0, *sorted(self.seen[table].keys() - set(due))]))
        if kind == "plan":
            assert self.store(shards.plan, row_id, 1) is False
        elif kind == "close":
            assert self.store(finalizing.close_open_lines, row_id) is False
        else:
            assert self.claim(kind, row_id) is None
        self.expect_nothing_changed(self.seen)

    # --- rules: what goes wrong ---------------------------------------------------------------------------------

    @precondition(lambda self: any(work.claim.lease.attempts < MAX_ATTEMPTS for work in self.held()))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """The work raised and is given back; a worker does so only while there are tries left."""
        work = data.draw(st.sampled_from([work for work in self.held() if work.claim.lease.attempts < MAX_ATTEMPTS]))
        assert self.store(leases.give_back, work.claim.lease, LONG_S) is True
        assert self.store(leases.renew, work.claim.lease) is False

    @precondition(lambda self: self.work)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        work = data.draw(st.sampled_from(self.work))
        assert self.store(leases.renew, work.claim.lease) is self.holds(work)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.held())).claim.lease
        late = "lease_until = clock_timestamp() - interval '1 second'"
        self.store.sql(f"UPDATE {lease.table} SET {late} WHERE id = :id", id=lease.id)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def worker_is_killed(self, data: st.DataObject) -> None:
        """A process that is known to be dead gives up its leases at once."""
        work = data.draw(st.sampled_from(self.held()))
        assert self.store(sweeping.recover, PATIENCE, dead_owner=self.owner_of(work)) == 1
        self.seen = self.store(look)
        assert not self.holds(work)

    @precondition(lambda self: self.due())
    @rule(data=st.data(), tries=st.integers(1, 12), cancelled=st.sampled_from([False, False, False, True]))
    def work_that_kills(self, data: st.DataObject, tries: int, cancelled: bool) -> None:
        """Whoever takes up this work, or a half of it, dies of it; the run may be cancelled during a last try."""
        kind, first = data.draw(st.sampled_from(self.due()))
        deadly = {first}
        for _ in range(tries):
            due = [row_id for name, row_id in self.due() if name == kind and row_id in deadly]
            if not due:
                return
            before = self.seen
            work = self.start(kind, due[0], data)
            owner = self.owner_of(work)
            if cancelled and work.claim.lease.attempts == MAX_ATTEMPTS and not isinstance(work, Writing):
                self.store(runs.cancel, self.view(work.claim.run_id))
            assert self.store(sweeping.recover, PATIENCE, dead_owner=owner) == 1
            end_rests(self.store)
            self.seen = self.store(look)
            table = work.claim.lease.table
            deadly |= self.seen[table].keys() - before[table].keys()

    @precondition(lambda self: not all(row.rested for table in TERMINAL for row in self.seen[table].values()))
    @rule()
    def rests_end(self) -> None:
        end_rests(self.store)

    @precondition(lambda self: self.seen["run"])
    @rule(window=st.integers(1, 8))
    def sweep(self, window: int) -> None:
        lost = sum(row.expired for table in ("run", "shard", "chunk") for row in self.seen[table].values())
        assert self.store(sweeping.recover, PATIENCE) == lost
        assert self.store(sweeping.recover, PATIENCE) == 0
        self.seen = self.store(look)
        assert not any(row.expired for table in ("run", "shard", "chunk") for row in self.seen[table].values())
        chunk_hints = self.store(sweeping.due_chunks, stale_s=0, window=1000)
        other_hints = self.store(sweeping.due_others, stale_s=0, window=1000)
        assert {hint.chunk_id for hint in chunk_hints} == set(self.to_answer())
        due = [getattr(hint, "run_id", None) or hint.shard_id for hint in other_hints]  # type: ignore[union-attr]
        ending = [*self.runs("validating", "cancelling", "expiring"), *self.to_write()]
        assert sorted(due) == sorted([*ending, *self.to_route(), *self.to_combine()])
        self.store(sweeping.mark_published, [*chunk_hints, *other_hints])
        assert self.store(sweeping.due_chunks, stale_s=LONG_S, window=1000) == []
        assert self.store(sweeping.due_others, stale_s=LONG_S, window=1000) == []
        self.store(windows.fill, window=window)

    # --- rules: people ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.seen["run"])
    @rule(data=st.data(), command=st.sampled_from(["pause", "resume", "pause", "resume", "cancel", "deadline"]))
    def command(self, data: st.DataObject, command: str) -> None:
        run = self.view(data.draw(st.sampled_from(self.runs())))
        working = run.state in ("validating", "in_progress")
        if command == "cancel":
            assert self.store(runs.cancel, run) == working
        elif command == "deadline":
            self.store.sql("UPDATE run SET deadline = created_at WHERE id = :id", id=run.id)
            assert self.store(runs.expire_overdue) == [run.id] * working
        elif run.ended:
            with pytest.raises(NotAllowed):
                self.store(runs.pause, run, paused=command == "pause")
        else:
            changes = run.paused != (command == "pause")
            assert self.store(runs.pause, run, paused=command == "pause") == changes

    @precondition(lambda self: self.runs("cancelling", "expiring"))
    @rule(data=st.data())
    def close_open_lines(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.runs("cancelling", "expiring")))
        assert self.store(finalizing.close_open_lines, run_id) is True

    @precondition(lambda self: self.runs(*RUN_ENDED))
    @rule(data=st.data(), size=st.integers(1, 4), edit=st.booleans())
    def retry_failed(self, data: st.DataObject, size: int, edit: bool) -> None:
        run = self.view(data.draw(st.sampled_from(self.runs(*RUN_ENDED))))
        failed = {row.idx for row in self.seen["outcome"].values() if row.run_id == run.id and not row.ok}
        broken = self.store.rows("SELECT idx, line_no FROM query WHERE run_id = :id AND rejected", id=run.id)
        again = failed if edit else failed - {idx for idx, _ in broken}
        edits = [AcceptedLine(n, f"edited-{n}-{run.generation}", "now it is right") for _, n in broken] if edit else []
        if not again or self.retries.get(run.id, 0) == MOST_RETRIES:
            with pytest.raises(NotAllowed):
                self.store(retrying.retry_failed, run, codes=["no_such_code"], edits=edits, shard_size=size)
            self.expect_nothing_changed(self.seen)
            return
        assert self.store(retrying.retry_failed, run, edits=edits, shard_size=size) == len(again)
        self.retries[run.id] = self.retries.get(run.id, 0) + 1
        self.reopened |= {(run.id, idx) for idx in again}

    # --- what always holds --------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_broken(self) -> None:
        with self.store.engine.begin() as connection:
            assert invariants.breaches(connection) == []
            now = look(connection)
        last, self.seen, self.before = self.before, now, now
        for table, terminal in TERMINAL.items():
            for key, row in last[table].items():
                after = now[table][key]
                assert after.epoch >= row.epoch
                if row.state in terminal and after.state != row.state:
                    assert (table, after.generation) == ("run", row.generation + 1)
        for key, outcome in last["outcome"].items():
            assert key in self.reopened or now["outcome"][key] == outcome
        self.reopened.clear()
        for row in [*now["shard"].values(), *now["chunk"].values()]:
            assert row.attempts <= MAX_ATTEMPTS
        self.expect_every_run_can_go_on(now)

    def expect_every_run_can_go_on(self, now: Snapshot) -> None:
        """A run in progress has an open shard, and an open chunk has a shard that waits for it."""
        working = {row.run_id for row in now["shard"].values() if row.state in SHARD_OPEN}
        assert working >= {row.id for row in now["run"].values() if row.state == "in_progress"}
        for row in now["chunk"].values():
            if row.state in CHUNK_OPEN:
                assert now["shard"][row.shard_id].state == "answering"

    # --- the end ------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:  # else the failure of a step is the one to be shown
            self.drive_to_the_end()
            self.check_files()

    def drive_to_the_end(self) -> None:
        self.store.sql("UPDATE run SET paused_at = NULL")
        for _ in range(ROUNDS):
            expire_leases(self.store)
            self.store(sweeping.recover, PATIENCE)
            end_rests(self.store)
            self.seen = self.store(look)
            if not self.runs() or set(self.runs()) == set(self.runs(*RUN_ENDED)):
                return
            for run_id in self.runs("validating"):
                self.store(shards.plan, run_id, 3)
            for run_id in self.runs("cancelling", "expiring"):
                self.store(finalizing.close_open_lines, run_id)
            self.store(windows.fill, window=100)
            self.finish_everything_due()
        raise AssertionError(f"these runs never ended: {self.seen['run']}")

    def finish_everything_due(self) -> None:
        for stage in ("route", "answer", "combine", "write"):
            self.seen = self.store(look)
            for kind, row_id in self.due():
                if kind == stage:
                    self.settle(self.plain_work(kind, self.claim(kind, row_id)))

    def plain_work(self, kind: str, claim: Any) -> Work:
        """The result of a worker to whom nothing happens."""
        self.seen = self.store(look)
        if kind == "route":
            queries = self.store(shards.open_queries, claim)
            idxs = [query.idx for query in queries]
            expert = self.experts[0]
            made = [NewChunk(expert.name, expert.id, expert.version_id, None, idxs)]
            return Routing(claim, [decision(idx, [expert.name]) for idx in idxs], made)
        if kind == "answer":
            return Answering(claim, [answered(claim, idx, fails=False) for idx in claim.idxs])
        if kind == "combine":
            return Combining(claim, self.store(outcomes_of, claim))
        return Writing(claim, *self.store(files_of, claim))

    def check_files(self) -> None:
        """Every line is in exactly one of the two files, in order, under its own id, and the counts agree."""
        with self.store.engine.begin() as connection:
            assert invariants.breaches(connection) == []
        for run_id in self.runs():
            files = self.store.row("SELECT output, errors, n_ok, n_error, n_total FROM run WHERE id = :id", id=run_id)
            output, errors = (self.lines_of(run_id, ok=ok) for ok in (True, False))
            assert (len(output), len(errors)) == (files.n_ok, files.n_error)
            assert (files.output["lines"], files.errors["lines"]) == (files.n_ok, files.n_error)
            assert sorted([*output, *errors]) == list(range(files.n_total))
            assert (output, errors) == (sorted(output), sorted(errors))
        assert all(row.state not in CHUNK_OPEN for row in self.seen["chunk"].values())
        for work in self.late():
            self.settle_late(work)

    def lines_of(self, run_id: int, *, ok: bool) -> list[int]:
        """The `idx` of each line in one file, after a look at whether it is the line of that query."""
        ids = dict(self.store.rows("SELECT idx, custom_id FROM query WHERE run_id = :id", id=run_id))
        public = self.seen["run"][run_id].public_id.replace("batch_", "batch_req_")
        with self.store.engine.begin() as connection:
            lines = [line for part in finalizing.lines(connection, run_id, ok=ok) for line in part]
        found = []
        for line in map(orjson.loads, lines):
            idx = int(line["id"].rsplit("_", 1)[1])
            assert line["id"] == f"{public}_{idx}"
            assert (line["error"] is None, line["response"] is not None) == (ok, ok)
            assert line["custom_id"] == ids[idx]
            found.append(idx)
        return found


def answered(chunk: ClaimedChunk, idx: int, *, fails: bool) -> AnswerRow:
    if fails:
        return AnswerRow(idx, None, False, 0.0, [], 1.0, error_code="engine_error", error_message="It broke.")
    return AnswerRow(idx, f"{chunk.expert} on {idx}", True, 0.5, [], 1.0)


def added(table: Table, before: Snapshot, after: Snapshot) -> set[Any]:
    return after[table].keys() - before[table].keys()


def test_every_line_ends_exactly_once_whatever_happens(engine: Engine) -> None:
    run_state_machine_as_test(
        lambda: Batches(engine),  # type: ignore[arg-type]
        settings=settings(
            max_examples=25,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            database=None,
            # Shrinking a failure takes minutes; add Phase.shrink by hand to have the shortest way to it.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
