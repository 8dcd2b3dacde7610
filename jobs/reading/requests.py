"""One input line: an OpenAI batch request, or the short form ``{"id", "text"}``. Checked before anything is stored."""

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.submitting import AcceptedLine, RejectedLine

URLS = ("/v1/chat/completions",)
MAX_DEPTH = 128  # levels of arrays and objects
_SHOWN = 60  # characters of a name of the sender's that an error repeats
AUTO = "moe/auto"
_PREFIX = "moe/"

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[_Part], Field(min_length=1)] | None = None


class _Body(BaseModel):
    """A chat completion request; what it does not list is kept and handed to the engine."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: str = AUTO
    messages: Annotated[list[_Message], Field(min_length=1, max_length=1000)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Literal[1] | None = None
    stream: Literal[False] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    metadata: dict[str, Any] | None = None


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    custom_id: str
    method: Literal["POST"]
    url: str
    body: _Body


class _Short(BaseModel):
    """The short form; further keys are kept beside the query."""

    model_config = ConfigDict(extra="allow", strict=True)
    id: str
    text: str
    model: str = AUTO


@dataclass(frozen=True, slots=True)
class LineRules:
    """What a line may ask for."""

    experts: Container[str]
    expert_names: str
    max_custom_id_chars: int = 512


class _Refused(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


def read_request(number: int, data: bytes, rules: LineRules) -> AcceptedLine | RejectedLine:
    """The line as a query, or why it is none. Never raises for what a line holds."""
    custom_id: str | None = None
    try:
        value = _parse(data)
        custom_id = _readable_id(value, rules)
        return accept(number, value, rules)
    except _Refused as refused:
        return RejectedLine(number, refused.code, str(refused), custom_id, refused.param)


def accept(number: int, value: Mapping[str, Any], rules: LineRules) -> AcceptedLine:
    """A parsed line as a query; raises _Refused."""
    try:
        if "custom_id" in value or "body" in value or "method" in value:
            return _from_request(number, _Request.model_validate(value), rules)
        return _from_short(number, _Short.model_validate(value), rules)
    except ValidationError as error:
        first = error.errors()[0]
        param = _shortened(".".join(map(str, first["loc"])))
        raise _Refused("invalid_request", f"{param}: {first['msg']}", param) from None


def reject_or_accept(number: int, value: Mapping[str, Any], rules: LineRules) -> AcceptedLine | RejectedLine:
    """The same for a row that was never JSON (CSV, Parquet)."""
    try:
        _check_contents(value)
        return accept(number, value, rules)
    except _Refused as refused:
        return RejectedLine(number, refused.code, str(refused), _readable_id(value, rules), refused.param)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as wrong:
            raise _Refused("invalid_encoding", f"is not UTF-8: byte {wrong.start + 1}: {wrong.reason}") from None
        raise _Refused("invalid_json", f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    if not isinstance(value, dict):
        raise _Refused("invalid_json", f"is a JSON {_json_kind(value)}, not an object")
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH or b"\\u" in data:
        _check_contents(value)
    if b"\\u" in data or any(data.count(key) > 1 for key in (b'"custom_id"', b'"id"', b'"text"')):
        _refuse_repeated_keys(data)
    return value


def _json_kind(value: object) -> str:
    kinds = ((bool, "boolean"), (list, "array"), (str, "string"), (int | float, "number"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def _refuse_repeated_keys(data: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        repeated = next((key for key in ("custom_id", "id", "text", "body") if keys.count(key) > 1), None)
        if repeated is not None:
            raise _Refused("invalid_json", f"says {repeated!r} twice", repeated)

    try:
        json.loads(data, object_pairs_hook=check)
    except (RecursionError, ValueError):  # too deep or odd for this reader; what orjson read is used
        return


def _check_contents(value: object) -> None:
    """Raise _Refused for what parses and cannot be stored: U+0000 anywhere, nesting beyond measure."""
    pending: list[tuple[object, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise _Refused("invalid_character", "holds the character U+0000, which cannot be stored")
        elif isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                raise _Refused("invalid_json", f"is nested deeper than {MAX_DEPTH} levels")
            inside = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            pending += [(part, depth + 1) for part in inside]


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _readable_id(value: Mapping[str, Any], rules: LineRules) -> str | None:
    """The line's id for its error line, where it has one that can be shown."""
    given = value.get("custom_id", value.get("id"))
    return given if isinstance(given, str) and _id_fits(given, rules) else None


def _id_fits(custom_id: str, rules: LineRules) -> bool:
    return bool(custom_id.strip()) and len(custom_id) <= rules.max_custom_id_chars and "\x00" not in custom_id


def _checked_id(custom_id: str, param: str, rules: LineRules) -> str:
    if not custom_id.strip():
        raise _Refused("invalid_request", f"{param}: is empty", param)
    if len(custom_id) > rules.max_custom_id_chars:
        raise _Refused(
            "invalid_request",
            f"{param}: has {len(custom_id)} characters; {rules.max_custom_id_chars} are allowed",
            param,
        )
    return custom_id


def _pinned(model: str, param: str, rules: LineRules) -> str | None:
    if model == AUTO:
        return None
    expert = model.removeprefix(_PREFIX)
    if not model.startswith(_PREFIX) or expert not in rules.experts:
        raise _Refused(
            "unknown_model",
            f"{param}: {_shortened(model)!r} is neither {AUTO} nor moe/ with one of {rules.expert_names}",
            param,
        )
    return expert


def _from_short(number: int, line: _Short, rules: LineRules) -> AcceptedLine:
    custom_id = _checked_id(line.id, "id", rules)
    if not line.text.strip():
        raise _Refused("invalid_request", "text: is empty", "text")
    return AcceptedLine(number, custom_id, line.text, line.model_extra or None, _pinned(line.model, "model", rules))


def _from_request(number: int, line: _Request, rules: LineRules) -> AcceptedLine:
    custom_id = _checked_id(line.custom_id, "custom_id", rules)
    if line.url not in URLS:
        raise _Refused("invalid_request", f"url: is {_shortened(line.url)!r}; supported is {', '.join(URLS)}", "url")
    body = line.body
    for name in ("temperature", "top_p"):
        number_given = getattr(body, name)
        if number_given is not None and not math.isfinite(number_given):
            raise _Refused("invalid_request", f"body.{name}: is not a number", f"body.{name}")
    text = _last_user_text(body)
    request = body.model_dump(mode="json", exclude_none=True, exclude={"model"})
    if len(body.messages) == 1:
        del request["messages"]  # the query's own text says it all
    return AcceptedLine(number, custom_id, text, request or None, _pinned(body.model, "body.model", rules))


def _last_user_text(body: _Body) -> str:
    for message in reversed(body.messages):
        if message.role == "user":
            content = message.content
            text = content if isinstance(content, str) else "\n".join(part.text for part in content or [])
            if not text.strip():
                raise _Refused("invalid_request", "body.messages: the last user message is empty", "body.messages")
            return text
    raise _Refused("invalid_request", "body.messages: holds no user message", "body.messages")
