"""How a run was routed: what the decisions say of themselves, and what is known to be right."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

# What a line says itself of the expert it belongs to counts where nobody has said otherwise since.
_TRUTH = """
SELECT d.run_id, d.idx, d.experts, d.confidence, coalesce(
    (SELECT f.correct_expert FROM feedback f WHERE f.run_id = d.run_id AND f.idx = d.idx
        AND f.correct_expert IS NOT NULL ORDER BY f.id DESC LIMIT 1),
    (SELECT e.name FROM expert e WHERE e.name = coalesce(q.request #>> '{metadata,expert}',
                                                          q.request #>> '{metadata,domain}'))) AS truth
FROM decision d JOIN query q ON q.run_id = d.run_id AND q.idx = d.idx
WHERE d.run_id = :run AND q.pinned IS NULL AND d.experts <> '[]'
"""

_MEASURED = f"""
SELECT count(*), count(*) FILTER (WHERE experts -> 0 ->> 'name' = truth),
    count(*) FILTER (WHERE EXISTS (SELECT 1 FROM jsonb_array_elements(experts) e WHERE e ->> 'name' = truth)),
    avg(confidence) FROM ({_TRUTH}) known WHERE truth IS NOT NULL
"""

_SAID = """
SELECT count(*), avg(d.confidence), avg(d.coverage), count(*) FILTER (WHERE NOT d.in_scope),
    sum(jsonb_array_length(d.experts)), min((d.explanation #>> '{risk,max_misroute}')::real),
    count(*) FILTER (WHERE d.experts = '[]')
FROM decision d WHERE d.run_id = :run
"""

_SPREAD = """
SELECT e ->> 'name', count(*) FILTER (WHERE place = 1), count(*), avg((e ->> 'weight')::float) FILTER (WHERE place = 1)
FROM decision d, jsonb_array_elements(d.experts) WITH ORDINALITY AS of(e, place)
WHERE d.run_id = :run GROUP BY 1 ORDER BY 1
"""

_TASKS = """
SELECT d.explanation #>> '{analysis,task}', count(*) FROM decision d
WHERE d.run_id = :run AND d.explanation ? 'analysis' GROUP BY 1 ORDER BY 2 DESC, 1
"""

_APART = """
SELECT count(*), avg((o.line #>> '{moe,disagreement}')::real) FROM outcome o
WHERE o.run_id = :run AND o.line #>> '{moe,disagreement}' IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Part:
    """What of a run went to an expert: how often it was the first choice, with which mean weight then (None: never),
    and how often it was asked at all."""

    expert: str
    first: int
    asked: int
    mean_weight: float | None


def spread(connection: Connection, run_id: int) -> list[Part]:
    """How the run's lines spread over the experts that were asked, by name."""
    return [Part(*row) for row in connection.execute(text(_SPREAD), {"run": run_id})]


@dataclass(frozen=True, slots=True)
class Routed:
    """Counts and means over the decisions of one run; ``known`` of ``lines`` have a right expert somebody named."""

    lines: int
    unroutable: int
    outside: int
    asked: int
    mean_confidence: float | None
    mean_coverage: float | None
    max_misroute: float | None
    known: int
    right_first: int
    right_among_asked: int
    mean_confidence_of_known: float | None
    first_choices: dict[str, int]
    asked_of: dict[str, int]
    tasks: dict[str, int]
    compared: int
    mean_disagreement: float | None


def routed(connection: Connection, run_id: int) -> Routed:
    """The figures of one run."""
    run = {"run": run_id}
    lines, confidence, coverage, outside, asked, limit, unroutable = connection.execute(text(_SAID), run).one()
    known, first, among, known_confidence = connection.execute(text(_MEASURED), run).one()
    parts = spread(connection, run_id)
    tasks: list[Any] = list(connection.execute(text(_TASKS), run))
    compared, apart = connection.execute(text(_APART), run).one()
    return Routed(
        lines=int(lines),
        unroutable=int(unroutable),
        outside=int(outside),
        asked=int(asked or 0),
        mean_confidence=confidence,
        mean_coverage=coverage,
        max_misroute=limit,
        known=int(known),
        right_first=int(first),
        right_among_asked=int(among),
        mean_confidence_of_known=known_confidence,
        first_choices={part.expert: part.first for part in parts if part.first},
        asked_of={part.expert: part.asked for part in parts},
        tasks={task: int(n) for task, n in tasks},
        compared=int(compared),
        mean_disagreement=apart,
    )
