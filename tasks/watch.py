"""Looking for what people should look at: experts that stand badly, runs that look made, routes that shift."""

from sqlalchemy import Connection

from experts.standing import DEFAULT_LIMITS, Limits, Standing, imbalance, standing_of
from storage import alerts
from storage import standing as stored
from storage.alerts import Alert, AlertKind
from worker.settings import Settings

# Below this many, an uneven load is chance.
_LEAST_QUERIES = 500


def watch(connection: Connection, limits: Limits = DEFAULT_LIMITS) -> list[Alert]:
    """Raise the alerts that are due; those that are new.

    Safe to run any number of times, by several at once: what nobody has seen yet is stored once. Takes a quarter of a
    second of the database where many runs have ended, so call it about once a minute, in a transaction of its own.
    """
    runs = alerts.run_choices(connection)
    found = [*alerts.steering(runs), *alerts.outside_bursts(runs), *alerts.route_shift(connection)]
    measured = stored.serving(connection)
    found += of_load({expert.expert: expert.load for expert in measured})
    found += [alert for expert in measured for alert in of_standing(standing_of(expert, limits))]
    return alerts.raise_alerts(connection, found)


def of_load(load: dict[str, int]) -> list[Alert]:
    """One alert for each expert far from the mean load, where there are 500 queries in all."""
    total = sum(load.values())
    if total < _LEAST_QUERIES:
        return []
    return [
        Alert(
            AlertKind.IMBALANCE,
            f"{expert} gets {ratio:.2f} times the mean load: {load[expert]:,} of {total:,} queries",
            expert=expert,
            detail={"ratio": ratio, "queries": load[expert], "queries_of_all": total},
        )
        for expert, ratio in sorted(imbalance(load).items())
    ]


def of_standing(now: Standing) -> list[Alert]:
    """At most two alerts: for the limits the expert broke, and for what is unusual."""
    kinds = ((AlertKind.EXPERT_UNAVAILABLE, now.why), (AlertKind.EXPERT_ANOMALY, now.anomalies))
    return [
        Alert(kind, f"{now.expert}: {'; '.join(what)}", expert=now.expert, detail={"what": list(what)})
        for kind, what in kinds
        if what
    ]


def limits(settings: Settings) -> Limits:
    """What an expert must keep to, to be available."""
    routing = settings.routing
    return Limits(routing.max_latency_seconds, routing.min_accuracy, routing.max_error_rate)
