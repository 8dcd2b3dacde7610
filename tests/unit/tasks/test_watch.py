"""The watch: alerts of experts, of their load and of runs, each raised once."""

from typing import Any

import pytest

from experts.standing import Limits, standing_of
from storage import alerts
from storage.alerts import Alert, AlertKind, AlertView
from storage.standing import Backlog, Measured, Stretch
from tasks.watch import of_load, of_standing, watch
from tests.unit.storage.past_runs import past
from tests.unit.tasks.conftest import Bench

NOTHING = Stretch(0, 0, 0.0, 0, None, None)
GOOD = Stretch(100, 0, 10_000.0, 80, 0.7, 0.9)
CARD: dict[str, Any] = {"capabilities": [{"max_load": 100}]}


@pytest.fixture
def served(bench: Bench) -> Bench:
    bench.serve()
    return bench


def worked(bench: Bench, expert: str, n: int, *, errors: int = 0, hours_ago: int = 0) -> None:
    bench.store.sql(
        "INSERT INTO expert_hour (expert_id, hour, n_queries, n_errors, busy_ms) SELECT id, date_trunc('hour',"
        " clock_timestamp()) - make_interval(hours => :ago), :n, :errors, :n * 10 FROM expert WHERE name = :expert",
        expert=expert,
        n=n,
        errors=errors,
        ago=hours_ago,
    )


def listed(bench: Bench) -> list[AlertView]:
    return bench.store(alerts.alerts)


def test_an_idle_stack_has_nothing_to_look_at(bench: Bench) -> None:
    assert bench.store(watch) == []
    bench.serve()

    assert bench.store(watch) == []
    assert listed(bench) == []


def test_a_run_that_went_well_is_nothing_to_look_at(served: Bench) -> None:
    served.finalized(["question about alpha", "question about beta"])

    assert served.store(watch) == []


def test_what_is_found_is_raised_once(served: Bench) -> None:
    worked(served, "alpha", 600, errors=150)
    worked(served, "alpha", 600, errors=60, hours_ago=5)
    worked(served, "beta", 300)
    steering = past(served.store, {"beta": 200}, minutes_ago=1)
    past(served.store, {"alpha": 200}, outside=200, minutes_ago=2)
    past(served.store, {"gamma": 2000, "alpha": 400}, minutes_ago=3)

    found = served.store(watch)

    assert [(alert.kind, alert.expert) for alert in found] == [
        ("steering", "alpha"),
        ("steering", "beta"),
        ("outside_burst", None),
        ("route_shift", None),
        ("imbalance", "alpha"),
        ("imbalance", "gamma"),
        ("expert_unavailable", "alpha"),
        ("expert_anomaly", "alpha"),
    ]
    assert found[1].run_id == steering
    assert found[4].message == "alpha gets 2.00 times the mean load: 600 of 900 queries"
    assert found[6].message == "alpha: errors 25 %, over 20 %"
    assert found[7].detail == {"what": ["errors 25 %, 10 % before"]}
    assert sorted(alert.kind for alert in listed(served)) == sorted(alert.kind for alert in found)

    assert served.store(watch) == []
    assert len(listed(served)) == len(found)
    served.store(alerts.acknowledge)
    assert served.store(watch) == []
    assert listed(served) == []


def test_what_is_sent_and_not_answered_yet_is_load(served: Bench) -> None:
    worked(served, "alpha", 250)
    worked(served, "beta", 246)
    run = served.routed([f"question {n} about gamma" for n in range(4)])
    assert len(served.chunks(run, "queued")) == 1

    assert [(alert.expert, alert.detail) for alert in served.store(watch)] == [
        ("gamma", {"ratio": pytest.approx(0.024), "queries": 4, "queries_of_all": 500})
    ]


def test_experts_that_do_not_serve_are_not_watched(served: Bench) -> None:
    worked(served, "gamma", 1000, errors=1000)
    served.store.sql("UPDATE expert SET serving = false WHERE name = 'gamma'")

    assert served.store(watch) == []


def test_limits_can_be_others(served: Bench) -> None:
    worked(served, "alpha", 20, errors=1)
    assert served.store(watch) == []

    (alert,) = served.store(watch, Limits(max_error_rate=0.01))

    assert (alert.kind, alert.message) == (AlertKind.EXPERT_UNAVAILABLE, "alpha: errors 5 %, over 1 %")


# --- the parts ------------------------------------------------------------------------------------------------


def test_a_standing_is_made_of_all_that_storage_knows() -> None:
    slower = Stretch(100, 0, 20_000.0, 80, 0.7, 0.9)

    now = standing_of(Measured("alpha", CARD, slower, GOOD, Backlog(queued=20, leased=5)))

    assert (now.expert, now.queue, now.in_flight, now.capacity, now.free) == ("alpha", 20, 5, 100, 0.75)
    assert (now.service_s, now.wait_s, now.performance) == (0.2, 5.0, 0.9)
    assert now.anomalies == ("0.2 s per query, 0.1 s before",)
    assert not standing_of(Measured("alpha", CARD, GOOD, NOTHING, Backlog(0, 0)), Limits(max_latency_s=0.05)).available


@pytest.mark.parametrize(
    ("load", "experts"),
    [
        pytest.param({"a": 499, "b": 0, "c": 0}, [], id="too few in all"),
        pytest.param({"a": 375, "b": 125}, [], id="at the limits"),
        pytest.param({"b": 124, "a": 376}, ["a", "b"], id="beyond them"),
        pytest.param({"a": 500}, [], id="one expert"),
        pytest.param({}, [], id="none"),
    ],
)
def test_an_uneven_load_is_told_of_each_expert(load: dict[str, int], experts: list[str]) -> None:
    found = of_load(load)

    assert [(alert.kind, alert.expert, alert.run_id) for alert in found] == [
        (AlertKind.IMBALANCE, expert, None) for expert in experts
    ]


def test_an_expert_that_stands_well_is_no_alert() -> None:
    assert of_standing(standing_of(Measured("alpha", CARD, GOOD, GOOD, Backlog(0, 0)))) == []


def test_an_alert_of_an_expert_names_all_that_is_wrong() -> None:
    bad = Stretch(100, 30, 250_000.0, 70, 0.7, 0.5)

    found = of_standing(standing_of(Measured("alpha", CARD, bad, GOOD, Backlog(0, 0))))

    why = ["2.5 s per query, over 2 s", "accuracy 50 %, under 70 %", "errors 30 %, over 20 %"]
    anomalies = ["2.5 s per query, 0.1 s before", "accuracy 50 %, 90 % before", "errors 30 %, 0 % before"]
    assert found == [
        Alert(AlertKind.EXPERT_UNAVAILABLE, f"alpha: {'; '.join(why)}", None, "alpha", {"what": why}),
        Alert(AlertKind.EXPERT_ANOMALY, f"alpha: {'; '.join(anomalies)}", None, "alpha", {"what": anomalies}),
    ]
