"""A whole batch as a stream of lines, whatever its format."""

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from jobs.errors import BadInput
from jobs.reading.lines import split_lines
from jobs.reading.requests import LineRules, read_request, reject_or_accept
from jobs.reading.sources import STDIN, open_source
from storage.submitting import AcceptedLine, RejectedLine
from worker.settings import Input

_ID_COLUMNS = ("id", "custom_id")
_TEXT_COLUMNS = ("text", "query", "question", "prompt")
_PARQUET_ROWS = 4096

Line = AcceptedLine | RejectedLine


@contextmanager
def open_batch(path: str, form: str, rules: LineRules, limits: Input) -> Iterator[Iterator[Line]]:
    """The lines of a batch, in order. Raises BadInput for what is no batch at all, also in the middle of reading."""
    if form == "parquet":
        yield _limited(_parquet(path, rules), limits)
        return
    with open_source(path) as stream:
        lines = _csv(stream, path, rules, limits) if form == "csv" else _jsonl(stream, rules, limits)
        yield _limited(lines, limits)


def _limited(lines: Iterator[Line], limits: Input) -> Iterator[Line]:
    for count, line in enumerate(lines, 1):
        if count > limits.max_lines:
            raise BadInput(f"the batch has more than {limits.max_lines} lines; split it (setting input.max_lines)")
        yield line


def _jsonl(stream: BinaryIO, rules: LineRules, limits: Input) -> Iterator[Line]:
    for raw in split_lines(stream, limits.max_line_bytes):
        if raw.data is None:
            message = f"is longer than {limits.max_line_bytes} bytes"
            yield RejectedLine(raw.number, "line_too_long", message)
        else:
            yield read_request(raw.number, raw.data, rules)


def _csv(stream: BinaryIO, path: str, rules: LineRules, limits: Input) -> Iterator[Line]:
    csv.field_size_limit(limits.max_line_bytes)
    rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", errors="strict", newline=""), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        names = _columns(header, path)
        while True:
            number = rows.line_num + 1  # where the record begins; a quoted field may go over several lines
            row = next(rows, None)
            if row is None:
                return
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                message = f"has {len(row)} fields, the header has {len(header)}"
                yield RejectedLine(number, "invalid_csv", message)
                continue
            yield reject_or_accept(number, _row(dict(zip(header, row, strict=True)), names), rules)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is not UTF-8 near line {rows.line_num + 1}: {error.reason}") from None
    except csv.Error as error:
        raise BadInput(f"{path}: line {rows.line_num}: {error}") from None


def _parquet(path: str, rules: LineRules) -> Iterator[Line]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise BadInput("reading Parquet needs the package pyarrow; install adaptive-moe[parquet]") from None
    if path == STDIN:
        raise BadInput("Parquet cannot be read from standard input; give a file")
    try:
        file = parquet.ParquetFile(path)
        header = file.schema_arrow.names
        names = _columns(header, path)
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(header)):
            for row in batch.to_pylist():
                number += 1
                yield reject_or_accept(number, _row(row, names), rules)
    except (ArrowException, OSError) as error:
        raise BadInput(f"{path}: is not a Parquet file that can be read: {error}") from None


def _columns(header: list[str], path: str) -> tuple[str, str]:
    """The names of the id column and of the text column."""
    found = []
    for what, names in (("id", _ID_COLUMNS), ("text", _TEXT_COLUMNS)):
        name = next((name for name in names if name in header), None)
        if name is None:
            wanted, given = " or ".join(names), ", ".join(header)
            raise BadInput(f"{path}: has no {what} column; name one of its columns {wanted} (it has: {given})")
        found.append(name)
    return found[0], found[1]


def _row(row: Mapping[str, Any], names: tuple[str, str]) -> dict[str, Any]:
    """A table's row in the short form. Numbers serve as ids here: a table's column has one type anyway."""
    id_column, text_column = names
    given = row[id_column]
    extra = {key: value for key, value in row.items() if key not in (*names, "model") and value not in (None, "")}
    short = {"id": str(given) if isinstance(given, int) else given, "text": row[text_column]}
    if row.get("model"):
        short["model"] = row["model"]
    return short | ({"metadata": _plain(extra)} if extra else {})


def _plain(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str | int | float | bool | list | dict) else str(value)
        for key, value in extra.items()
    }
