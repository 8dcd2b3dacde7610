"""A whole batch as a stream of lines, whatever its format."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
# A quote that is never closed makes the rest of a table one cell.
_LONGEST_CELL = 1 << 26

Line = AcceptedLine | RejectedLine


@contextmanager
def open_batch(path: str, form: str, rules: LineRules, limits: Input) -> Iterator[Iterator[Line]]:
    """The lines of a batch, in order. Raises BadInput for what is no batch at all, also in the middle of reading."""
    if form == "parquet":
        yield _limited(_parquet(path, rules, limits), limits)
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
            yield _too_long(raw.number, limits)
        else:
            yield read_request(raw.number, raw.data, rules)


def _csv(stream: BinaryIO, path: str, rules: LineRules, limits: Input) -> Iterator[Line]:
    csv.field_size_limit(_LONGEST_CELL)
    decoded = io.TextIOWrapper(stream, encoding="utf-8", errors="strict", newline="")
    rows = csv.reader(decoded, strict=True)
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
            if _length(row) > limits.max_line_bytes:
                yield _too_long(number, limits)
                continue
            yield reject_or_accept(number, _row(dict(zip(header, row, strict=True)), names), rules)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is not UTF-8 near line {rows.line_num + 1}: {error.reason}") from None
    except csv.Error as error:
        raise BadInput(f"{path}: line {rows.line_num}: {error}") from None
    finally:
        with suppress(ValueError):  # the stream may be closed already, by whoever opened it
            decoded.detach()


def _too_long(number: int, limits: Input) -> RejectedLine:
    return RejectedLine(number, "line_too_long", f"is longer than {limits.max_line_bytes} bytes")


def _length(cells: Iterable[Any]) -> int:
    """Bytes of the texts among these cells."""
    return sum(len(cell.encode("utf-8", "surrogatepass")) for cell in cells if isinstance(cell, str))


def _parquet(path: str, rules: LineRules, limits: Input) -> Iterator[Line]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise BadInput("reading Parquet needs the package pyarrow; install adaptive-moe[parquet]") from None
    if path == STDIN:
        raise BadInput("Parquet cannot be read from standard input; give a file")
    number = 0
    try:
        file = parquet.ParquetFile(path)
        header = file.schema_arrow.names
        names = _columns(header, path)
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(header)):
            for row in batch.to_pylist():
                number += 1
                if _length(row.values()) > limits.max_line_bytes:
                    yield _too_long(number, limits)
                else:
                    yield reject_or_accept(number, _row(row, names), rules)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: a text near row {number + 1} is not UTF-8: {error.reason}") from None
    except (ArrowException, OSError) as error:
        raise BadInput(f"{path}: is not a Parquet file that can be read: {error}") from None


def _columns(header: list[str], path: str) -> tuple[str, str]:
    """The names of the id column and of the text column."""
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated or any("\x00" in name for name in header):
        raise BadInput(
            f"{path}: column names are used once, and hold no U+0000 (it has: {', '.join(map(repr, header))})"
        )
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
    numbered = isinstance(given, int) and not isinstance(given, bool)
    short = {"id": str(given) if numbered else given, "text": row[text_column]}
    if row.get("model"):
        short["model"] = row["model"]
    return short | ({"metadata": _plain(extra)} if extra else {})


def _plain(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str | int | float | bool | list | dict) else str(value)
        for key, value in extra.items()
    }
