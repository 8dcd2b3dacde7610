"""``moe experts status`` and ``moe router alerts``."""

import pytest

from storage import alerts
from storage.alerts import Alert, AlertKind
from storage.database import transact
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.storage.builders import Store
from worker.runtime import Runtime


@pytest.fixture
def store(client: Runtime) -> Store:
    """Three experts serve, and there are no alerts."""
    return Store(client.engine)


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_status_of_experts_is_a_table(moe: Moe, store: Store) -> None:
    store.sql(
        "INSERT INTO expert_hour (expert_id, hour, n_queries, n_errors, busy_ms)"
        " SELECT id, date_trunc('hour', clock_timestamp()), 100, 25, 300000 FROM expert WHERE name = 'alpha'"
    )

    header, alpha, beta, _ = lines(moe("experts", "status", code=0).text)

    assert " ".join(header) == (
        "expert available why performance queue in flight capacity wait s priority anomalies load ratio"
    )
    assert " ".join(alpha) == "alpha no 3 s per query, over 2 s; errors 25 %, over 20 % 0.75 0 0 512 0 0.825 3"
    assert " ".join(beta) == "beta yes 0 0 512 0 0.65 0"


def test_the_status_of_experts_is_json(moe: Moe, store: Store) -> None:
    found = moe("experts", "status", "--json").json

    assert [(expert["expert"], expert["available"], expert["why"]) for expert in found] == [
        ("alpha", True, []),
        ("beta", True, []),
        ("gamma", True, []),
    ]
    assert {"performance", "queue", "in_flight", "capacity", "wait_s", "priority", "anomalies", "load_ratio"} < set(
        found[0]
    )


def test_without_experts_the_status_is_empty(moe: Moe, bare_client: Runtime) -> None:
    assert moe("experts", "status", "--json").json == []
    assert len(lines(moe("experts", "status", code=0).text)) == 1


def raised(store: Store, n: int = 1, message: str = "Look.") -> None:
    new = [Alert(AlertKind.IMBALANCE, message, expert=f"e{i}", detail={"ratio": 2.0}) for i in range(n)]
    transact(store.engine, lambda c: alerts.raise_alerts(c, new))


def test_alerts_are_a_table_until_they_are_seen(moe: Moe, store: Store) -> None:
    assert moe("router", "alerts", code=0).text == "no new alerts\n"
    assert moe("router", "alerts", "--all", code=0).text == "no alerts\n"
    raised(store, 2)

    said = moe("router", "alerts", "--ack", code=0)

    header, first, second = lines(said.text)
    assert header == ["alert", "since", "kind", "expert", "what", "run", "seen"]
    assert first[3:] == ["imbalance", "e1", "Look."]
    assert second[3:] == ["imbalance", "e0", "Look."]
    assert said.err == "marked as seen: 2\n"
    assert moe("router", "alerts", code=0).text == "no new alerts\n"
    again = moe("router", "alerts", "--seen", "--ack", code=0)
    assert len(lines(again.text)) == 3
    assert len(lines(again.text)[1]) == 8  # with the time it was seen
    assert again.err == "marked as seen: 0\n"


def test_alerts_are_json(moe: Moe, store: Store) -> None:
    assert moe("router", "alerts", "--json").json == []
    raised(store, 3)

    found = moe("router", "alerts", "--limit", "2", "--ack", "--json").json

    assert [(alert["kind"], alert["expert"], alert["detail"], alert["seen_at"]) for alert in found] == [
        ("imbalance", "e2", {"ratio": 2.0}, None),
        ("imbalance", "e1", {"ratio": 2.0}, None),
    ]
    assert [alert["expert"] for alert in moe("router", "alerts", "--json").json] == ["e0"]
    assert [alert["expert"] for alert in moe("router", "alerts", "--all", "--json").json] == ["e2", "e1", "e0"]


def test_an_alert_cannot_steer_a_terminal(moe: Moe, store: Store) -> None:
    raised(store, message="Look \x1b[2J [red]here[/].")

    shown = moe("router", "alerts", code=0).text

    assert "\x1b" not in shown
    assert "[red]here[/]." in shown
