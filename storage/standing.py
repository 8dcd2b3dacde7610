"""What experts did lately and before that, and what waits for them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from storage import catalogue
from storage.catalogue import ExpertView

# Below this many judgements a share of good ones is chance.
_LEAST_JUDGED = 5

# Transaction time, unlike `clock_timestamp()`, can be looked up in an index.
_SINCE = "date_trunc('hour', now() - make_interval(mins => :minutes))"
_HISTORY = "interval '7 days'"

_HOURS = f"""
SELECT e.name, h.hour >= {_SINCE} AS recent, sum(h.n_queries), sum(h.n_errors), sum(h.busy_ms), sum(h.n_answered),
       sum(h.confidence_sum) / nullif(sum(h.n_queries - h.n_errors), 0)
FROM expert e LEFT JOIN expert_hour h ON h.expert_id = e.id AND h.hour >= {_SINCE} - {_HISTORY}
GROUP BY e.name, recent
"""

_JUDGED = f"""
SELECT expert, created_at >= {_SINCE} AS recent, count(*) FILTER (WHERE positive), count(*)
FROM feedback WHERE positive IS NOT NULL AND created_at >= {_SINCE} - {_HISTORY}
GROUP BY expert, recent HAVING count(*) >= :least
"""

_BACKLOG = """
SELECT e.name, coalesce(sum(cardinality(c.idxs)) FILTER (WHERE c.state = 'queued'), 0),
       coalesce(sum(cardinality(c.idxs)) FILTER (WHERE c.state = 'leased'), 0)
FROM chunk c JOIN expert e ON e.id = c.expert_id JOIN run r ON r.id = c.run_id AND r.state = 'in_progress'
WHERE c.state IN ('queued', 'leased') AND (c.state = 'leased' OR r.paused_at IS NULL) GROUP BY e.name
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What an expert did in a stretch of time; ``busy_ms`` is one worker's time, errors included.

    ``accuracy`` is the share of positive feedback given in that time, None below five judgements.
    """

    n_queries: int
    n_errors: int
    busy_ms: float
    n_answered: int
    mean_confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Queries of an expert that wait for a worker, and those being answered."""

    queued: int
    leased: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All that is known of how a serving expert does: its card, what it did lately and before, and what waits."""

    expert: str
    card: dict[str, Any]
    recent: Stretch
    history: Stretch
    backlog: Backlog

    @property
    def load(self) -> int:
        """Queries it was sent lately: answered since, or still open."""
        return self.recent.n_queries + self.backlog.queued + self.backlog.leased


def serving(connection: Connection, stored: Iterable[ExpertView] | None = None) -> list[Measured]:
    """The experts that serve, by name. ``stored`` are all experts, where the caller has read them already."""
    experts = catalogue.experts(connection, serving=True) if stored is None else stored
    done, waiting = figures(connection), backlogs(connection)
    return [
        Measured(expert.name, expert.card, *done[expert.name], waiting.get(expert.name, Backlog(0, 0)))
        for expert in experts
        if expert.serving
    ]


def figures(connection: Connection, *, recent_minutes: int = 60) -> dict[str, tuple[Stretch, Stretch]]:
    """expert -> what it did lately, and in the seven days before that; every expert that is stored has its entry.

    Work is added up by the hour, so "lately" begins with the hour in which ``recent_minutes`` ago lies: by default the
    present hour and the one before it.
    """
    parameters = {"minutes": recent_minutes, "least": _LEAST_JUDGED}
    accuracy = {
        (expert, recent): positive / n for expert, recent, positive, n in connection.execute(text(_JUDGED), parameters)
    }
    done: dict[tuple[str, bool], tuple[int, int, float, int, float | None]] = {}
    experts: dict[str, None] = {}
    for name, recent, queries, errors, busy_ms, answered, confidence in connection.execute(text(_HOURS), parameters):
        experts[name] = None
        if recent is not None:
            done[name, recent] = (int(queries), int(errors), float(busy_ms), int(answered), confidence)
    nothing = (0, 0, 0.0, 0, None)
    return {
        name: (
            Stretch(*done.get((name, True), nothing), accuracy=accuracy.get((name, True))),
            Stretch(*done.get((name, False), nothing), accuracy=accuracy.get((name, False))),
        )
        for name in experts
    }


def backlogs(connection: Connection) -> dict[str, Backlog]:
    """expert -> what it still has to do; experts with nothing to do are missing.

    Queries of a paused run count only while somebody answers them: nothing waits behind the others.
    """
    return {name: Backlog(int(queued), int(leased)) for name, queued, leased in connection.execute(text(_BACKLOG))}
