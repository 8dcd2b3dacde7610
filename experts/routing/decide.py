"""From scores to a decision: which experts are asked, with what weight, how sure we are, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experts.analysis import analyse
from experts.routing.balancing import balanced
from experts.routing.base import Floats, Places, Scores
from experts.routing.explaining import Choice, explained
from experts.routing.tree import by_level
from experts.standing import Standing

# What weights may sum to besides 1.
_ROUNDING = 5e-4
# Priority of an expert of which nothing is known: neither better nor worse than others.
_UNKNOWN = 0.5


@dataclass(frozen=True, slots=True)
class Policy:
    """How scores become decisions; see the settings of the same names.

    ``risk`` is the share from which on an expert is asked whatever ``top_k`` says, so that at most ``max_misroute`` of
    the queries miss theirs; both None where no such limit is set.
    ``parents`` names the expert above an expert.
    """

    top_k: int = 2
    min_weight: float = 0.15
    in_scope_threshold: float = 0.5
    load_factor: bool = True
    load_from: float = 0.8
    capacity_factor: float = 1.25
    availability: bool = True
    tie_margin: float = 0.02
    balance_budget: float = 0.01
    max_misroute: float | None = None
    risk: float | None = None
    parents: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one query goes. ``experts`` are (name, weight), best first, weights summing to 1."""

    experts: tuple[tuple[str, float], ...]
    confidence: float
    coverage: float
    in_scope: bool
    reason: str
    explanation: dict[str, Any]


def load_factor(standing: Standing, policy: Policy) -> float:
    """1 up to ``load_from`` of the expert's capacity, then shrinking to a half at full capacity, never below."""
    if not policy.load_factor or standing.capacity <= 0:
        return 1.0
    share = (standing.queue + standing.in_flight) / (standing.capacity * policy.capacity_factor)
    if share <= policy.load_from:
        return 1.0
    over = (share - policy.load_from) / max(1 - policy.load_from, 1e-9)
    return max(0.5, 1 - 0.5 * over)


def factors(experts: Sequence[str], standings: Mapping[str, Standing], policy: Policy) -> list[float]:
    """What each expert's share is multiplied with. One that is not available gets nothing, unless none is."""
    load = [load_factor(standings[name], policy) if name in standings else 1.0 for name in experts]
    if not policy.availability:
        return load
    there = [name not in standings or standings[name].available for name in experts]
    return [factor if here else 0.0 for factor, here in zip(load, there, strict=True)] if any(there) else load


def decide(
    experts: Sequence[str], texts: Sequence[str], scores: Scores, standings: Mapping[str, Standing], policy: Policy
) -> list[Decision]:
    """One decision per text. Load and standing move the choice between experts, never confidence or coverage."""
    if len(texts) != len(scores.share):
        longer = "longer" if len(texts) > len(scores.share) else "shorter"
        raise ValueError(f"the texts are {longer} than their scores: {len(texts)} and {len(scores.share)}")
    if len(texts) == 0:
        return []
    by_load = factors(experts, standings, policy)
    share = by_level(scores.share, experts, policy.parents)
    final = share * np.array(by_load, np.float32)
    order = _ordered(final, experts, standings, policy)
    domain = scores.share.argmax(axis=1)
    decisions = []
    for row, text in enumerate(texts):
        kept = _kept(final[row], order[row], scores.share[row], policy)
        total = sum(float(final[row, place]) for place in kept)
        weights = [float(final[row, place]) / total for place in kept] if total > 0 else [1 / len(kept)] * len(kept)
        weighted = _weighted([experts[place] for place in kept], weights)
        coverage = float(scores.coverage[row])
        choice = Choice(
            experts=experts,
            shown=order[row, : max(len(kept) + 1, 2)].tolist(),
            kept=kept,
            share=share[row],
            final=final[row],
            gate=scores.gate[row],
            own=scores.self_assessment[row],
            factors=by_load,
            keywords=scores.keywords[row],
            neighbours=scores.neighbours[row],
            coverage=coverage,
            threshold=policy.in_scope_threshold,
        )
        reason, explanation = explained(choice, standings, policy.parents)
        if policy.risk is not None:
            explanation["risk"] = {"max_misroute": policy.max_misroute, "asked_from": round(policy.risk, 4)}
        explanation["analysis"] = {"domain": experts[domain[row]], **analyse(text).as_dict()}
        decisions.append(
            Decision(
                weighted,
                round(float(scores.confidence[row]), 4),
                round(coverage, 4),
                coverage >= policy.in_scope_threshold,
                reason,
                explanation,
            )
        )
    return decisions


def _weighted(names: Sequence[str], weights: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """Names with weights of four digits; where many are asked, the first takes what rounding leaves."""
    short = [round(weight, 4) for weight in weights]
    if abs(1 - sum(short)) > _ROUNDING:
        short[0] = round(1 - sum(short[1:]), 4)
    return tuple(zip(names, short, strict=True))


def _ordered(final: Floats, experts: Sequence[str], standings: Mapping[str, Standing], policy: Policy) -> Places:
    """Places of the experts by their score, int64[n, ·]: balanced by room first, and near ties by priority."""
    width = min(max(policy.top_k, 2) + 2, len(experts)) if policy.risk is None else len(experts)
    order = np.argsort(-final, axis=1, kind="stable")[:, :width]
    if not standings:
        return order
    if policy.tie_margin > 0 and width > 1:
        priority = np.array([standings[name].priority if name in standings else _UNKNOWN for name in experts])
        first, second = order[:, 0].copy(), order[:, 1].copy()
        rows = np.arange(len(order))
        tied = final[rows, first] - final[rows, second] < policy.tie_margin
        swapped = tied & (priority[second] > priority[first]) & (final[rows, second] > 0)
        order[swapped, 0], order[swapped, 1] = second[swapped], first[swapped]
    if policy.balance_budget > 0:
        room = np.array([_room(standings.get(name), policy, len(final)) for name in experts], np.int64)
        if (np.bincount(order[:, 0], minlength=len(experts)) > room).any():
            moved = balanced(final, room, budget=policy.balance_budget, first=order[:, 0])
            for row in np.flatnonzero(moved != order[:, 0]):
                full = order[row, 0]  # asked last of those looked at: second would be load all the same
                rest = order[row][(order[row] != moved[row]) & (order[row] != full)]
                order[row] = np.concatenate([[moved[row]], rest, [full]])[:width]
    return order


def _room(standing: Standing | None, policy: Policy, n: int) -> int:
    if standing is None:
        return n
    if policy.availability and not standing.available:
        return 0
    return max(int(standing.capacity * policy.capacity_factor) - standing.queue - standing.in_flight, 0)


def _kept(final: Floats, order: Places, share: Floats, policy: Policy) -> list[int]:
    """Places of the experts that are asked, best first."""
    if policy.risk is not None:
        wanted = [int(place) for place in order if share[place] >= policy.risk and final[place] > 0]
        return wanted or [int(order[0])]
    top = [int(place) for place in order[: policy.top_k]]
    total = sum(float(final[place]) for place in top)
    rest = [place for place in top[1:] if final[place] > 0 and final[place] >= policy.min_weight * total]
    return [top[0], *rest]
