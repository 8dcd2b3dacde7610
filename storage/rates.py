"""What was measured of work done, for cutting shards, for estimating time and for people."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

# Single questions say little about how fast a batch goes.
_LEAST_QUERIES = 16
# Before anything was measured: a MiniLM on one core.
_FIRST_RATE = 256.0


def routing_rate(connection: Connection) -> float | None:
    """Queries per second of one router over its last shards; None before there were any."""
    return _rate(connection, "route_ms")


def combining_rate(connection: Connection) -> float | None:
    """Queries per second of one control process when it combines; None before there was any."""
    return _rate(connection, "combine_ms")


def _rate(connection: Connection, column: str, *, shards: int = 20) -> float | None:
    row = connection.execute(
        text(
            f"SELECT sum(n_queries) AS n, sum({column}) AS ms FROM (SELECT n_queries, {column} FROM shard"
            f" WHERE state = 'done' AND n_queries >= :least AND {column} > 0 ORDER BY id DESC LIMIT :shards) last"
        ),
        {"least": _LEAST_QUERIES, "shards": shards},
    ).one()
    return None if not row.n else 1000 * float(row.n) / float(row.ms)


def shard_size(connection: Connection, *, seconds: float, least: int, most: int) -> int:
    """As many queries as a router takes ``seconds`` for at the rate last measured, within the bounds."""
    rate = routing_rate(connection) or _FIRST_RATE
    return int(min(max(rate * seconds, least), most))


@dataclass(frozen=True, slots=True)
class ExpertRate:
    """Measured over the last day: seconds of one worker per query, and how much there was to measure."""

    expert: str
    seconds_per_query: float
    n_queries: int


def expert_rates(connection: Connection) -> dict[str, ExpertRate]:
    """expert -> its rate; experts that answered nothing in the last day are missing."""
    rows = connection.execute(
        text(
            "SELECT e.name, sum(h.busy_ms) / 1000 / sum(h.n_queries), sum(h.n_queries) FROM expert_hour h"
            " JOIN expert e ON e.id = h.expert_id WHERE h.hour > clock_timestamp() - interval '25 hours'"
            " GROUP BY e.name HAVING sum(h.n_queries) > 0"
        )
    )
    return {name: ExpertRate(name, float(seconds), int(n)) for name, seconds, n in rows}


@dataclass(frozen=True, slots=True)
class Hour:
    """What an expert did in the hour from ``hour`` on; ``busy_ms`` is one worker's time."""

    hour: datetime
    n_queries: int
    n_answered: int
    n_errors: int
    busy_ms: float
    mean_confidence: float | None


def expert_hours(connection: Connection, expert_id: int, *, hours: int = 24) -> list[Hour]:
    """The expert's last hours in which it did something, the newest first."""
    rows = connection.execute(
        text(
            "SELECT hour, n_queries, n_answered, n_errors, busy_ms, confidence_sum / nullif(n_queries - n_errors, 0)"
            " FROM expert_hour WHERE expert_id = :expert"
            " AND hour > date_trunc('hour', clock_timestamp()) - make_interval(hours => :hours) ORDER BY hour DESC"
        ),
        {"expert": expert_id, "hours": hours},
    )
    return [Hour(*row) for row in rows]


def expert_quality(connection: Connection) -> dict[str, float]:
    """expert -> share of positive feedback, drawn towards 0.8 while there is little of it."""
    rows = connection.execute(
        text(
            "SELECT expert, (count(*) FILTER (WHERE positive) + 8.0) / (count(*) + 10.0) FROM feedback"
            " WHERE positive IS NOT NULL GROUP BY expert"
        )
    )
    return {expert: float(quality) for expert, quality in rows}
