"""From scores to a decision: which experts are asked, with what weight, how sure we are, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experts.analysis import analyse
from experts.routing.base import Calibration, Floats, Neighbour, Scores


@dataclass(frozen=True, slots=True)
class Policy:
    """How scores become decisions; see the settings of the same names."""

    top_k: int = 2
    gate_weight: float = 0.6
    min_weight: float = 0.15
    in_scope_threshold: float = 0.5
    load_factor: bool = True
    load_from: float = 0.8
    capacity_factor: float = 1.25


@dataclass(frozen=True, slots=True)
class Load:
    """Queries under way at an expert, and how many it takes at once."""

    in_flight: int
    max_load: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one query goes. ``experts`` are (name, weight), best first, weights summing to 1."""

    experts: tuple[tuple[str, float], ...]
    confidence: float
    coverage: float
    in_scope: bool
    reason: str
    explanation: dict[str, Any]


def load_factor(load: Load, policy: Policy) -> float:
    """1 up to ``load_from`` of the expert's capacity, then shrinking to a half at full capacity, never below."""
    if not policy.load_factor:
        return 1.0
    share = load.in_flight / (load.max_load * policy.capacity_factor)
    if share <= policy.load_from:
        return 1.0
    over = (share - policy.load_from) / max(1 - policy.load_from, 1e-9)
    return max(0.5, 1 - 0.5 * over)


def shares(scores: Scores, gate_weight: float) -> Floats:
    """float32[n, E]: ``gate_weight`` × gate + the rest × the experts' own assessment, rows scaled to sum 1."""
    total = scores.self_assessment.sum(axis=1, keepdims=True)
    own = np.divide(scores.self_assessment, total, out=np.array(scores.gate), where=total > 1e-9)
    mixed: Floats = gate_weight * scores.gate + (1 - gate_weight) * own
    return mixed


def decide(
    experts: Sequence[str],
    texts: Sequence[str],
    scores: Scores,
    loads: Mapping[str, Load],
    policy: Policy,
    calibration: Calibration,
) -> list[Decision]:
    """One decision per text. The load moves the choice between experts, never the confidence or the coverage."""
    factors = [load_factor(loads[name], policy) if name in loads else 1.0 for name in experts]
    mixed = shares(scores, policy.gate_weight)
    final = mixed * np.array(factors, np.float32)
    k = min(policy.top_k, len(experts))
    order = np.argsort(-final, axis=1, kind="stable")[:, :k]
    # Python numbers from here on: reading single numbers out of arrays costs more than all the rest.
    rows = zip(
        texts,
        order.tolist(),
        final.tolist(),
        scores.gate.tolist(),
        scores.self_assessment.tolist(),
        calibration(mixed.max(axis=1)).tolist(),
        scores.coverage.tolist(),
        scores.keywords,
        scores.neighbours,
        strict=True,
    )
    return [_decision(_Row(*row), experts, factors, policy) for row in rows]


class _Row(NamedTuple):
    text: str
    order: list[int]
    final: list[float]
    gate: list[float]
    own: list[float]
    confidence: float
    coverage: float
    keywords: Mapping[str, Sequence[str]]
    neighbours: Sequence[Neighbour]


def _decision(row: _Row, experts: Sequence[str], factors: Sequence[float], policy: Policy) -> Decision:
    total = sum(row.final[place] for place in row.order)
    kept = [place for place in row.order if row.final[place] >= policy.min_weight * total] or row.order[:1]
    total = sum(row.final[place] for place in kept) or 1.0
    weighted = tuple((experts[place], round(row.final[place] / total, 4)) for place in kept)
    in_scope = row.coverage >= policy.in_scope_threshold
    explanation = {
        "scores": {
            experts[place]: {
                "gate": round(row.gate[place], 4),
                "self": round(row.own[place], 4),
                "load": round(factors[place], 3),
                "final": round(row.final[place], 4),
            }
            for place in row.order
        },
        "keywords": {name: list(found) for name, found in row.keywords.items()},
        "nearest": [
            {"expert": near.expert, "text": near.text, "cosine": round(near.cosine, 3)} for near in row.neighbours
        ],
        "analysis": {"domain": weighted[0][0], **analyse(row.text).as_dict()},
    }
    reason = _reason(weighted, in_scope, row.coverage, explanation)
    return Decision(weighted, round(row.confidence, 4), round(row.coverage, 4), in_scope, reason, explanation)


def _reason(
    weighted: Sequence[tuple[str, float]], in_scope: bool, coverage: float, explanation: Mapping[str, Any]
) -> str:
    best = weighted[0][0]
    score = explanation["scores"][best]
    parts = [f"{best} scores highest (gate {score['gate']:.2f}, own assessment {score['self']:.2f})"]
    keywords = explanation["keywords"].get(best)
    if keywords:
        parts.append(f"keywords {', '.join(keywords[:3])}")
    near = next((n for n in explanation["nearest"] if n["expert"] == best), None)
    if near:
        parts.append(f"like its example “{_short(near['text'])}” ({near['cosine']:.2f})")
    if score["load"] < 1:
        parts.append(f"although it is busy (load factor {score['load']:.2f})")
    text = "; ".join(parts)
    if not in_scope:
        text = f"No expert covers this well (coverage {coverage:.2f}); {text}"
    elif len(weighted) > 1:
        text += f"; {', '.join(name for name, _ in weighted[1:])} asked as well"
    return text + "."


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
