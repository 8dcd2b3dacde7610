"""Windows: how many shards of each run may be under way."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from storage import runs, shards, windows
from storage.hints import RouteHint
from storage.runs import RunView
from tests.unit.storage.builders import Store, claim_routing, put_expert, route, shard_ids, submit


def planned(store: Store, n_shards: int, **options: int) -> RunView:
    """A run of ``n_shards`` shards of one line, none of them queued."""
    run = submit(store, n_shards, **options)
    store(shards.plan, run.id, 1)
    return run


def n_queued(store: Store, run: RunView) -> int:
    return len(shard_ids(store, run, "queued"))


def test_the_first_shards_are_queued_and_named(store: Store) -> None:
    run = planned(store, 5)
    ids = shard_ids(store, run)

    assert store(windows.fill, window=3) == [RouteHint(shard_id, False) for shard_id in ids[:3]]

    assert shard_ids(store, run, "queued") == ids[:3]
    assert store.values("SELECT published_at IS NOT NULL FROM shard ORDER BY id") == [True] * 3 + [False] * 2


def test_a_full_window_is_not_filled_again(store: Store) -> None:
    planned(store, 5)
    store(windows.fill, window=3)

    assert store(windows.fill, window=3) == []


@pytest.mark.parametrize("stage", ["queued", "routing", "answering", "combining"])
def test_a_shard_counts_until_it_is_done(store: Store, stage: str) -> None:
    expert = put_expert(store)
    run = planned(store, 3)
    first, *_ = (hint.shard_id for hint in store(windows.fill, window=2))
    if stage == "routing":
        claim_routing(store, first)
    elif stage != "queued":
        route(store, first, [expert])
    if stage == "combining":
        lease = "lease_until = clock_timestamp(), owner = 'x'"
        store.sql(f"UPDATE shard SET state = 'combining', {lease} WHERE id = :id", id=first)
    assert store(windows.fill, window=2) == []

    store.sql("UPDATE shard SET state = 'cancelled', lease_until = NULL, owner = NULL WHERE id = :id", id=first)

    assert [hint.shard_id for hint in store(windows.fill, window=2)] == [shard_ids(store, run)[2]]


@pytest.mark.parametrize(
    ("priorities", "window", "queued"),
    [
        ((2, 2), 8, [4, 4]),
        ((1, 2, 4), 14, [2, 4, 8]),
        ((1, 4), 10, [2, 8]),
        ((1, 1, 1), 3, [2, 2, 2]),
        ((4, 1), 5, [4, 2]),
        ((2,), 1, [2]),
    ],
)
def test_the_window_is_shared_by_priority_and_nobody_gets_less_than_two(
    store: Store, priorities: tuple[int, ...], window: int, queued: list[int]
) -> None:
    several = [planned(store, 20, priority=priority) for priority in priorities]

    store(windows.fill, window=window)

    assert [n_queued(store, run) for run in several] == queued


def test_a_run_without_planned_shards_takes_no_share(store: Store) -> None:
    idle = planned(store, 2)
    store(windows.fill, window=10)
    busy = planned(store, 20)

    store(windows.fill, window=10)

    assert [n_queued(store, run) for run in (idle, busy)] == [2, 10]


@pytest.mark.parametrize("reason", ["paused", "cancelling", "validating"])
def test_a_run_that_hands_out_nothing_is_left_alone(store: Store, reason: str) -> None:
    run = submit(store, 4)
    if reason != "validating":
        store(shards.plan, run.id, 1)
    if reason == "paused":
        store(runs.pause, run, paused=True)
    elif reason == "cancelling":
        store(runs.cancel, run)

    assert store(windows.fill, window=10) == []


def test_urgent_runs_come_first_and_are_interactive(store: Store) -> None:
    slow = planned(store, 2)
    urgent = planned(store, 2, priority=8)

    hints = store(windows.fill, window=4)

    assert hints == [
        *(RouteHint(shard_id, True) for shard_id in shard_ids(store, urgent)),
        *(RouteHint(shard_id, False) for shard_id in shard_ids(store, slow)),
    ]


def test_a_second_dispatcher_leaves_the_work_to_the_first(store: Store) -> None:
    run = planned(store, 4)
    with store.engine.begin() as first:
        assert len(windows.fill(first, window=2)) == 2
        assert store(windows.fill, window=2) == []

    assert n_queued(store, run) == 2


def test_many_dispatchers_at_once_fill_one_window(store: Store) -> None:
    run = planned(store, 40)
    ready = threading.Barrier(4)

    def fill() -> int:
        ready.wait()
        return len(store(windows.fill, window=5))

    with ThreadPoolExecutor(4) as pool:
        filled = [future.result() for future in [pool.submit(fill) for _ in range(4)]]

    assert sum(filled) == 5
    assert n_queued(store, run) == 5


@settings(deadline=None, max_examples=50, derandomize=True, database=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 4])), min_size=1, max_size=4),
    windows_=st.lists(st.integers(1, 12), min_size=1, max_size=3),
)
def test_filling_never_exceeds_a_share(
    storage_engine: Engine, sizes: list[tuple[int, int]], windows_: list[int]
) -> None:
    """A model of the division, filled several times in a row."""
    store = Store(storage_engine)
    store.sql("DELETE FROM run")
    several = [planned(store, n, priority=priority) for n, priority in sizes]
    under_way = [0] * len(sizes)
    for window in windows_:
        total = sum(priority for n, (size, priority) in zip(under_way, sizes, strict=True) if n < size)
        for i, (size, priority) in enumerate(sizes):
            if under_way[i] < size:
                share = max(2, round(window * priority / total))
                under_way[i] = min(size, max(under_way[i], share))

        store(windows.fill, window=window)

        assert [n_queued(store, run) for run in several] == under_way


def test_the_window_holds_whatever_the_planner_knows(store: Store) -> None:
    """A LIMIT in a subquery that is run again for every row would queue too much."""
    run = planned(store, 500)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE shard"))

    for plan in ("enable_hashjoin", "enable_mergejoin", "enable_hashagg", "enable_material"):
        with store.engine.begin() as connection:
            connection.execute(text(f"SET LOCAL {plan} = off"))
            windows.fill(connection, window=3)

    assert n_queued(store, run) == 3
