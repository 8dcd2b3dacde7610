"""One row of training data: which format it is in, and the prompt and answer it holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from experts.language.prompting import ASSISTANT, ROLES, SYSTEM, USER, Turn

Parts = tuple[tuple[Turn, ...], str]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no example; ``reason`` continues the sentence that begins with "the row"."""

    line: int
    reason: str


class _Bad(Exception):
    """Why a row is no example."""


def example_parts(row: Mapping[str, object], format: str) -> Parts | str:
    """Prompt and answer of a row, or why it has none. The texts are stripped and their lines end with LF."""
    try:
        name = format if format in _READERS else _format_of(row)
        return _READERS[name](row)
    except _Bad as why:
        return str(why)


def _format_of(row: Mapping[str, object]) -> str:
    for name, keys in _KEYS.items():
        if set(keys) <= set(row):
            return name
    wanted = "; ".join(", ".join(keys) for keys in _KEYS.values())
    raise _Bad(f"has none of the sets of keys a row may have ({wanted})")


def _chat(row: Mapping[str, object]) -> Parts:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _Bad("messages: is not a list of messages")
    turns = [_turn(message, place) for place, message in enumerate(messages, 1)]
    *prompt, answer = turns
    if answer.role != ASSISTANT:
        raise _Bad(f"messages: the last one is the {answer.role}'s, so there is no answer to learn")
    if not prompt or prompt[-1].role != USER:
        raise _Bad("messages: no user's message stands before the answer")
    return tuple(prompt), answer.content


def _turn(message: object, place: int) -> Turn:
    where = f"messages, number {place}"
    if not isinstance(message, dict):
        raise _Bad(f"{where}: is not an object with role and content")
    role = SYSTEM if message.get("role") == "developer" else message.get("role")
    if role not in ROLES:
        raise _Bad(f"{where}: role {str(role)[:40]!r} is not one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    return Turn(str(role), _plain(content, where))


def _part(part: object, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise _Bad(f"{where}: has a part that is not text")


def _alpaca(row: Mapping[str, object]) -> Parts:
    asked = _text(row, "instruction")
    given = row.get("input")
    if given not in (None, ""):
        asked = f"{asked}\n\n{_text(row, 'input')}"
    return (Turn(USER, asked),), _text(row, "output")


def _pair(question: str, answer: str) -> Callable[[Mapping[str, object]], Parts]:
    return lambda row: ((Turn(USER, _text(row, question)),), _text(row, answer))


def _text(row: Mapping[str, object], key: str) -> str:
    if key not in row:
        raise _Bad(f"{key}: is missing")
    return _plain(row[key], key)


def _plain(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _Bad(f"{where}: is not a text")
    if "\0" in value:
        raise _Bad(f"{where}: holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Bad(f"{where}: is not UTF-8") from None
    plain = value.replace("\r\n", "\n").strip()
    if not plain:
        raise _Bad(f"{where}: is empty")
    return plain


_KEYS = {
    "chat": ("messages",),
    "alpaca": ("instruction", "output"),
    "completion": ("prompt", "completion"),
    "qa": ("question", "answer"),
}
_READERS: dict[str, Callable[[Mapping[str, object]], Parts]] = {
    "chat": _chat,
    "alpaca": _alpaca,
    "completion": _pair("prompt", "completion"),
    "qa": _pair("question", "answer"),
    "csv": _pair("question", "answer"),
}
