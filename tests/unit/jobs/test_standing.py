"""How the experts stand and what there is to look at, as scripts read it."""

import json
from typing import Any

import pytest

from experts.standing import Limits
from jobs import standing
from storage import alerts
from storage.alerts import Alert, AlertKind
from storage.database import transact
from tests.unit.storage.builders import Store
from worker.runtime import Runtime

NOTHING = {
    "n_queries": 0,
    "n_errors": 0,
    "busy_ms": 0.0,
    "n_answered": 0,
    "mean_confidence": None,
    "accuracy": None,
}


@pytest.fixture
def store(client: Runtime) -> Store:
    """Three experts serve, and there are no alerts."""
    return Store(client.engine)


def worked(store: Store, expert: str, n: int, **counts: Any) -> None:
    values = {"errors": 0, "ms": 100 * n} | counts
    store.sql(
        "INSERT INTO expert_hour (expert_id, hour, n_queries, n_errors, busy_ms)"
        " SELECT id, date_trunc('hour', clock_timestamp()), :n, :errors, :ms FROM expert WHERE name = :expert",
        expert=expert,
        n=n,
        **values,
    )


def raised(client: Runtime, n: int) -> None:
    new = [Alert(AlertKind.IMBALANCE, f"Look at {i}.", expert=f"e{i}", detail={"ratio": 2.0}) for i in range(n)]
    transact(client.engine, lambda c: alerts.raise_alerts(c, new))


def test_without_experts_there_is_nothing_to_tell(bare_client: Runtime) -> None:
    assert standing.status(bare_client) == []


def test_an_expert_that_did_nothing_is_told_with_what_is_known(client: Runtime, store: Store) -> None:
    found = standing.status(client)

    assert [entry["expert"] for entry in found] == ["alpha", "beta", "gamma"]
    assert found[0] == {
        "expert": "alpha",
        "available": True,
        "why": (),
        "anomalies": (),
        "performance": None,
        "queue": 0,
        "in_flight": 0,
        "capacity": 512,
        "free": 1.0,
        "service_s": None,
        "wait_s": 0.0,
        "priority": 0.65,
        "load": 0,
        "load_ratio": None,
        "recent": NOTHING,
        "history": NOTHING,
    }


def test_standing_and_load_are_told_of_each_expert(client: Runtime, store: Store) -> None:
    worked(store, "alpha", 60, errors=20)
    worked(store, "beta", 30)

    alpha, beta, gamma = standing.status(client)

    assert (alpha["available"], alpha["why"], alpha["performance"]) == (
        False,
        ("errors 33.33 %, over 20 %",),
        0.6667,
    )
    assert (beta["available"], beta["why"], beta["performance"], beta["service_s"]) == (True, (), 1.0, 0.1)
    assert [entry["load"] for entry in (alpha, beta, gamma)] == [60, 30, 0]
    assert [entry["load_ratio"] for entry in (alpha, beta, gamma)] == [2.0, 1.0, 0.0]
    assert alpha["recent"] == NOTHING | {
        "n_queries": 60,
        "n_errors": 20,
        "busy_ms": 6000.0,
        "mean_confidence": 0.0,
    }
    assert standing.status(client, Limits(max_error_rate=0.5))[0]["available"]
    json.dumps([alpha, beta, gamma])


def test_alerts_are_told_the_newest_first(client: Runtime, store: Store) -> None:
    assert standing.router_alerts(client) == []
    raised(client, 3)

    found = standing.router_alerts(client)

    assert [alert["message"] for alert in found] == ["Look at 2.", "Look at 1.", "Look at 0."]
    assert set(found[0]) == {"id", "kind", "run", "expert", "message", "detail", "created_at", "seen_at"}
    assert (found[0]["kind"], found[0]["run"], found[0]["detail"]) == ("imbalance", None, {"ratio": 2.0})
    assert standing.router_alerts(client, limit=2) == found[:2]


def test_only_what_was_shown_counts_as_seen(client: Runtime, store: Store) -> None:
    raised(client, 3)

    shown = standing.router_alerts(client, acknowledge=True, limit=2)

    assert [alert["seen_at"] for alert in shown] == [None, None]
    assert [alert["message"] for alert in standing.router_alerts(client)] == ["Look at 0."]
    everything = standing.router_alerts(client, everything=True)
    assert [alert["seen_at"] is None for alert in everything] == [False, False, True]
    standing.router_alerts(client, acknowledge=True)
    assert standing.router_alerts(client, acknowledge=True) == []
