"""How a report writes numbers and texts: what could not be measured is a dash, and what comes from a file is cut."""

import math
from collections.abc import Callable
from typing import Any

MISSING = "–"
_ELLIPSIS = "…"
# They join letters and emoji, and steer nothing.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def written(value: Any, form: str) -> str:
    """A number in a form such as ``.4f``."""
    found = number(value)
    return MISSING if found is None else format(found, form)


def plain(value: Any) -> str:
    """Four decimals, for measures in [0, 1] that are no shares."""
    return written(value, ".4f")


def percent(value: Any) -> str:
    """A share in [0, 1] as per cent."""
    found = number(value)
    return MISSING if found is None else f"{found:.2%}"


def points(value: Any) -> str:
    """The difference of two shares as percentage points, always with its sign."""
    found = number(value)
    return MISSING if found is None else f"{100 * found:+.2f}"


def count(value: Any) -> str:
    return written(value, ",.0f")


def brief(value: Any) -> str:
    """A number of any size, or a text, as short as it goes."""
    found = number(value)
    if found is None:
        return excerpt(value, 80)
    return f"{found:,.0f}" if found.is_integer() else f"{found:,.6g}"


def p_value(value: Any) -> str:
    found = number(value)
    return MISSING if found is None else "< 0.0001" if found < 0.0001 else f"{found:.4f}"


def interval(value: Any, show: Callable[[Any], str] = percent) -> str:
    """``[low, high]`` with both ends as ``show`` writes them."""
    low, high = bounds(value)
    return MISSING if low is None or high is None else f"[{show(low)}, {show(high)}]"


def bounds(value: Any) -> tuple[float | None, float | None]:
    """The two ends of an interval."""
    return (number(value[0]), number(value[1])) if isinstance(value, list | tuple) and len(value) == 2 else (None, None)


def clean(text: str) -> str:
    """The text in one line, without characters that a page cannot hold or that turn its writing direction."""
    return "".join(
        c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())
    )


def name(value: Any, limit: int = 60) -> str:
    """A label or a file, cut in the middle, because the beginnings of names are often alike."""
    if value is None:
        return MISSING
    text = str(value)
    if len(text) > 4 * limit:
        text = text[: 2 * limit] + _ELLIPSIS + text[-2 * limit :]
    text = clean(text)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}{_ELLIPSIS}{text[-tail:]}"


def excerpt(value: Any, limit: int = 240) -> str:
    """The beginning of a text."""
    if value is None:
        return MISSING
    text = clean(str(value)[: 4 * limit])
    return text if len(text) <= limit and len(str(value)) <= 4 * limit else text[: limit - 1].rstrip() + _ELLIPSIS
