"""How the experts stand, and what there is to look at, as people and scripts read it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from experts.standing import DEFAULT_LIMITS, Limits, load_ratios, standing_of
from storage import alerts
from storage import standing as stored
from storage.database import transact
from worker.runtime import Runtime


def status(runtime: Runtime, limits: Limits = DEFAULT_LIMITS) -> list[dict[str, Any]]:
    """One entry per serving expert, by name: its standing, and its load as a multiple of the mean.

    The load is what it was sent in the present hour and the one before: queries answered since or still open. The ratio
    is None while nothing was sent to anybody.
    """
    measured = transact(runtime.engine, stored.serving)
    ratios = load_ratios({expert.expert: expert.load for expert in measured})
    return [
        _rounded(asdict(standing_of(expert, limits)))
        | _rounded({"load": expert.load, "load_ratio": ratios.get(expert.expert)})
        | {"recent": _rounded(asdict(expert.recent)), "history": _rounded(asdict(expert.history))}
        for expert in measured
    ]


def _rounded(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items()}


def router_alerts(
    runtime: Runtime, *, everything: bool = False, acknowledge: bool = False, limit: int = 100
) -> list[dict[str, Any]]:
    """The newest alerts first, those nobody has seen or ``everything``; with ``acknowledge`` these are seen now.

    Only what is returned is marked, so nothing goes unseen that came in between.
    """

    def read(connection: Connection) -> list[dict[str, Any]]:
        found = alerts.alerts(connection, unseen_only=not everything, limit=limit)
        if acknowledge:
            alerts.acknowledge(connection, [alert.id for alert in found])
        return [asdict(alert) for alert in found]

    return transact(runtime.engine, read)
