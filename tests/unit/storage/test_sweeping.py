"""The sweeper: lost leases come back, deadly work is narrowed down, and lost messages are found again."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from storage import finalizing, invariants, job_control, jobs, leases, runs, shards, sweeping
from storage.catalogue import ExpertView
from storage.chunks import ClaimedChunk
from storage.hints import AnswerHint, CombineHint, FinalizeHint, Hint, JobHint, PlanHint, RouteHint
from storage.job_control import Wanted
from storage.leases import LeaseLost
from storage.sweeping import Patience
from tests.unit.storage.builders import (
    OWNER,
    TTL_S,
    Store,
    answer,
    answer_all,
    at_once,
    chunk_ids,
    claim_chunk,
    claim_combining,
    claim_job,
    claim_routing,
    claim_run,
    combine,
    end_rests,
    ended,
    expire_leases,
    put_expert,
    route,
    running_job,
    settle_answers,
    settle_combining,
    settle_routing,
    shard_ids,
    start,
    state_of,
    submit,
)

PATIENCE = Patience(max_attempts=3, back_off_s=0.5, back_off_limit_s=60.0)
AT_ONCE = Patience(max_attempts=1)
KILLED = "the query was given up after 1 tries; each time the worker died, stalled or failed"
LONG_S = 3600.0


def sweep(store: Store, patience: Patience = PATIENCE, **which: Any) -> int:
    expire_leases(store)
    return store(sweeping.recover, patience, **which)


def rest_of(store: Store, table: str, row_id: int) -> float:
    """How long the row rests from now, in seconds, to the nearest tenth."""
    query = f"SELECT extract(epoch FROM not_before - clock_timestamp()) FROM {table} WHERE id = :id"
    return float(round(store.value(query, id=row_id), 1))


# --- patience -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "size", "tries"), [(0, 1, 3), (0, 9, 3), (1, 9, 1), (5, 2, 1), (1, 1, 3), (5, 1, 3)])
def test_a_half_is_tried_once_and_a_single_query_as_often_as_a_whole(depth: int, size: int, tries: int) -> None:
    assert PATIENCE.allowed(depth, size) == tries


@pytest.mark.parametrize(
    ("attempts", "rest_s"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (1000, 60.0)]
)
def test_the_rest_doubles_up_to_its_limit(attempts: int, rest_s: float) -> None:
    assert PATIENCE.rest_s(attempts) == rest_s


# --- leases that ran out --------------------------------------------------------------------------------------


def test_a_lease_that_has_not_run_out_is_left_alone(store: Store) -> None:
    run = start(store)
    shard = claim_routing(store, shard_ids(store, run)[0])

    assert store(sweeping.recover, PATIENCE) == 0
    assert state_of(store, shard.lease) == "routing"
    assert store(leases.renew, shard.lease) is True


def test_every_kind_of_lost_lease_goes_back_to_waiting_with_a_rest(store: Store) -> None:
    expert = put_expert(store)
    run = start(store, 6)
    routing, answering, combining = shard_ids(store, run)
    (chunk_id,) = route(store, answering, [expert])
    for done in route(store, combining, [expert]):
        answer(store, done)
    writing = claim_run(store, answer_all(store, start(store), [expert]))
    held = [
        claim_routing(store, routing).lease,
        claim_chunk(store, chunk_id).lease,
        claim_combining(store, combining).lease,
        writing.lease,
        running_job(store).lease,
    ]
    # Rests are long here, so that none is over before it is looked at.
    patience = Patience(max_attempts=3, back_off_s=30, back_off_limit_s=60)

    assert sweep(store, patience) == 5

    assert [state_of(store, lease) for lease in held] == ["queued", "queued", "answering", "finalizing", "queued"]
    for lease in held:
        row = store.row(
            f"SELECT epoch, attempts, lease_until, owner, published_at FROM {lease.table} WHERE id = :id", id=lease.id
        )
        assert tuple(row) == (lease.epoch, lease.attempts, None, None, None)
        assert 29 < rest_of(store, lease.table, lease.id) <= 30


def test_a_swept_worker_can_store_nothing(store: Store) -> None:
    expert = put_expert(store)
    run = start(store)
    shard = claim_routing(store, shard_ids(store, run)[0])
    sweep(store)

    with pytest.raises(LeaseLost, match=rf"^shard {shard.lease.id} is no longer held by epoch 1$"):
        settle_routing(store, shard, [expert])
    assert store.value("SELECT count(*) FROM decision") == 0
    assert store.value("SELECT count(*) FROM chunk") == 0


def test_the_leases_of_a_dead_process_are_taken_before_they_run_out(store: Store) -> None:
    first, second = shard_ids(store, start(store))
    dead = claim_routing(store, first, owner="dead@host/1")
    alive = claim_routing(store, second, owner="alive@host/1")

    assert store(sweeping.recover, PATIENCE, dead_owner="dead@host/1") == 1
    assert [state_of(store, shard.lease) for shard in (dead, alive)] == ["queued", "routing"]


def test_one_sweep_takes_no_more_than_its_limit(store: Store) -> None:
    run = start(store, 6)
    for shard_id in shard_ids(store, run):
        claim_routing(store, shard_id)

    assert sweep(store, limit=2) == 2
    assert [len(shard_ids(store, run, state)) for state in ("queued", "routing")] == [2, 1]
    assert sweep(store, limit=2) == 1
    assert sweep(store, limit=2) == 0


# --- work that kills ------------------------------------------------------------------------------------------


def deadly(store: Store, marked: set[int], n: int, max_attempts: int) -> tuple[ExpertView, int, int]:
    """Answer one chunk of ``n`` queries with workers that die of the marked ones; (expert, shard, times died)."""
    expert = put_expert(store)
    run = start(store, n, shard_size=n)
    (shard_id,) = shard_ids(store, run)
    route(store, shard_id, [expert])
    patience = Patience(max_attempts)
    died = 0
    while waiting := chunk_ids(store, run, "queued"):
        chunk = claim_chunk(store, waiting[0], max_attempts=max_attempts)
        if marked.isdisjoint(chunk.idxs):
            settle_answers(store, chunk)
        else:
            died += 1
            sweep(store, patience)
            end_rests(store)
    return expert, shard_id, died


@pytest.mark.parametrize(
    ("n", "marked", "max_attempts", "died"),
    [
        (1, {0}, 3, 3),
        (2, {1}, 3, 6),
        (8, {5}, 3, 8),
        (8, {5}, 1, 4),
        (7, {0, 6}, 2, 2 + 2 + 1 + 4),
        (4, {0, 1, 2, 3}, 2, 2 + 2 + 8),
    ],
)
def test_only_the_query_that_kills_is_given_up(
    store: Store, n: int, marked: set[int], max_attempts: int, died: int
) -> None:
    """All tries for the whole, one for each half on the way down, all again for the single query."""
    _, shard_id, times = deadly(store, marked, n, max_attempts)

    assert times == died
    assert store.rows("SELECT idx, error_code, text IS NULL FROM answer ORDER BY idx") == [
        (idx, "worker_killed" if idx in marked else None, idx in marked) for idx in range(n)
    ]
    assert store.value("SELECT chunks_left FROM shard WHERE id = :id", id=shard_id) == 0
    assert store(invariants.breaches) == []


@settings(deadline=None, max_examples=25, derandomize=True, database=None)
@given(data=st.data(), n=st.integers(1, 16), max_attempts=st.integers(1, 3))
def test_a_chunk_is_narrowed_down_in_logarithmic_time(data: st.DataObject, n: int, max_attempts: int) -> None:
    """A model of the halving, for one deadly query: at most twice the tries and one death per level."""
    patience = Patience(max_attempts)
    bad = data.draw(st.integers(0, n - 1))
    piece, depth, died = list(range(n)), 0, 0
    while True:
        died += patience.allowed(depth, len(piece))
        if len(piece) == 1:
            break
        middle = len(piece) // 2
        piece = piece[:middle] if bad in piece[:middle] else piece[middle:]
        depth += 1
    assert piece == [bad]
    assert died <= 2 * max_attempts + max((n - 1).bit_length() - 1, 0)


def test_a_chunk_is_split_into_halves_that_carry_all_it_had(store: Store) -> None:
    expert = put_expert(store)
    run = start(store, 5, shard_size=5)
    (chunk_id,) = route(store, shard_ids(store, run)[0], [expert])
    claim_chunk(store, chunk_id)

    assert sweep(store, AT_ONCE) == 1

    assert store.rows(
        "SELECT state, idxs, depth, epoch, attempts, expert_id, expert_version_id, published_at FROM chunk ORDER BY id"
    )[1:] == [
        ("queued", [0, 1], 1, 0, 0, expert.id, expert.version_id, None),
        ("queued", [2, 3, 4], 1, 0, 0, expert.id, expert.version_id, None),
    ]
    assert store.value("SELECT state FROM chunk WHERE id = :id", id=chunk_id) == "split"
    assert store.value("SELECT chunks_left FROM shard") == 2
    assert store(invariants.breaches) == []


def test_a_buried_last_chunk_makes_its_shard_due_for_combining_at_once(store: Store) -> None:
    expert = put_expert(store)
    (shard_id,) = shard_ids(store, start(store, 1))
    (chunk_id,) = route(store, shard_id, [expert])
    chunk = claim_chunk(store, chunk_id)

    sweep(store, AT_ONCE)

    assert state_of(store, chunk.lease) == "dead"
    assert store.rows("SELECT idx, error_code, error_message, answered, epoch, chunk_id FROM answer") == [
        (0, "worker_killed", KILLED, False, 1, chunk_id)
    ]
    assert store(sweeping.due_others, stale_s=LONG_S, window=10) == [CombineHint(shard_id, False)]
    with pytest.raises(LeaseLost):
        settle_answers(store, chunk)
    combine(store, shard_id)
    assert store.rows("SELECT ok, error_code FROM outcome") == [(False, "engine_error")]


@pytest.mark.parametrize("stage", ["routing", "combining"])
def test_a_shard_that_kills_is_halved_down_to_its_one_line(store: Store, stage: str) -> None:
    expert = put_expert(store)
    run = start(store, 5, shard_size=5)
    marked = 3
    while waiting := shard_ids(store, run, "queued") + shard_ids(store, run, "answering"):
        in_routing = store.value("SELECT state FROM shard WHERE id = :id", id=waiting[0]) == "queued"
        claim = (claim_routing if in_routing else claim_combining)(store, waiting[0], max_attempts=1)
        if claim.start <= marked < claim.stop and in_routing == (stage == "routing"):
            sweep(store, AT_ONCE)
        elif in_routing:
            settle_routing(store, claim, [expert])
            for chunk_id in chunk_ids(store, run, "queued"):
                answer(store, chunk_id)
        else:
            settle_combining(store, claim)

    assert store.rows("SELECT idx, error_code, error_message FROM outcome WHERE NOT ok") == [
        (marked, "worker_killed", KILLED)
    ]
    assert store.rows("SELECT start, stop, depth, state FROM shard ORDER BY id") == [
        (0, 5, 0, "split"),
        (0, 2, 1, "done"),
        (2, 5, 1, "split"),
        (2, 3, 2, "done"),
        (3, 5, 2, "split"),
        (3, 4, 3, "done"),
        (4, 5, 3, "done"),
    ]
    assert store(runs.view, run.id).state == "finalizing"
    assert store(invariants.breaches) == []


def test_the_error_line_of_a_given_up_query_names_it(store: Store) -> None:
    run = start(store, 1)
    claim_routing(store, shard_ids(store, run)[0])

    sweep(store, AT_ONCE)

    assert orjson.loads(store.value("SELECT line::text FROM outcome")) == {
        "id": f"{run.public_id.replace('batch_', 'batch_req_')}_0",
        "custom_id": "q0",
        "response": None,
        "error": {"code": "worker_killed", "message": KILLED, "param": None, "line": 1},
        "moe": {"line": 1},
    }


def test_halves_share_what_routing_their_whole_took(store: Store) -> None:
    expert = put_expert(store)
    run = start(store, 4, shard_size=4)
    (shard_id,) = shard_ids(store, run)
    for chunk_id in route(store, shard_id, [expert]):
        answer(store, chunk_id)
    claim_combining(store, shard_id)

    sweep(store, AT_ONCE)

    assert store.rows("SELECT n_queries, route_ms, state, chunks_left FROM shard WHERE depth = 1") == [
        (2, 4.0, "answering", 0),
        (2, 4.0, "answering", 0),
    ]


@pytest.mark.parametrize("stage", ["routing", "combining"])
@pytest.mark.parametrize("ending", ["cancelling", "expiring"])
def test_a_given_up_shard_of_a_run_that_is_being_ended_does_not_stop_the_sweep(
    store: Store, stage: str, ending: str
) -> None:
    """The run takes no outcomes any more; its lines get theirs when it is closed."""
    expert = put_expert(store)
    run = start(store, 1)
    (shard_id,) = shard_ids(store, run)
    if stage == "combining":
        for chunk_id in route(store, shard_id, [expert]):
            answer(store, chunk_id)
        claim_combining(store, shard_id)
    else:
        claim_routing(store, shard_id)
    other = claim_routing(store, shard_ids(store, start(store, 2))[0])
    store.sql(f"UPDATE run SET state = '{ending}' WHERE id = :id", id=run.id)

    assert sweep(store, AT_ONCE) == 2

    assert state_of(store, other.lease) == "split"
    assert store(finalizing.close_open_lines, run.id) is True
    assert store.rows("SELECT idx, shard_id FROM outcome WHERE run_id = :id", id=run.id) == [(0, None)]
    assert store(invariants.breaches) == []


def test_a_run_whose_writers_die_is_written_again_without_end(store: Store) -> None:
    run = answer_all(store, start(store), [put_expert(store)])
    for attempt in range(1, 6):
        assert claim_run(store, run).lease.attempts == attempt
        assert sweep(store, AT_ONCE) == 1
        end_rests(store)

    assert store(runs.view, run.id).state == "finalizing"


def test_a_job_is_given_up_after_its_tries(store: Store) -> None:
    job = running_job(store)

    assert sweep(store, AT_ONCE) == 1

    view = store(jobs.view, job.lease.id)
    assert (view.state, view.error_code, view.finished_at is not None) == ("failed", "worker_killed", True)
    assert view.error_message == KILLED.replace("query", "job")
    with pytest.raises(LeaseLost):
        store(jobs.succeed, job, {})


@pytest.mark.parametrize("patience", [PATIENCE, AT_ONCE], ids=["tries left", "no try left"])
@pytest.mark.parametrize(("wanted", "becomes"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_job_whose_worker_died_before_it_could_stop_is_stopped(
    store: Store, wanted: Wanted, becomes: str, patience: Patience
) -> None:
    job, other = running_job(store), running_job(store)
    store(job_control.stop, job.lease.id, wanted)

    assert sweep(store, patience) == 2

    view = store(jobs.view, job.lease.id)
    assert (view.state, view.wanted, view.error_code) == (becomes, None, None)
    assert (view.finished_at is not None) == (becomes == "cancelled")
    assert state_of(store, other.lease) == ("queued" if patience is PATIENCE else "failed")
    with pytest.raises(LeaseLost):
        store(job_control.settle_stopped, job, "cancel" if wanted == "pause" else "pause")


def test_a_job_that_the_sweeper_paused_goes_on_with_all_its_tries(store: Store) -> None:
    job = running_job(store)
    store(job_control.stop, job.lease.id, "pause")
    sweep(store)

    assert due(store, stale_s=0) == []
    store(job_control.resume, job.lease.id)

    assert due(store, stale_s=0) == [JobHint(job.lease.id)]
    assert claim_job(store, job.lease.id).lease.attempts == 1


# --- many sweepers at once ------------------------------------------------------------------------------------


EVERYTHING = {
    "shard": "SELECT run_id - :first, start, stop, state, epoch, attempts, depth, chunks_left, n_queries FROM shard",
    "chunk": "SELECT run_id - :first, idxs, state, epoch, attempts, depth FROM chunk",
    "answer": "SELECT run_id - :first, idx, epoch, error_code FROM answer",
    "outcome": "SELECT run_id - :first, idx, ok, epoch, error_code FROM outcome",
    "run": "SELECT id - :first, state, epoch, attempts, n_ok, n_error FROM run",
}


def lost_everywhere(store: Store) -> int:
    """Three runs with lost leases of every kind, some of them at their last try; how many were lost."""
    expert = put_expert(store)
    lost = 0
    for size in (1, 2, 3):
        run = start(store, 12, shard_size=size)
        routing, *others = shard_ids(store, run)
        combining, answering = others[:2], others[2:]
        claim_routing(store, routing)
        for shard_id in combining:
            for chunk_id in route(store, shard_id, [expert]):
                answer(store, chunk_id)
            claim_combining(store, shard_id)
        for shard_id in answering:
            for chunk_id in route(store, shard_id, [expert]):
                claim_chunk(store, chunk_id)
        lost += 1 + len(others)
    expire_leases(store)
    return lost


@pytest.mark.parametrize("max_attempts", [1, 2])
def test_sweeping_many_times_at_once_equals_sweeping_once(store: Store, max_attempts: int) -> None:
    def state() -> dict[str, list[tuple[Any, ...]]]:
        first = store.value("SELECT min(id) FROM run")
        return {table: sorted(store.rows(query, first=first), key=repr) for table, query in EVERYTHING.items()}

    patience = Patience(max_attempts, back_off_s=LONG_S, back_off_limit_s=LONG_S)
    n_lost = lost_everywhere(store)
    assert store(sweeping.recover, patience) == n_lost
    once = state()
    for table in ("run", "expert"):
        store.sql(f"DELETE FROM {table}")
    assert lost_everywhere(store) == n_lost

    found = at_once(store, [lambda connection: sweeping.recover(connection, patience)] * 4)

    assert sum(found) == n_lost
    assert state() == once
    assert store(sweeping.recover, patience) == 0
    assert store(invariants.breaches) == []


def test_a_sweeper_passes_over_what_another_has_in_hand(store: Store) -> None:
    run = start(store)
    for shard_id in shard_ids(store, run):
        claim_routing(store, shard_id)
    expire_leases(store)

    with store.engine.begin() as other:
        assert sweeping.recover(other, PATIENCE, limit=1) == 1
        assert store(sweeping.recover, PATIENCE) == 1

    assert shard_ids(store, run, "routing") == []


# --- messages that were lost ----------------------------------------------------------------------------------


def due(store: Store, *, stale_s: float = LONG_S, window: int = 100) -> list[Hint]:
    return [
        *store(sweeping.due_others, stale_s=stale_s, window=window),
        *store(sweeping.due_chunks, stale_s=stale_s, window=window),
    ]


def test_a_message_that_was_just_sent_is_not_due(store: Store) -> None:
    expert = put_expert(store)
    route(store, shard_ids(store, start(store))[0], [expert])

    assert due(store) == []


def test_every_waiting_row_whose_message_is_old_is_due(store: Store) -> None:
    expert = put_expert(store)
    run = start(store, 8, window=3)
    assert len(shard_ids(store, run, "planned")) == 1
    queued, answering, combining = shard_ids(store, run, "queued")
    (chunk_id,) = route(store, answering, [expert])
    for done in route(store, combining, [expert]):
        answer(store, done)
    fresh = submit(store)
    cancelling = submit(store)
    store(runs.cancel, cancelling)
    writing = answer_all(store, start(store, 1, window=3), [expert])
    job = store(jobs.add, "train")

    assert due(store, stale_s=0) == [
        PlanHint(fresh.id),
        FinalizeHint(cancelling.id),
        FinalizeHint(writing.id),
        RouteHint(queued, False),
        CombineHint(combining, False),
        JobHint(job),
        AnswerHint(chunk_id, "alpha", False),
    ]


def test_a_run_that_was_just_taken_in_is_due_until_its_message_is_noted(store: Store) -> None:
    run = submit(store)
    assert due(store) == [PlanHint(run.id)]

    store(sweeping.mark_published, due(store))

    assert due(store) == []
    assert due(store, stale_s=0) == [PlanHint(run.id)]


def test_marking_touches_the_rows_that_are_named_and_no_others(store: Store) -> None:
    expert = put_expert(store)
    run = start(store, 8, window=4)
    shard, _, *rest = shard_ids(store, run, "queued")
    chunk, _ = (route(store, shard_id, [expert])[0] for shard_id in rest)
    job, _ = (store(jobs.add, "train") for _ in range(2))
    other_run = submit(store)
    for table in ("run", "shard", "chunk", "job"):
        store.sql(f"UPDATE {table} SET published_at = NULL")

    hints: list[Hint] = [
        PlanHint(run.id),
        RouteHint(shard, False),
        CombineHint(rest[0], True),
        AnswerHint(chunk, "alpha", False),
        JobHint(job),
    ]
    store(sweeping.mark_published, hints)

    def marked(table: str) -> list[int]:
        return store.values(f"SELECT id FROM {table} WHERE published_at IS NOT NULL ORDER BY id")

    assert [marked(table) for table in ("run", "shard", "chunk", "job")] == [[run.id], [shard, rest[0]], [chunk], [job]]
    store(sweeping.mark_published, [FinalizeHint(other_run.id)])
    assert marked("run") == [run.id, other_run.id]


@pytest.mark.parametrize("reason", ["paused", "resting", "cancelling", "leased"])
def test_what_could_not_be_claimed_is_not_due(store: Store, reason: str) -> None:
    expert = put_expert(store)
    run = start(store)
    shard_id, other = shard_ids(store, run)
    (chunk_id,) = route(store, other, [expert])
    if reason == "paused":
        store(runs.pause, run, paused=True)
    elif reason == "cancelling":
        store(runs.cancel, run)
    elif reason == "leased":
        claim_routing(store, shard_id)
        claim_chunk(store, chunk_id)
    else:
        for lease in (claim_routing(store, shard_id).lease, claim_chunk(store, chunk_id).lease):
            store(leases.give_back, lease, LONG_S)

    assert due(store, stale_s=0) == ([FinalizeHint(run.id)] if reason == "cancelling" else [])


def test_a_lane_gets_its_window_of_chunks_and_takes_none_from_another(store: Store) -> None:
    alpha, beta = (put_expert(store, name) for name in ("alpha", "beta"))
    slow = start(store, 3, shard_size=3)
    of_alpha = [chunk for shard in shard_ids(store, slow) for chunk in route(store, shard, [alpha], chunk_size=1)]
    urgent = start(store, 2, shard_size=2, priority=8)
    of_both = [chunk for shard in shard_ids(store, urgent) for chunk in route(store, shard, [alpha, beta], 1)]

    assert store(sweeping.due_chunks, stale_s=0, window=1) == [
        AnswerHint(of_alpha[0], "alpha", False),
        AnswerHint(of_both[0], "alpha", True),
        AnswerHint(of_both[2], "beta", True),
    ]
    assert len(store(sweeping.due_chunks, stale_s=0, window=2)) == 6


def test_one_sweep_names_at_most_a_window_of_each_kind(store: Store) -> None:
    for _ in range(3):
        submit(store)
        store(jobs.add, "train")
    start(store, 6)

    hints = store(sweeping.due_others, stale_s=0, window=2)

    assert [type(hint) for hint in hints] == [PlanHint, PlanHint, RouteHint, RouteHint, JobHint, JobHint]


def test_nothing_is_due_once_everything_has_ended(store: Store) -> None:
    ended(store)

    assert due(store, stale_s=0) == []


def test_a_shard_with_open_chunks_cannot_be_combined_however_often_it_is_asked(store: Store) -> None:
    expert = put_expert(store)
    (shard_id,) = shard_ids(store, start(store, 2))
    route(store, shard_id, [expert], chunk_size=1)
    claim = store(shards.claim_for_combining, shard_id, owner=OWNER, ttl_s=TTL_S, max_attempts=3)

    assert claim is None


def test_a_claimed_chunk_of_another_owner_survives_the_death_of_its_neighbour(store: Store) -> None:
    expert = put_expert(store)
    (shard_id,) = shard_ids(store, start(store, 2))
    claims: list[ClaimedChunk] = [
        claim_chunk(store, chunk_id, owner=f"child-{chunk_id}") for chunk_id in route(store, shard_id, [expert], 1)
    ]

    store(sweeping.recover, AT_ONCE, dead_owner=f"child-{claims[0].lease.id}")

    assert [state_of(store, claim.lease) for claim in claims] == ["dead", "leased"]
    assert settle_answers(store, claims[1]) is True


def test_a_row_that_cannot_be_recovered_does_not_stop_the_others(store: Store) -> None:
    """Here the counter of its shard is wrong, so that giving it up would break a CHECK."""
    run, expert = start(store, 4, shard_size=2), put_expert(store)
    for shard_id in shard_ids(store, run):
        (chunk_id,) = route(store, shard_id, [expert])
        claim_chunk(store, chunk_id)
    broken, healthy = chunk_ids(store, run)
    with store.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE chunk SET idxs = '{0}', attempts = 9 WHERE id = :id"), {"id": broken})
        connection.execute(text("UPDATE shard SET chunks_left = 0 WHERE run_id = :run AND start = 0"), {"run": run.id})

    assert sweep(store) == 1

    assert store.value("SELECT state FROM chunk WHERE id = :id", id=broken) == "leased"
    assert store.value("SELECT state FROM chunk WHERE id = :id", id=healthy) == "queued"


def test_a_chunk_whose_shard_waits_for_it_no_more_is_cancelled(store: Store) -> None:
    run = start(store, 2)
    (chunk_id,) = route(store, shard_ids(store, run)[0], [put_expert(store)])
    claim_chunk(store, chunk_id)
    store.sql("UPDATE shard SET state = 'cancelled', lease_until = NULL, owner = NULL")

    assert sweep(store, AT_ONCE) == 1

    assert store.value("SELECT state FROM chunk") == "cancelled"
    assert store.value("SELECT count(*) FROM answer") == 0


def test_what_somebody_holds_is_neither_waited_for_nor_sent(store: Store) -> None:
    free, held = submit(store), submit(store)
    hints: list[Hint] = [PlanHint(free.id), PlanHint(held.id)]
    with store.engine.begin() as other:
        other.execute(text("SELECT 1 FROM run WHERE id = :id FOR UPDATE"), {"id": held.id})

        assert store(sweeping.mark_published, hints) == [PlanHint(free.id)]
