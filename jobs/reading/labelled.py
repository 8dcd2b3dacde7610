"""Labelled queries: JSON Lines with a text, its label, and perhaps a split and a group."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs.errors import BadInput
from jobs.reading.sources import open_source

_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Columns:
    """Which fields hold what."""

    text: str = "text"
    label: str = "label"
    split: str | None = None
    group: str | None = None
    outside: str | None = None  # the label of queries that none of the others covers


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One line; ``label`` is None where the query lies outside every label."""

    line: int
    text: str
    label: str | None
    split: str | None
    group: str | None


def read_labelled(path: str, columns: Columns) -> list[LabelledRow]:
    """Every line of the file. Raises BadInput naming the line and the field; texts are cut to nothing, only checked."""
    rows = list(_rows(path, columns))
    if not rows:
        raise BadInput(f"{path} holds no queries")
    return rows


def _rows(path: str, columns: Columns) -> Iterator[LabelledRow]:
    with open_source(path) as stream:
        # Never more than one byte too much, so that a file without line ends does not fill the memory.
        lines = iter(lambda: stream.readline(_MAX_LINE_BYTES + 1), b"")
        for number, line in enumerate(lines, 1):
            if len(line) > _MAX_LINE_BYTES:
                raise BadInput(f"{path}, line {number}: longer than {_MAX_LINE_BYTES:,} bytes")
            if not line.strip():
                continue
            try:
                data = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadInput(f"{path}, line {number}: no JSON ({error})") from None
            if not isinstance(data, dict):
                raise BadInput(f"{path}, line {number}: must be an object, is {type(data).__name__}")
            yield _row(data, columns, f"{path}, line {number}", number)


def _row(data: dict[str, Any], columns: Columns, where: str, number: int) -> LabelledRow:
    text = _field(data, columns.text, where)
    if not text.strip():
        raise BadInput(f"{where}: {columns.text!r} is empty")
    if columns.label in data and data[columns.label] is None:
        label = None
    else:
        label = _field(data, columns.label, where)
        if not label.strip():
            raise BadInput(f"{where}: {columns.label!r} is empty; a query of no label has null, or the outside label")
    return LabelledRow(
        line=number,
        text=text,
        label=None if label == columns.outside else label,
        split=None if columns.split is None else _field(data, columns.split, where),
        group=None if columns.group is None else _writable(str(data.get(columns.group))),
    )


def _field(data: dict[str, Any], name: str, where: str) -> str:
    if name not in data:
        raise BadInput(f"{where}: there is no field {name!r}; there are: {', '.join(map(str, data)) or 'none'}")
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{where}: {name!r} must be a string, is {type(value).__name__}")
    return _writable(str(value))


def _writable(text: str) -> str:
    """Without what files and databases cannot take: lone surrogates, NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", " ")
