"""Alerts: stored once, seen once, and found in the runs that ended."""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from storage import alerts
from storage.alerts import Alert, AlertKind, RunChoices
from tests.unit.storage.builders import Store, ended, start
from tests.unit.storage.past_runs import past


def kinds_of(found: list[Alert]) -> list[tuple[int | None, str | None]]:
    return [(alert.run_id, alert.expert) for alert in found]


# --- raising and seeing ---------------------------------------------------------------------------------------


def test_an_alert_is_stored_as_it_was_raised(store: Store) -> None:
    run = ended(store)
    raised = [
        Alert(AlertKind.STEERING, "Look here.", run.id, "alpha", {"share": 0.5}),
        Alert(AlertKind.ROUTE_SHIFT, "And here."),
    ]

    assert store(alerts.raise_alerts, raised) == raised

    second, first = store(alerts.alerts)
    assert (first.kind, first.run, first.expert, first.message) == ("steering", run.public_id, "alpha", "Look here.")
    assert (first.detail, first.seen_at) == ({"share": 0.5}, None)
    assert (second.kind, second.run, second.expert, second.detail) == ("route_shift", None, None, {})
    assert store(alerts.alerts, limit=1) == [second]
    assert second.created_at >= first.created_at > run.created_at


def test_the_same_alert_is_stored_once_while_nobody_has_seen_it(store: Store) -> None:
    run = ended(store)
    different = [
        Alert(kind, "Look.", run_id, expert)
        for kind in (AlertKind.STEERING, AlertKind.IMBALANCE)
        for run_id in (run.id, None)
        for expert in ("alpha", "beta", None)
    ]

    assert store(alerts.raise_alerts, [*different, *different]) == different
    assert store(alerts.raise_alerts, [Alert(AlertKind.STEERING, "In other words.", run.id, "alpha")]) == []

    assert len(store(alerts.alerts)) == 12
    assert {alert.message for alert in store(alerts.alerts)} == {"Look."}


def test_several_that_look_at_once_store_it_once(store: Store) -> None:
    raised = [Alert(AlertKind.IMBALANCE, "Look.", expert=f"e{n}") for n in range(20)]

    with ThreadPoolExecutor(4) as pool:
        new = [job.result() for job in [pool.submit(store, alerts.raise_alerts, raised) for _ in range(4)]]

    assert sorted(alert.expert or "" for found in new for alert in found) == sorted(f"e{n}" for n in range(20))
    assert len(store(alerts.alerts)) == 20


def test_what_was_seen_is_not_listed_among_the_unseen(store: Store) -> None:
    store(alerts.raise_alerts, [Alert(AlertKind.IMBALANCE, "Look.", expert=name) for name in ("a", "b", "c")])
    newest, middle, oldest = store(alerts.alerts)

    assert store(alerts.acknowledge, [middle.id, middle.id, 10**12]) == 1
    assert store(alerts.acknowledge, [middle.id]) == 0
    assert store(alerts.acknowledge, []) == 0

    assert store(alerts.alerts) == [newest, oldest]
    everything = store(alerts.alerts, unseen_only=False)
    assert [alert.id for alert in everything] == [newest.id, middle.id, oldest.id]
    assert [alert.seen_at is not None for alert in everything] == [False, True, False]
    assert store(alerts.acknowledge) == 2
    assert store(alerts.alerts) == []


def test_seeing_twice_keeps_the_first_moment(store: Store) -> None:
    store(alerts.raise_alerts, [Alert(AlertKind.IMBALANCE, "Look.")])
    store(alerts.acknowledge)
    (before,) = store(alerts.alerts, unseen_only=False)

    store(alerts.acknowledge)

    assert store(alerts.alerts, unseen_only=False) == [before]


def test_what_was_seen_of_a_run_never_comes_back(store: Store) -> None:
    alert = Alert(AlertKind.STEERING, "Look.", ended(store).id, "alpha")
    store(alerts.raise_alerts, [alert])
    store(alerts.acknowledge)

    assert store(alerts.raise_alerts, [alert], quiet_s=0) == []


def test_what_was_seen_of_an_expert_comes_back_after_a_while_if_it_is_still_so(store: Store) -> None:
    alert = Alert(AlertKind.IMBALANCE, "Look.", expert="alpha")
    store(alerts.raise_alerts, [alert])
    store(alerts.acknowledge)

    assert store(alerts.raise_alerts, [alert]) == []
    store.sql("UPDATE router_alert SET seen_at = clock_timestamp() - interval '59 minutes'")
    assert store(alerts.raise_alerts, [alert]) == []
    store.sql("UPDATE router_alert SET seen_at = clock_timestamp() - interval '61 minutes'")
    assert store(alerts.raise_alerts, [alert]) == [alert]
    assert store(alerts.raise_alerts, [alert], quiet_s=0) == []
    assert len(store(alerts.alerts, unseen_only=False)) == 2


def test_alerts_go_with_their_run(store: Store) -> None:
    run = ended(store)
    alert = Alert(AlertKind.STEERING, "Look.", run.id)
    store(alerts.raise_alerts, [alert, Alert(AlertKind.ROUTE_SHIFT, "And here.")])

    store.sql("DELETE FROM run")

    assert [found.kind for found in store(alerts.alerts)] == ["route_shift"]
    assert store(alerts.raise_alerts, [alert]) == []


# --- the runs that ended last ---------------------------------------------------------------------------------


def test_without_runs_there_is_nothing_to_find(store: Store) -> None:
    start(store)

    assert store(alerts.run_choices) == []
    assert alerts.steering([]) == alerts.outside_bursts([]) == store(alerts.route_shift) == []


def test_the_choices_of_a_run_are_those_of_the_router(store: Store) -> None:
    """Neither lines that named their expert nor lines that could not be routed, and first choices only."""
    first = past(store, {"alpha": 6, "beta": 3, None: 2}, outside=5, pinned=2, minutes_ago=5)
    second = past(store, {"gamma": 1}, kind="ask")
    past(store, {"alpha": 1}, kind="preview")
    past(store, {None: 3})
    open_ = past(store, {"alpha": 9})
    store.sql("UPDATE run SET finished_at = NULL WHERE id = :run", run=open_)

    found = store(alerts.run_choices)

    names = store.values("SELECT public_id FROM run WHERE id IN (:a, :b) ORDER BY id", a=first, b=second)
    assert found == [
        RunChoices(second, names[1], Counter(gamma=1), 0),
        RunChoices(first, names[0], Counter(alpha=4, beta=3), 3),
    ]


def test_a_run_that_went_the_usual_way_is_read(store: Store) -> None:
    run = ended(store, 4)

    assert store(alerts.run_choices) == [RunChoices(run.id, run.public_id, Counter(alpha=4), 0)]


def test_of_a_long_run_a_sample_from_everywhere_is_read(store: Store) -> None:
    past(store, {"alpha": 700, "beta": 700, "gamma": 2100}, outside=1750)

    (run,) = store(alerts.run_choices)

    assert run.first == Counter(alpha=200, beta=200, gamma=600)
    assert run.outside == 500
    assert store(alerts.run_choices) == [run]


def test_a_sample_is_not_taken_in_by_lines_that_alternate(store: Store) -> None:
    run = past(store, {"alpha": 2000})
    store.sql("""UPDATE decision SET experts = '[{"name": "beta"}]' WHERE run_id = :run AND idx % 2 = 1""", run=run)

    (found,) = store(alerts.run_choices)

    assert found.first.total() == 1000
    assert 400 < found.first["beta"] < 600


def test_only_the_runs_that_ended_last_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest, newest, middle = (past(store, {"alpha": 30}, minutes_ago=ago) for ago in (30, 10, 20))
    for lines, read in ((90, [middle, newest, oldest]), (61, [middle, newest, oldest]), (60, [middle, newest])):
        monkeypatch.setattr(alerts, "_LINES", lines)
        assert [run.run_id for run in store(alerts.run_choices)] == read
    monkeypatch.setattr(alerts, "_LINES", 1)
    assert [run.run_id for run in store(alerts.run_choices)] == [newest]
    monkeypatch.setattr(alerts, "_RUNS", 0)
    assert store(alerts.run_choices) == []


# --- steering -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "others", "found"),
    [
        pytest.param({"alpha": 190, "beta": 10}, {"alpha": 99, "beta": 101}, True, id="at every limit"),
        pytest.param({"alpha": 200}, {"beta": 200}, True, id="to an expert nobody else uses"),
        pytest.param({"alpha": 189, "beta": 10}, {"beta": 200}, False, id="too few lines"),
        pytest.param({"alpha": 189, "beta": 11}, {"beta": 200}, False, id="not enough to one expert"),
        pytest.param({"alpha": 190, "beta": 10}, {"alpha": 100, "beta": 100}, False, id="others send half there too"),
        pytest.param({"alpha": 200}, {"alpha": 200}, False, id="there is only one expert"),
        pytest.param({"alpha": 200}, {"beta": 199}, False, id="too little to compare with"),
    ],
)
def test_a_run_is_steering_when_nearly_all_goes_where_others_go_little(
    sent: dict[str, int], others: dict[str, int], found: bool
) -> None:
    half = Counter({name: n // 2 for name, n in others.items()})
    runs = [
        RunChoices(1, "one", Counter(sent), 0),
        RunChoices(2, "two", half, 0),  # too short to be judged itself
        RunChoices(3, "three", Counter(others) - half, 0),
    ]

    assert kinds_of(alerts.steering(runs)) == ([(1, "alpha")] if found else [])


def test_a_steering_run_is_told_with_its_figures(store: Store) -> None:
    run = past(store, {"alpha": 195, "beta": 5})
    past(store, {"alpha": 30, "beta": 170})
    past(store, {"alpha": 20, "beta": 180})

    assert alerts.steering(store(alerts.run_choices)) == [
        Alert(
            AlertKind.STEERING,
            "97.5% of the lines go to alpha, which gets 12.5% of other runs",
            run,
            "alpha",
            {"lines": 200, "share": 0.975, "share_elsewhere": 0.125, "lines_elsewhere": 400},
        )
    ]


def test_a_run_that_asked_for_its_expert_is_not_steering(store: Store) -> None:
    past(store, {"alpha": 300}, pinned=150)
    past(store, {"beta": 150, "gamma": 150})

    assert alerts.steering(store(alerts.run_choices)) == []


# --- outside every domain -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "outside", "found"), [(200, 100, True), (200, 99, False), (199, 199, False), (400, 400, True)]
)
def test_a_run_that_is_mostly_outside_is_a_burst(lines: int, outside: int, found: bool) -> None:
    runs = [RunChoices(1, "one", Counter(alpha=lines - 50, beta=50), outside), RunChoices(2, "two", Counter(), 0)]

    assert kinds_of(alerts.outside_bursts(runs)) == ([(1, None)] if found else [])


def test_a_burst_is_told_with_its_figures(store: Store) -> None:
    run = past(store, {"alpha": 240, None: 60}, outside=150)

    assert alerts.outside_bursts(store(alerts.run_choices)) == [
        Alert(
            AlertKind.OUTSIDE_BURST,
            "62.5% of the lines are outside every domain",
            run,
            None,
            {"lines": 240, "outside": 150, "share": 0.625},
        )
    ]


def test_lines_that_could_not_be_routed_are_no_burst(store: Store) -> None:
    """They count as outside every domain, but it is the router that is broken."""
    past(store, {None: 300, "alpha": 200}, outside=300)

    assert alerts.outside_bursts(store(alerts.run_choices)) == []


# --- routes that shift ----------------------------------------------------------------------------------------


def test_shares_that_change_are_one_alert(store: Store) -> None:
    past(store, {"alpha": 2000}, minutes_ago=2)
    past(store, {"beta": 500})

    assert store(alerts.route_shift) == [
        Alert(
            AlertKind.ROUTE_SHIFT,
            "the last 500 lines went elsewhere than the 2,000 before (distance 1.00); beta gets 100.0%, before 0.0%",
            detail={
                "distance": 1.0,
                "recent": {"alpha": 0.0, "beta": 1.0},
                "before": {"alpha": 1.0, "beta": 0.0},
                "lines": 500,
                "lines_before": 2000,
            },
        )
    ]


def test_less_than_enough_decisions_are_no_shift(store: Store) -> None:
    past(store, {"alpha": 1999}, minutes_ago=2)
    past(store, {"beta": 500})

    assert store(alerts.route_shift) == []


def test_the_same_shares_are_no_shift(store: Store) -> None:
    for ago in range(5):
        past(store, {"alpha": 250, "beta": 250}, minutes_ago=ago)

    assert store(alerts.route_shift) == []


@pytest.mark.parametrize(("more", "found"), [(0.30, False), (0.42, True)])
def test_a_shift_is_told_from_the_distance_on(store: Store, more: float, found: bool) -> None:
    """From an even half to 80 % is 0.27 away, to 92 % is 0.41."""
    past(store, {"alpha": 1000, "beta": 1000}, minutes_ago=1)
    n = round(500 * (0.5 + more))
    past(store, {"alpha": n, "beta": 500 - n})

    assert len(store(alerts.route_shift)) == found


def test_only_the_last_decisions_are_compared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last 20 with the 100 before: runs by their end, lines by their place; older ones and pinned ones are left."""
    monkeypatch.setattr(alerts, "_RECENT", 20)
    monkeypatch.setattr(alerts, "_BEFORE", 100)
    monkeypatch.setattr(alerts, "_LEAST_RECENT", 1)
    past(store, {"beta": 7, "gamma": 10}, minutes_ago=1)
    past(store, {"old": 50, "alpha": 103}, minutes_ago=2, pinned=0)

    (alert,) = store(alerts.route_shift)

    assert (alert.detail["lines"], alert.detail["lines_before"]) == (20, 100)
    assert alert.detail["recent"] == {"alpha": 0.15, "beta": 0.35, "gamma": 0.5}
    assert alert.detail["before"] == {"alpha": 1.0, "beta": 0.0, "gamma": 0.0}
    store.sql(
        "UPDATE query SET pinned = 'x' FROM decision d WHERE d.run_id = query.run_id AND d.idx = query.idx"
        " AND d.experts->0->>'name' = 'beta'"
    )
    store.sql("UPDATE decision SET experts = '[]' WHERE experts->0->>'name' = 'gamma'")
    assert store(alerts.route_shift) == []


def test_questions_count_as_decisions_and_previews_do_not(store: Store) -> None:
    past(store, {"alpha": 2000}, minutes_ago=2)
    past(store, {"beta": 500}, kind="preview")
    assert store(alerts.route_shift) == []
    past(store, {"beta": 500}, kind="ask")

    assert len(store(alerts.route_shift)) == 1


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ({"a": 3, "b": 1}, {"a": 300, "b": 100}, 0.0),
        ({"a": 1}, {"b": 5}, 1.0),
        # By hand: ½·1·log2(1 / ¾) + ½·(½·log2(½ / ¾) + ½·log2(½ / ¼)) = 0.311278
        ({"a": 7}, {"a": 2, "b": 2}, math.sqrt(0.31127812445913283)),
        ({"a": 7, "b": 0}, {"a": 2, "b": 2}, math.sqrt(0.31127812445913283)),
    ],
)
def test_the_distance_of_two_distributions(one: dict[str, int], other: dict[str, int], distance: float) -> None:
    assert alerts.jensen_shannon(one, other) == pytest.approx(distance)
    assert alerts.jensen_shannon(other, one) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        (alerts._CHOICES, {"runs": 1000, "lines": 20_000, "per_run": 1000}),
        (alerts._LAST_DECISIONS, {"runs": 12_000, "n": 12_000, "recent": 2000}),
    ],
)
def test_decisions_are_read_by_run(store: Store, query: str, parameters: dict[str, Any]) -> None:
    for ago in range(3):
        past(store, {"alpha": 100}, minutes_ago=ago)
    with store.engine.begin() as connection:
        for kind in ("seqscan", "bitmapscan"):
            connection.execute(text(f"SET LOCAL enable_{kind} = off"))
        plan = "\n".join(connection.execute(text(f"EXPLAIN {query}"), parameters).scalars())

    assert "using run_ended on run" in plan
    assert "using decision_pkey on decision" in plan
    assert "using query_pkey on query" in plan
    assert "Seq Scan" not in plan


def test_a_kind_is_stored_by_its_name(store: Store) -> None:
    store(alerts.raise_alerts, [Alert(kind, "Look.") for kind in AlertKind])

    kinds = "steering outside_burst route_shift imbalance expert_anomaly expert_unavailable"
    assert store.values("SELECT kind FROM router_alert ORDER BY id") == kinds.split()
