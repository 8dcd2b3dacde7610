"""Rates: what was measured of work done."""

from typing import Any

import pytest

from storage import rates
from storage.rates import ExpertRate
from tests.unit.storage.builders import Store, ended, put_expert

SPAN = 20


def measured(store: Store, *works: tuple[int, float, str]) -> None:
    """Shards of one run with this many queries, this many ms for routing and combining, and this state."""
    run = ended(store, 1)
    store.sql("DELETE FROM shard")
    for at, (n, ms, state) in enumerate(works):
        store.sql(
            "INSERT INTO shard (run_id, start, stop, state, n_queries, route_ms, combine_ms)"
            " VALUES (:run, :at, :at + 1, :state, :n, :ms, :ms / 2)",
            run=run.id,
            at=at,
            state=state,
            n=n,
            ms=ms,
        )


@pytest.mark.parametrize(
    ("works", "rate"),
    [
        ([], None),
        ([(100, 1000.0, "done")], 100.0),
        ([(100, 1000.0, "done"), (300, 1000.0, "done")], 200.0),
        ([(16, 1000.0, "done")], 16.0),
        ([(15, 1000.0, "done")], None),
        ([(100, 0.0, "done")], None),
        ([(100, 1000.0, "split"), (100, 1000.0, "cancelled"), (100, 1000.0, "queued")], None),
    ],
)
def test_a_rate_is_that_of_the_finished_shards_of_some_size(
    store: Store, works: list[tuple[int, float, str]], rate: float | None
) -> None:
    measured(store, *works)

    assert store(rates.routing_rate) == rate
    assert store(rates.combining_rate) == (None if rate is None else 2 * rate)


def test_only_the_last_shards_count(store: Store) -> None:
    measured(store, (100, 10.0, "done"), *[(100, 1000.0, "done")] * SPAN)

    assert store(rates.routing_rate) == 100.0
    assert store(rates.combining_rate) == 200.0


@pytest.mark.parametrize(
    ("rate", "bounds", "size"),
    [
        (100, {"seconds": 2, "least": 1, "most": 1000}, 200),
        (100, {"seconds": 2, "least": 300, "most": 1000}, 300),
        (100, {"seconds": 2, "least": 1, "most": 150}, 150),
        (100, {"seconds": 0.019, "least": 0, "most": 150}, 1),
        (None, {"seconds": 2, "least": 1, "most": 1000}, 512),
    ],
)
def test_a_shard_takes_its_time_within_its_bounds(
    store: Store, rate: int | None, bounds: dict[str, Any], size: int
) -> None:
    if rate is not None:
        measured(store, (rate, 1000.0, "done"))

    assert store(rates.shard_size, **bounds) == size


def hour(store: Store, expert_id: int, n: int, busy_ms: float, hours_ago: int = 0) -> None:
    store.sql(
        "INSERT INTO expert_hour (expert_id, hour, n_queries, busy_ms)"
        " VALUES (:id, clock_timestamp() - make_interval(hours => :ago), :n, :ms)",
        id=expert_id,
        ago=hours_ago,
        n=n,
        ms=busy_ms,
    )


def test_the_rate_of_an_expert_is_that_of_its_last_day(store: Store) -> None:
    alpha, beta, gamma, _ = (put_expert(store, name) for name in ("alpha", "beta", "gamma", "delta"))
    hour(store, alpha.id, 10, 1000.0)
    hour(store, alpha.id, 30, 1000.0, 24)
    hour(store, alpha.id, 1000, 1.0, 26)
    hour(store, beta.id, 0, 7.0)
    hour(store, gamma.id, 5, 5.0, 26)

    assert store(rates.expert_rates) == {"alpha": ExpertRate("alpha", 0.05, 40)}


def test_the_hours_of_an_expert_come_newest_first_and_without_idle_ones(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")
    values = "n_queries = 10, n_answered = 6, n_errors = 2, confidence_sum = 4"
    for expert, ago in ((alpha, 0), (alpha, 3), (alpha, 30), (beta, 0)):
        hour(store, expert.id, 10, 50.0, ago)
    store.sql(f"UPDATE expert_hour SET hour = date_trunc('hour', hour), {values}")
    store.sql("UPDATE expert_hour SET n_errors = 10 WHERE hour < clock_timestamp() - interval '2 hours'")

    newest, older = store(rates.expert_hours, alpha.id)

    assert (newest.n_queries, newest.n_answered, newest.n_errors) == (10, 6, 2)
    assert (newest.busy_ms, newest.mean_confidence, older.mean_confidence) == (50.0, 0.5, None)
    assert newest.hour > older.hour
    assert store(rates.expert_hours, alpha.id, hours=2) == [newest]
    assert len(store(rates.expert_hours, alpha.id, hours=48)) == 3


def test_the_quality_of_an_expert_is_drawn_towards_its_start(store: Store) -> None:
    run = ended(store)
    said = [("alpha", True)] * 3 + [("alpha", False)] + [("beta", False)] * 10 + [("gamma", None)]
    for expert, positive in said:
        store.sql(
            "INSERT INTO feedback (run_id, idx, expert, positive, correct_expert) VALUES (:run, 0, :expert, :p, 'x')",
            run=run.id,
            expert=expert,
            p=positive,
        )

    assert store(rates.expert_quality) == {"alpha": pytest.approx(11 / 14), "beta": pytest.approx(8 / 20)}
