"""What people should look at, and how runs that ended are searched for it.

Decisions are wide rows and there may be millions of them, so they are read by run, through the primary key, and only
of the runs that ended last. Lines that named their expert themselves, or could not be routed, say nothing of the router
and are left out.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from storage.copying import as_json


class AlertKind(StrEnum):
    STEERING = "steering"  # a run whose lines go to one expert that others hardly use
    OUTSIDE_BURST = "outside_burst"  # a run that is mostly outside every domain
    ROUTE_SHIFT = "route_shift"  # the experts' shares changed from one run to the next
    IMBALANCE = "imbalance"  # an expert gets far more, or far less, than its share
    EXPERT_ANOMALY = "expert_anomaly"  # an expert is much worse than it was
    EXPERT_UNAVAILABLE = "expert_unavailable"  # an expert is beyond a limit


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to look at: of a run, of an expert, of both, or of the router as a whole."""

    kind: AlertKind
    message: str
    run_id: int | None = None
    expert: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlertView:
    id: int
    kind: str
    run: str | None
    expert: str | None
    message: str
    detail: dict[str, Any]
    created_at: datetime
    seen_at: datetime | None


# A run that is gone meanwhile needs no alert, and while we look nobody can remove it.
_RAISE = """
INSERT INTO router_alert (kind, run_id, expert, message, detail)
SELECT new.* FROM (SELECT CAST(:kind AS text) AS kind, CAST(:run AS bigint) AS run_id, CAST(:expert AS text) AS expert,
                          CAST(:message AS text), CAST(:detail AS jsonb)) new
WHERE (run_id IS NULL OR EXISTS (SELECT 1 FROM run r WHERE r.id = new.run_id FOR KEY SHARE))
  AND NOT EXISTS (
    SELECT 1 FROM router_alert a
    WHERE a.kind = new.kind AND a.run_id IS NOT DISTINCT FROM new.run_id AND a.expert IS NOT DISTINCT FROM new.expert
      AND (a.run_id IS NOT NULL OR a.seen_at > now() - make_interval(secs => :quiet)))
ON CONFLICT (kind, coalesce(run_id, 0), coalesce(expert, '')) WHERE seen_at IS NULL DO NOTHING
"""


def raise_alerts(connection: Connection, alerts: Iterable[Alert], *, quiet_s: float = 3600) -> list[Alert]:
    """Store these alerts; those that are new.

    An alert of the same kind, run and expert is stored once while nobody has seen it. After that, one of a run never
    comes back (what it says of the run stays as it is), and any other one only when ``quiet_s`` have passed and
    what it is about is still so.
    """
    return [
        alert
        for alert in alerts
        if connection.execute(
            text(_RAISE),
            {
                "kind": alert.kind,
                "run": alert.run_id,
                "expert": alert.expert,
                "message": alert.message,
                "detail": as_json(dict(alert.detail)),
                "quiet": quiet_s,
            },
        ).rowcount
    ]


def alerts(connection: Connection, *, unseen_only: bool = True, limit: int = 100) -> list[AlertView]:
    """The newest alerts first."""
    which = "WHERE a.seen_at IS NULL" if unseen_only else ""
    rows = connection.execute(
        text(
            "SELECT a.id, a.kind, r.public_id, a.expert, a.message, a.detail, a.created_at, a.seen_at"
            f" FROM router_alert a LEFT JOIN run r ON r.id = a.run_id {which} ORDER BY a.id DESC LIMIT :n"
        ),
        {"n": limit},
    )
    return [AlertView(*row) for row in rows]


def acknowledge(connection: Connection, ids: Sequence[int] | None = None) -> int:
    """Note that somebody has seen these alerts (None: all); the number that nobody had seen before."""
    seen = connection.execute(
        text(
            "UPDATE router_alert SET seen_at = clock_timestamp()"
            " WHERE seen_at IS NULL AND (CAST(:ids AS bigint[]) IS NULL OR id = ANY(:ids))"
        ),
        {"ids": None if ids is None else list(ids)},
    )
    return seen.rowcount


# --- what runs that ended show -----------------------------------------------------------------------------------

_LAST_RUNS = """
SELECT id, public_id, n_total, finished_at FROM run WHERE finished_at IS NOT NULL AND kind <> 'preview'
ORDER BY finished_at DESC LIMIT :runs
"""

# Of long runs a sample: one line of each of :per_run equal stretches, at a place that depends on run and stretch only.
_CHOICES = f"""
WITH last AS ({_LAST_RUNS}), taken AS (
    SELECT * FROM (
        SELECT id, public_id, n_total, least(n_total, :per_run) AS n,
               sum(least(n_total, :per_run)) OVER (ORDER BY finished_at DESC, id DESC) AS up_to_here FROM last
    ) s WHERE up_to_here - n < :lines
)
SELECT t.id, t.public_id, d.expert, count(*) AS n, count(*) FILTER (WHERE NOT d.in_scope) AS outside
FROM taken t
CROSS JOIN LATERAL generate_series(0, t.n - 1) k
CROSS JOIN LATERAL (SELECT k * t.n_total / t.n AS start, (k + 1) * t.n_total / t.n AS stop) stretch
CROSS JOIN LATERAL (
    SELECT d.experts->0->>'name' AS expert, d.in_scope FROM decision d
    JOIN query q ON q.run_id = d.run_id AND q.idx = d.idx
    WHERE d.run_id = t.id AND q.pinned IS NULL
      AND d.idx = start + ('x' || left(md5(t.id || ':' || k), 7))::bit(28)::integer % (stop - start)
    LIMIT 1
) d
WHERE d.expert IS NOT NULL
GROUP BY t.id, t.public_id, d.expert
"""

_LAST_DECISIONS = f"""
WITH last AS ({_LAST_RUNS}), decided AS (
    SELECT l.finished_at, d.* FROM last l CROSS JOIN LATERAL (
        SELECT run_id, idx, experts->0->>'name' AS expert FROM decision WHERE run_id = l.id ORDER BY idx DESC LIMIT :n
    ) d
    ORDER BY l.finished_at DESC, d.run_id DESC, d.idx DESC LIMIT :n
), placed AS (
    SELECT d.expert, row_number() OVER (ORDER BY d.finished_at DESC, d.run_id DESC, d.idx DESC) AS place,
           count(*) OVER () AS n
    FROM decided d JOIN query q ON q.run_id = d.run_id AND q.idx = d.idx
    WHERE q.pinned IS NULL AND d.expert IS NOT NULL
)
SELECT expert, count(*) FILTER (WHERE place <= least(:recent, n / 5)) AS recent,
       count(*) FILTER (WHERE place > least(:recent, n / 5)) AS before
FROM placed GROUP BY expert
"""

_RUNS = 1000  # looked through at the most
_LINES = 20_000  # and no more when these many lines of them were read
_LINES_OF_A_RUN = 1000
_LEAST_LINES = 200
_STEERED = 0.95
_USED_ELSEWHERE = 0.5
_OUTSIDE = 0.5
_RECENT = 2000
_BEFORE = 10_000
_LEAST_RECENT = 500  # then there are at least 2,000 before
_SHIFTED = 0.3


@dataclass(frozen=True, slots=True)
class RunChoices:
    """Where the routed lines of an ended run went: expert -> first choices, and how many were outside every domain.

    Of a run with more than a thousand lines these are a sample of a thousand.
    """

    run_id: int
    run: str
    first: Counter[str]
    outside: int


def run_choices(connection: Connection) -> list[RunChoices]:
    """The runs that ended last, the newest number first, up to some twenty thousand lines in all."""
    found: dict[int, RunChoices] = {}
    parameters = {"runs": _RUNS, "lines": _LINES, "per_run": _LINES_OF_A_RUN}
    for run_id, run, expert, n, outside in connection.execute(text(_CHOICES), parameters):
        so_far = found.get(run_id, RunChoices(run_id, run, Counter(), 0))
        found[run_id] = RunChoices(run_id, run, so_far.first + Counter({expert: n}), so_far.outside + outside)
    return sorted(found.values(), key=lambda run: -run.run_id)


def steering(runs: Sequence[RunChoices]) -> list[Alert]:
    """Runs of at least 200 lines of which at least 95 % go to one expert that gets under half of the others' lines.

    Questions on one subject look the same as questions made to reach one expert, so this is for a person to judge.
    Judged only where the other runs hold at least 200 lines.
    """
    everything: Counter[str] = Counter()
    for run in runs:
        everything += run.first
    found = []
    for run in runs:
        n = run.first.total()
        n_others = everything.total() - n
        if n < _LEAST_LINES or n_others < _LEAST_LINES:
            continue
        ((expert, most),) = run.first.most_common(1)
        share, share_elsewhere = most / n, (everything[expert] - most) / n_others
        if share >= _STEERED and share_elsewhere < _USED_ELSEWHERE:
            message = f"{share:.1%} of the lines go to {expert}, which gets {share_elsewhere:.1%} of other runs"
            detail = {"lines": n, "share": share, "share_elsewhere": share_elsewhere, "lines_elsewhere": n_others}
            found.append(Alert(AlertKind.STEERING, message, run.run_id, expert, detail))
    return found


def outside_bursts(runs: Sequence[RunChoices]) -> list[Alert]:
    """Runs of at least 200 lines of which at least half are outside every domain."""
    found = []
    for run in runs:
        n = run.first.total()
        if n >= _LEAST_LINES and run.outside / n >= _OUTSIDE:
            message = f"{run.outside / n:.1%} of the lines are outside every domain"
            detail = {"lines": n, "outside": run.outside, "share": run.outside / n}
            found.append(Alert(AlertKind.OUTSIDE_BURST, message, run.run_id, None, detail))
    return found


def route_shift(connection: Connection) -> list[Alert]:
    """One alert where the experts' shares of the last decisions are far from those of the decisions before them.

    The last 2,000 against the 10,000 before; with fewer in all, the last fifth against the rest, from 500 and 2,000 on.
    """
    parameters = {"runs": _RECENT + _BEFORE, "n": _RECENT + _BEFORE, "recent": _RECENT}
    rows = connection.execute(text(_LAST_DECISIONS), parameters).all()
    recent, before = {row.expert: row.recent for row in rows}, {row.expert: row.before for row in rows}
    n_recent, n_before = sum(recent.values()), sum(before.values())
    if n_recent < _LEAST_RECENT:
        return []
    distance = jensen_shannon(recent, before)
    if distance < _SHIFTED:
        return []
    shares = {expert: (recent[expert] / n_recent, before[expert] / n_before) for expert in recent}
    most = max(shares, key=lambda expert: (abs(shares[expert][0] - shares[expert][1]), expert))
    message = (
        f"the last {n_recent:,} lines went elsewhere than the {n_before:,} before (distance {distance:.2f});"
        f" {most} gets {shares[most][0]:.1%}, before {shares[most][1]:.1%}"
    )
    detail = {
        "distance": distance,
        "recent": {expert: now for expert, (now, _) in sorted(shares.items())},
        "before": {expert: then for expert, (_, then) in sorted(shares.items())},
        "lines": n_recent,
        "lines_before": n_before,
    }
    return [Alert(AlertKind.ROUTE_SHIFT, message, detail=detail)]


def jensen_shannon(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Jensen–Shannon distance of two non-empty distributions given as counts: 0 equal, 1 nothing in common.

    The square root of the divergence with logarithms to base 2, which makes it a metric (Endres and Schindelin 2003).
    Unlike the divergence of Kullback and Leibler it is finite where an expert got nothing at all.
    """
    n_one, n_other = sum(one.values()), sum(other.values())
    divergence = 0.0
    for key in one.keys() | other.keys():
        p, q = one.get(key, 0) / n_one, other.get(key, 0) / n_other
        divergence += sum(share * math.log2(2 * share / (p + q)) for share in (p, q) if share > 0) / 2
    return math.sqrt(min(max(divergence, 0.0), 1.0))
