"""Why a query goes where it goes, and what would have sent it elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experts.routing.base import Floats, Neighbour
from experts.routing.tree import path
from experts.standing import Standing


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision with everything it was made from. ``shown`` and ``kept`` are places of experts, best first."""

    experts: Sequence[str]
    shown: Sequence[int]
    kept: Sequence[int]
    share: Floats
    final: Floats
    gate: Floats
    own: Floats
    factors: Sequence[float]
    keywords: Mapping[str, Sequence[str]]
    neighbours: Sequence[Neighbour]
    coverage: float
    threshold: float


def explained(
    choice: Choice, standings: Mapping[str, Standing], parents: Mapping[str, str | None]
) -> tuple[str, dict[str, Any]]:
    """One sentence of reason, and the parts of the decision as plain data."""
    explanation: dict[str, Any] = {
        "scores": {choice.experts[place]: _scores(choice, place, standings) for place in choice.shown},
        "keywords": {name: list(found) for name, found in choice.keywords.items()},
        "nearest": [
            {"expert": near.expert, "text": near.text, "cosine": round(near.cosine, 3)} for near in choice.neighbours
        ],
        "otherwise": otherwise(choice),
    }
    way = path(choice.experts[choice.kept[0]], choice.experts, parents)
    if len(way) > 1:
        explanation["path"] = way
    return _reason(choice), explanation


def _scores(choice: Choice, place: int, standings: Mapping[str, Standing]) -> dict[str, Any]:
    scores: dict[str, Any] = {
        "gate": round(float(choice.gate[place]), 4),
        "self": round(float(choice.own[place]), 4),
        "share": round(float(choice.share[place]), 4),
        "load": round(choice.factors[place], 3),
        "final": round(float(choice.final[place]), 4),
    }
    standing = standings.get(choice.experts[place])
    if standing is not None:
        scores["priority"] = round(standing.priority, 3)
        scores["wait_s"] = None if standing.wait_s is None else round(standing.wait_s, 3)
        if not standing.available:
            scores["unavailable"] = list(standing.why)
    return scores


def otherwise(choice: Choice) -> dict[str, Any]:
    """What would have changed the decision.

    ``runner_up`` with how far it lies behind (``margin``, of the final score); ``alone`` names whom each part would
    have chosen by itself where that is another; ``coverage`` is how far the query lies from the scope threshold.
    """
    first = choice.kept[0]
    parts = {
        "the gate alone": int(choice.gate.argmax()),
        "own assessment alone": int(choice.own.argmax()),
        "load and standing aside": int(choice.share.argmax()),
    }
    found: dict[str, Any] = {
        "alone": {name: choice.experts[place] for name, place in parts.items() if place != first},
        "coverage": round(choice.coverage - choice.threshold, 4),
    }
    rivals = [place for place in choice.shown if place != first]
    if rivals:
        found["runner_up"] = choice.experts[rivals[0]]
        found["margin"] = round(float(choice.final[first] - choice.final[rivals[0]]), 4)
    return found


def _reason(choice: Choice) -> str:
    names = choice.experts
    first = choice.kept[0]
    best = names[first]
    parts = [f"{best} scores highest (gate {choice.gate[first]:.2f}, own assessment {choice.own[first]:.2f})"]
    if choice.final[first] < choice.final.max():
        other = int(choice.final.argmax())
        more = choice.final[other] - choice.final[first]
        parts = [f"{best} is asked in place of {names[other]}, which scores {more:.2f} more"]
    keywords = choice.keywords.get(best)
    if keywords:
        parts.append(f"keywords {', '.join(keywords[:3])}")
    near = next((n for n in choice.neighbours if n.expert == best), None)
    if near:
        parts.append(f"like its example “{_short(near.text)}” ({near.cosine:.2f})")
    if choice.factors[first] < 1:
        parts.append(f"although it is busy (load factor {choice.factors[first]:.2f})")
    preferred = int(choice.share.argmax())
    if choice.factors[preferred] == 0:
        parts.append(f"{names[preferred]}, which fits better, is not available")
    text = "; ".join(parts)
    if choice.coverage < choice.threshold:
        return f"No expert covers this well (coverage {choice.coverage:.2f}); {text}."
    if len(choice.kept) > 1:
        text += f"; {', '.join(names[place] for place in choice.kept[1:])} asked as well"
    return text + "."


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
