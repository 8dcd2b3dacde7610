"""Measuring retrieval on a test collection: reading and checking its file, then embedding and searching."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from experts.evaluation.collection import Collection, Passage, Question
from jobs.errors import BadInput
from jobs.reading.lines import split_lines
from jobs.reading.sources import open_source
from worker.settings import Encoder

_MAX_LINE_BYTES = 16 << 20
_SHOWN = 60


class _Row(BaseModel):
    """What it does not list, such as source and licence, is not looked at."""

    model_config = ConfigDict(strict=True)


class _Passage(_Row):
    type: Literal["passage"]
    id: str
    domain: str
    title: str | None = None
    text: str


class _Question(_Row):
    type: Literal["question"]
    id: str
    domain: str
    text: str
    gold: list[str] = []
    answerable: bool
    gap: str | None = None
    split: Literal["dev", "test"]


_KINDS: Mapping[str, type[_Passage] | type[_Question]] = {"passage": _Passage, "question": _Question}


class _Wrong(Exception):
    """What is wrong with a line: its field, and what of it."""


def bench(path: str, encoder: Encoder, *, top: int) -> dict[str, Any]:
    """Every figure of ``experts.evaluation.retrieval.measure`` on the file. Raises BadInput and ModelUnusable."""
    collection = read(path)
    from experts.evaluation import encoding, retrieval

    passages, questions = retrieval.embed(collection, encoding.encoder(encoder.model_dump()))
    found = retrieval.measure(collection, passages, questions, top=top)
    return {"file": path, "encoder": encoder.name, **found}


def read(path: str) -> Collection:
    """The test collection of a file of JSON lines, ``-`` for standard input. Raises BadInput, naming line and field."""
    passages: dict[str, tuple[int, _Passage]] = {}
    questions: dict[str, tuple[int, _Question]] = {}
    with open_source(path) as stream:
        for line in split_lines(stream, _MAX_LINE_BYTES):
            with _naming(path, line.number):
                row = _row(line.data)
                seen = passages if isinstance(row, _Passage) else questions
                if row.id in seen:
                    raise _Wrong(f"id: {_shortened(row.id)} was used in line {seen[row.id][0]}")
            if isinstance(row, _Passage):
                passages[row.id] = line.number, row
            else:
                questions[row.id] = line.number, row
    _check_whole(path, passages, questions)
    places = {name: place for place, name in enumerate(passages)}
    domains = {row.domain for _, row in passages.values()}
    asked = []
    for number, question in questions.values():
        with _naming(path, number):
            asked.append(_question(question, places, domains))
    return Collection(
        tuple(Passage(row.domain, (row.title or "").strip(), row.text) for _, row in passages.values()), tuple(asked)
    )


@contextmanager
def _naming(path: str, line: int) -> Iterator[None]:
    try:
        yield
    except _Wrong as wrong:
        raise BadInput(f"{path}, line {line}: {wrong}") from None


def _row(data: bytes | None) -> _Passage | _Question:
    if data is None:
        raise _Wrong(f"is longer than {_MAX_LINE_BYTES >> 20} MiB")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _Wrong(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    if not isinstance(value, dict):
        raise _Wrong("is not a JSON object")
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _Wrong("type: must be 'passage' or 'question'")
    try:
        row = _KINDS[kind].model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise _Wrong(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    empty = next((name for name in ("id", "domain", "text") if not getattr(row, name).strip()), None)
    if empty is not None:
        raise _Wrong(f"{empty}: is empty")
    return row


def _question(row: _Question, places: Mapping[str, int], domains: set[str]) -> Question:
    unknown = next((name for name in row.gold if name not in places), None)
    if unknown is not None:
        raise _Wrong(f"gold: {_shortened(unknown)} is no passage of this file")
    if row.answerable and not row.gold:
        raise _Wrong("gold: is empty, though the question is answerable")
    if row.gold and not row.answerable:
        raise _Wrong("gold: names passages, though the question is not answerable")
    if row.answerable and row.domain not in domains:
        raise _Wrong(f"domain: {_shortened(row.domain)} has no passages; there are {', '.join(sorted(domains))}")
    return Question(row.domain, row.text, frozenset(places[name] for name in row.gold), row.gap or None, row.split)


def _check_whole(
    path: str, passages: Mapping[str, tuple[int, _Passage]], questions: Mapping[str, tuple[int, _Question]]
) -> None:
    if not passages:
        raise BadInput(f"{path} holds no passage (lines of type 'passage')")
    if not any(row.answerable for _, row in questions.values()):
        raise BadInput(f"{path} holds no answerable question (lines of type 'question' with answerable true)")
    first, domain = next((number, row.domain) for number, row in passages.values())
    if all(row.domain == domain for _, row in passages.values()):
        raise BadInput(
            f"{path}, line {first}: domain: all passages are of {_shortened(domain)}; there is nothing to route "
            "between, give passages of two domains or more"
        )


def _shortened(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
