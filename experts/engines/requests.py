"""What a request asks of a model that generates, in OpenAI's terms; what makes no sense is left at its default."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experts.engines.base import EngineQuery
from experts.language.prompting import ASSISTANT, SYSTEM, USER, Turn
from experts.serving.parameters import Sampling

# Below this a temperature cannot be told from 0, which takes the likeliest token.
_COLDEST = 1e-4
_SMALLEST_TOP_P = 1e-6
_MOST_STOPS = 16
_ROLES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "tool": USER, "assistant": ASSISTANT}


@dataclass(frozen=True, slots=True)
class Wish:
    """How a query wants to be answered."""

    turns: Sequence[Turn]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]


def read_wish(query: EngineQuery, default_max_tokens: int) -> Wish:
    """The turns and parameters of a query.

    Without a temperature the likeliest tokens are taken, so that a batch gives the same answers twice. Without a seed
    the draws of a row depend on its text alone. Turns after the last of the user are left out: there is nothing to
    answer in them.
    """
    request = query.request or {}
    wanted = request.get("max_completion_tokens", request.get("max_tokens"))
    return Wish(_turns(query.text, request), _count(wanted) or default_max_tokens, _sampling(query), _stop(request))


def _sampling(query: EngineQuery) -> Sampling:
    request = query.request or {}
    temperature = _number(request.get("temperature"), 0.0)
    if temperature < _COLDEST:
        return Sampling()
    top_p = min(max(_number(request.get("top_p"), 1.0), _SMALLEST_TOP_P), 1.0)
    seed = _whole(request.get("seed"))
    own = zlib.crc32(query.text.encode("utf-8", "surrogatepass"))
    return Sampling(temperature, top_p, own if seed is None else seed)


def _turns(text: str, request: Mapping[str, Any]) -> list[Turn]:
    messages = request.get("messages")
    turns = [turn for message in messages if (turn := _turn(message))] if isinstance(messages, list) else []
    while turns and turns[-1].role != USER:
        turns.pop()
    return turns or [Turn(USER, text)]


def _turn(message: Any) -> Turn | None:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        return None
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(part for part in parts if isinstance(part, str))
    return Turn(_ROLES[message["role"]], content) if isinstance(content, str) else None


def _stop(request: Mapping[str, Any]) -> tuple[str, ...]:
    given = request.get("stop")
    strings = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    return tuple(string for string in strings[:_MOST_STOPS] if isinstance(string, str) and string)


def _count(value: Any) -> int | None:
    whole = _whole(value)
    return whole if whole is not None and whole > 0 else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return default
    return float(value)
