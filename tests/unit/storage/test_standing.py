"""What experts did lately and before, and what waits for them."""

from typing import Any

import pytest
from sqlalchemy import text

from storage import catalogue, standing
from storage.standing import Backlog, Measured, Stretch
from tests.unit.storage.builders import (
    CARD,
    Store,
    answer,
    claim_chunk,
    ended,
    put_expert,
    route,
    settle_answers,
    shard_ids,
    start,
)

NOTHING = Stretch(0, 0, 0.0, 0, None, None)


def hour(store: Store, expert_id: int, hours_ago: int, **counts: Any) -> None:
    """An hour of work, counted back from the present one."""
    values = {"n_queries": 10, "n_errors": 2, "busy_ms": 100.0, "n_answered": 6, "confidence_sum": 4.0} | counts
    store.sql(
        "INSERT INTO expert_hour (expert_id, hour, n_queries, n_errors, busy_ms, n_answered, confidence_sum) VALUES"
        " (:id, date_trunc('hour', clock_timestamp()) - make_interval(hours => :ago), :n_queries, :n_errors, :busy_ms,"
        " :n_answered, :confidence_sum)",
        id=expert_id,
        ago=hours_ago,
        **values,
    )


def judged(store: Store, expert: str, positive: int, negative: int, *, minutes_ago: int = 0) -> None:
    """Judgements on a line of the first run."""
    store.sql(
        "INSERT INTO feedback (run_id, idx, expert, positive, created_at)"
        " SELECT (SELECT min(id) FROM run), 0, :expert, n <= :positive,"
        " date_trunc('hour', clock_timestamp()) - make_interval(mins => :ago)"
        " FROM generate_series(1, :n) n",
        expert=expert,
        positive=positive,
        n=positive + negative,
        ago=minutes_ago,
    )


# --- figures --------------------------------------------------------------------------------------------------


def test_an_expert_that_did_nothing_has_its_entry(store: Store) -> None:
    assert store(standing.figures) == {}
    put_expert(store, "alpha")

    assert store(standing.figures) == {"alpha": (NOTHING, NOTHING)}


def test_this_hour_and_the_one_before_are_recent_and_the_week_before_them_is_history(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")
    week = 7 * 24
    for ago, n in ((0, 1), (1, 10), (2, 100), (1 + week, 1000), (2 + week, 10_000)):
        hour(store, alpha.id, ago, n_queries=n, n_errors=0)
    hour(store, beta.id, 2, n_queries=7, n_errors=0)

    found = store(standing.figures)

    assert [stretch.n_queries for stretch in found["alpha"]] == [11, 1100]
    assert [stretch.n_queries for stretch in found["beta"]] == [0, 7]
    assert found["alpha"] == (
        Stretch(11, 0, 200.0, 12, pytest.approx(8 / 11), None),
        Stretch(1100, 0, 200.0, 12, pytest.approx(8 / 1100), None),
    )


def test_how_far_back_recent_goes_can_be_said(store: Store) -> None:
    alpha = put_expert(store, "alpha")
    for ago in range(5):
        hour(store, alpha.id, ago, n_queries=10**ago, n_errors=0)

    recent, history = store(standing.figures, recent_minutes=180)["alpha"]

    assert (recent.n_queries, history.n_queries) == (1111, 10_000)


def test_confidence_is_the_mean_over_what_did_not_fail(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")
    hour(store, alpha.id, 0)
    hour(store, beta.id, 0, n_queries=2, n_errors=2, confidence_sum=0.0, n_answered=0)

    found = store(standing.figures)

    assert found["alpha"][0] == Stretch(10, 2, 100.0, 6, 0.5, None)
    assert found["beta"][0] == Stretch(2, 2, 100.0, 0, None, None)


@pytest.mark.parametrize(
    ("positive", "negative", "accuracy"),
    [(0, 0, None), (4, 0, None), (0, 4, None), (5, 0, 1.0), (0, 5, 0.0), (7, 3, 0.7)],
)
def test_accuracy_is_the_share_of_good_judgements_from_five_on(
    store: Store, positive: int, negative: int, accuracy: float | None
) -> None:
    ended(store)
    put_expert(store, "beta")
    judged(store, "beta", positive, negative)
    judged(store, "beta", negative, positive, minutes_ago=61)

    recent, history = store(standing.figures)["beta"]

    assert recent.accuracy == accuracy
    assert history.accuracy == (None if accuracy is None else pytest.approx(1 - accuracy))


def test_judgements_count_in_the_time_they_were_given(store: Store) -> None:
    ended(store)
    judged(store, "alpha", 5, 0, minutes_ago=60)
    judged(store, "alpha", 0, 5, minutes_ago=61)
    judged(store, "alpha", 0, 100, minutes_ago=60 + 7 * 24 * 60 + 1)
    judged(store, "nobody", 9, 0)
    store.sql(
        "INSERT INTO feedback (run_id, idx, expert, correct_expert) SELECT min(id), 0, 'alpha', 'beta' FROM run,"
        " generate_series(1, 9)"
    )

    found = store(standing.figures)

    assert [stretch.accuracy for stretch in found["alpha"]] == [1.0, 0.0]
    assert list(found) == ["alpha"]


# --- backlog --------------------------------------------------------------------------------------------------


def test_what_waits_and_what_is_answered_are_told_apart(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")
    assert store(standing.backlogs) == {}
    (shard_id,) = shard_ids(store, start(store, 5, shard_size=5))
    first, second, third, *of_beta = route(store, shard_id, [alpha, beta], chunk_size=2)
    claimed = claim_chunk(store, first)
    answer(store, second)

    assert store(standing.backlogs) == {"alpha": Backlog(queued=1, leased=2), "beta": Backlog(5, 0)}

    settle_answers(store, claimed)
    for chunk_id in (third, *of_beta):
        answer(store, chunk_id)
    assert store(standing.backlogs) == {}


def test_what_a_paused_run_holds_back_waits_for_nobody(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")
    (shard_id,) = shard_ids(store, start(store, 5, shard_size=5))
    first, *_ = route(store, shard_id, [alpha, beta], chunk_size=2)
    claim_chunk(store, first)
    store.sql("UPDATE run SET paused_at = clock_timestamp()")

    assert store(standing.backlogs) == {"alpha": Backlog(0, 2)}


def test_a_run_that_is_being_ended_has_nothing_waiting(store: Store) -> None:
    alpha = put_expert(store)
    (shard_id,) = shard_ids(store, start(store, 5, shard_size=5))
    route(store, shard_id, [alpha])
    store.sql("UPDATE run SET state = 'cancelling'")

    assert store(standing.backlogs) == {}


# --- all of it ------------------------------------------------------------------------------------------------


def test_serving_experts_come_by_name_with_all_that_is_known(store: Store) -> None:
    beta, alpha = put_expert(store, "beta"), put_expert(store, "alpha")
    put_expert(store, "gamma")
    store.sql("UPDATE expert SET serving = true WHERE name <> 'gamma'")
    hour(store, alpha.id, 0)
    hour(store, alpha.id, 3, n_errors=10)
    (shard_id,) = shard_ids(store, start(store, 3, shard_size=3))
    first, _ = route(store, shard_id, [alpha, beta])
    claim_chunk(store, first)

    found = store(standing.serving)

    assert found == [
        Measured(
            "alpha", CARD, Stretch(10, 2, 100.0, 6, 0.5, None), Stretch(10, 10, 100.0, 6, None, None), Backlog(0, 3)
        ),
        Measured("beta", CARD, NOTHING, NOTHING, Backlog(3, 0)),
    ]
    assert [expert.load for expert in found] == [13, 3]


def test_experts_that_were_read_already_are_not_read_again(store: Store) -> None:
    put_expert(store, "alpha")
    put_expert(store, "beta")
    store.sql("UPDATE expert SET serving = (name = 'beta')")
    read = store(catalogue.experts)

    assert [expert.expert for expert in store(standing.serving, read)] == ["beta"]
    assert store(standing.serving, []) == []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (standing._HOURS, "expert_hour_pkey"),
        (standing._JUDGED, "Index Only Scan using feedback_said"),
        (standing._BACKLOG, "chunk_open"),
    ],
)
def test_every_query_can_use_an_index(store: Store, query: str, index: str) -> None:
    """Routing asks for each shard, so none of them may grow with what was done in all the years."""
    with store.engine.begin() as connection:
        for kind in ("seqscan", "bitmapscan"):
            connection.execute(text(f"SET LOCAL enable_{kind} = off"))
        plan = connection.execute(text(f"EXPLAIN {query}"), {"minutes": 60, "least": 5}).scalars().all()

    assert index in "\n".join(plan)
