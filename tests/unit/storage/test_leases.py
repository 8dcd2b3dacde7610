"""Leases: exactly one worker may store the result of a row, and a late one may not."""

from collections.abc import Callable

import pytest

from storage import finalizing, jobs, leases, runs, sweeping
from storage.leases import Leasable, Lease, LeaseLost
from storage.sweeping import Patience
from tests.unit.storage.builders import (
    OWNER,
    TTL_S,
    Store,
    answer,
    answer_all,
    claim_chunk,
    claim_combining,
    claim_routing,
    claim_run,
    expire_leases,
    put_expert,
    route,
    shard_ids,
    start,
    state_of,
)


def lease_of_shard(store: Store) -> Lease:
    return claim_routing(store, shard_ids(store, start(store, 2))[0]).lease


def lease_of_combining(store: Store) -> Lease:
    (shard_id,) = shard_ids(store, start(store, 2))
    for chunk_id in route(store, shard_id, [put_expert(store)]):
        answer(store, chunk_id)
    return claim_combining(store, shard_id).lease


def lease_of_chunk(store: Store) -> Lease:
    (chunk_id,) = route(store, shard_ids(store, start(store, 2))[0], [put_expert(store)])
    return claim_chunk(store, chunk_id).lease


def lease_of_run(store: Store) -> Lease:
    return claim_run(store, answer_all(store, start(store, 2), [put_expert(store)])).lease


def lease_of_job(store: Store) -> Lease:
    claimed = store(jobs.claim, store(jobs.add, "train"), owner=OWNER, ttl_s=TTL_S, max_attempts=3)
    assert claimed is not None
    return claimed.lease


Make = Callable[[Store], Lease]
# How to get a lease, where settling it leads, and where giving it back does.
KINDS = {
    "shard": (lease_of_shard, "answering", "queued"),
    "combining": (lease_of_combining, "done", "answering"),
    "chunk": (lease_of_chunk, "done", "queued"),
    "job": (lease_of_job, "failed", "queued"),
}
every_kind = pytest.mark.parametrize(("make", "settled", "given_back"), KINDS.values(), ids=KINDS.keys())
EVERY_MAKER = [lease_of_shard, lease_of_combining, lease_of_chunk, lease_of_run, lease_of_job]


def held_for(store: Store, lease: Lease) -> float:
    """Seconds the lease still has, rounded."""
    query = f"SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM {lease.table} WHERE id = :id"
    return float(round(store.value(query, id=lease.id)))


def settle(store: Store, lease: Lease, state: str, **columns: object) -> bool:
    with store.engine.begin() as connection:
        return leases.settle(connection, lease, state, **columns)


def owner_of(store: Store, lease: Lease) -> str | None:
    owner: str | None = store.value(f"SELECT owner FROM {lease.table} WHERE id = :id", id=lease.id)
    return owner


@pytest.mark.parametrize("make", EVERY_MAKER)
def test_a_claim_names_its_owner_and_lasts_its_time_by_the_clock_of_the_database(store: Store, make: Make) -> None:
    lease = make(store)

    assert (lease.ttl_s, lease.attempts) == (TTL_S, 1)
    assert held_for(store, lease) in (TTL_S - 1, TTL_S)
    assert owner_of(store, lease) == OWNER


@pytest.mark.parametrize("make", EVERY_MAKER)
def test_a_heartbeat_holds_the_lease_for_its_time_from_now(store: Store, make: Make) -> None:
    lease = make(store)
    expire_leases(store)

    assert store(leases.renew, lease) is True

    assert held_for(store, lease) in (TTL_S - 1, TTL_S)


@every_kind
def test_a_settled_row_is_moved_and_held_by_nobody(store: Store, make: Make, settled: str, given_back: str) -> None:
    lease = make(store)

    assert settle(store, lease, settled) is True

    assert (state_of(store, lease), owner_of(store, lease)) == (settled, None)
    assert store(leases.renew, lease) is False
    assert store(leases.give_back, lease, 0.0) is False


@every_kind
def test_settling_twice_is_told_from_losing_the_lease(store: Store, make: Make, settled: str, given_back: str) -> None:
    """A commit whose acknowledgement was lost is repeated."""
    lease = make(store)
    settle(store, lease, settled)

    assert settle(store, lease, settled) is False
    assert state_of(store, lease) == settled


@every_kind
def test_a_lease_that_ran_out_and_was_taken_by_nobody_still_settles(
    store: Store, make: Make, settled: str, given_back: str
) -> None:
    lease = make(store)
    expire_leases(store)

    assert settle(store, lease, settled) is True


@every_kind
def test_a_row_that_was_given_back_rests_and_is_due_again(
    store: Store, make: Make, settled: str, given_back: str
) -> None:
    lease = make(store)

    assert store(leases.give_back, lease, 30.0) is True

    row = store.row(
        "SELECT state, lease_until, owner, published_at, epoch, attempts,"
        f" round(extract(epoch FROM not_before - clock_timestamp())) AS rest FROM {lease.table} WHERE id = :id",
        id=lease.id,
    )
    assert tuple(row)[:6] == (given_back, None, None, None, lease.epoch, 1)
    assert row.rest in (29, 30)
    with pytest.raises(LeaseLost):
        settle(store, lease, settled)
    assert store(leases.give_back, lease, 0.0) is False


@every_kind
def test_a_worker_whose_row_was_claimed_by_another_can_do_nothing(
    store: Store, make: Make, settled: str, given_back: str
) -> None:
    lease = make(store)
    late = Lease(lease.table, lease.id, lease.epoch - 1, 1, TTL_S)

    with pytest.raises(LeaseLost, match=rf"^{lease.table} {lease.id} is no longer held by epoch {late.epoch}$"):
        settle(store, late, settled)
    assert store(leases.renew, late) is False
    assert store(leases.give_back, late, 0.0) is False
    assert store(leases.renew, lease) is True


@pytest.mark.parametrize("table", ["run", "shard", "chunk", "job"])
def test_a_row_that_is_gone_is_a_lost_lease(store: Store, table: Leasable) -> None:
    gone = Lease(table, 0, 1, 1, TTL_S)

    with pytest.raises(LeaseLost):
        settle(store, gone, "done")
    assert store(leases.renew, gone) is False


def test_settling_sets_further_columns_only_when_it_moves_the_row(store: Store) -> None:
    lease = lease_of_chunk(store)

    settle(store, lease, "done", busy_ms=7.0)
    settle(store, lease, "done", busy_ms=9.0)

    assert store.value("SELECT busy_ms FROM chunk") == 7.0


def test_a_run_that_was_given_back_is_finalized_by_the_next_worker(store: Store) -> None:
    lease = lease_of_run(store)

    assert store(leases.give_back, lease, 0.0) is True

    again = store(finalizing.claim, lease.id, owner="other", ttl_s=TTL_S)
    assert again is not None
    assert (again.lease.epoch, again.lease.attempts) == (lease.epoch + 1, 2)


@pytest.mark.parametrize("make", [lease_of_shard, lease_of_combining, lease_of_chunk])
def test_closing_a_cancelled_run_takes_the_leases_of_its_workers(store: Store, make: Make) -> None:
    lease = make(store)
    run_id = store.value(f"SELECT run_id FROM {lease.table} WHERE id = :id", id=lease.id)
    store(runs.cancel, store(runs.view, run_id))
    assert store(leases.renew, lease) is True

    store(finalizing.close_open_lines, run_id)

    assert store(leases.renew, lease) is False
    assert (state_of(store, lease), owner_of(store, lease)) == ("cancelled", None)


def test_the_epoch_goes_up_with_every_claim(store: Store) -> None:
    (shard_id,) = shard_ids(store, start(store, 2))
    epochs = []
    for _ in range(3):
        epochs.append(claim_routing(store, shard_id).lease.epoch)
        expire_leases(store)
        store(sweeping.recover, Patience(max_attempts=10, back_off_s=0))

    assert epochs == [1, 2, 3]


@pytest.mark.parametrize(("tries", "taken"), [(2, True), (1, False)])
def test_a_lease_that_ran_out_is_taken_over_without_the_sweeper_while_tries_are_left(
    store: Store, tries: int, taken: bool
) -> None:
    (shard_id,) = shard_ids(store, start(store, 2))
    (chunk_id,) = route(store, shard_id, [put_expert(store)])
    first = claim_chunk(store, chunk_id)
    expire_leases(store)

    if not taken:
        with pytest.raises(AssertionError):
            claim_chunk(store, chunk_id, max_attempts=tries)
        assert store(leases.renew, first.lease) is True
        return
    second = claim_chunk(store, chunk_id, owner="other", max_attempts=tries)
    assert (second.lease.epoch, second.lease.attempts) == (2, 2)
    assert store(leases.renew, first.lease) is False
