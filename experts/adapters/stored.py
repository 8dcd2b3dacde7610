"""Checked examples as they are kept: one JSON object a line."""

from collections.abc import Iterable

import orjson

from experts.adapters.data import Example
from experts.errors import CannotTrain
from experts.language.prompting import Turn


def to_line(example: Example) -> bytes:
    """The example as a line, with its end."""
    turns = [{"role": turn.role, "content": turn.content} for turn in example.prompt]
    return orjson.dumps({"prompt": turns, "answer": example.answer, "line": example.line}) + b"\n"


def from_lines(lines: Iterable[bytes]) -> list[Example]:
    """The examples of ``to_line``. Raises CannotTrain naming the line that is none."""
    return [_example(number, line) for number, line in enumerate(lines, 1)]


def _example(number: int, line: bytes) -> Example:
    try:
        row = orjson.loads(line)
        turns = tuple(Turn(turn["role"], turn["content"]) for turn in row["prompt"])
        answer, place = row["answer"], row["line"]
    except (ValueError, LookupError, TypeError) as error:
        raise CannotTrain(f"line {number} of the stored examples is no example: {error}") from None
    texts = [answer, *(text for turn in turns for text in (turn.role, turn.content))]
    if not turns or not isinstance(place, int) or not all(isinstance(text, str) for text in texts):
        raise CannotTrain(f"line {number} of the stored examples is no example: a value has the wrong type")
    return Example(turns, answer, place)
