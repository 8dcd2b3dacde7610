"""``moe experts status`` and ``moe router alerts``: how experts stand, and what there is to look at."""

from typing import Annotated

import typer

from jobs import standing
from jobs.cli.console import JsonFlag, emit_json, note, say, table
from jobs.cli.session import runtime


def experts_status(as_json: JsonFlag = False) -> None:
    """Show which experts can be relied on now, what waits for them, and what is unusual."""
    found = standing.status(runtime())
    if as_json:
        emit_json(found)
        return
    table(
        (
            "expert",
            "available",
            "why",
            "performance",
            "queue",
            "in flight",
            "capacity",
            "wait s",
            "priority",
            "anomalies",
            "load ratio",
        ),
        [
            (
                e["expert"],
                e["available"],
                "; ".join(e["why"]) or None,
                e["performance"],
                e["queue"],
                e["in_flight"],
                e["capacity"],
                e["wait_s"],
                e["priority"],
                "; ".join(e["anomalies"]) or None,
                e["load_ratio"],
            )
            for e in found
        ],
    )


def router_alerts(
    everything: Annotated[bool, typer.Option("--all", "--seen", help="Also those that were seen before.")] = False,
    acknowledge: Annotated[bool, typer.Option("--ack", help="Mark those shown as seen.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List what is unusual about runs, experts and the router. The newest come first."""
    found = standing.router_alerts(runtime(), everything=everything, acknowledge=acknowledge, limit=limit)
    if as_json:
        emit_json(found)
        return
    if not found:
        say("no alerts" if everything else "no new alerts")
        return
    table(
        ("alert", "since", "kind", "expert", "what", "run", "seen"),
        [
            (
                alert["id"],
                f"{alert['created_at']:%Y-%m-%d %H:%M}",
                alert["kind"],
                alert["expert"],
                alert["message"],
                alert["run"],
                None if alert["seen_at"] is None else f"{alert['seen_at']:%Y-%m-%d %H:%M}",
            )
            for alert in found
        ],
    )
    if acknowledge:
        note(f"marked as seen: {sum(alert['seen_at'] is None for alert in found)}")
