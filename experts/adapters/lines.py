"""Lines of a file of training data, and the rows they hold as JSON or CSV. Nothing is trusted, nothing is dropped."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from experts.errors import CannotTrain

# A longer row is not read into memory. The library for CSV has a limit of half of it for a single value.
MAX_LINE_BYTES = 262_144
_BOM = b"\xef\xbb\xbf"
_TOO_LONG = f"is longer than {MAX_LINE_BYTES} bytes"

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Line:
    """One physical line without its end; ``data`` holds no more than the limit, and is then ``cut``."""

    number: int
    data: bytes
    cut: bool = False


def lines_of(source: Iterable[bytes] | Path) -> Iterator[Line]:
    """The lines of a file or of an upload, without byte-order mark and line ends. Raises CannotTrain."""
    raw = _read(source) if isinstance(source, Path) else iter(source)
    for number, data in enumerate(raw, 1):
        plain = data.removeprefix(_BOM) if number == 1 else data
        plain = plain.rstrip(b"\r\n")
        yield Line(number, plain[:MAX_LINE_BYTES], len(plain) > MAX_LINE_BYTES)


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while data := file.readline(MAX_LINE_BYTES + 3):
                yield data
                while not data.endswith(b"\n") and (data := file.readline(MAX_LINE_BYTES)):
                    pass
    except OSError as error:
        raise CannotTrain(f"{path} cannot be read: {error.strerror}") from error


def json_rows(lines: Iterable[Line]) -> Iterator[tuple[int, Row | str]]:
    """Each line's object, or why it is none."""
    for line in lines:
        if line.data.strip():
            yield line.number, _TOO_LONG if line.cut else _object(line.data)


def _object(data: bytes) -> Row | str:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return f"is not JSON: {error}"
    return found if isinstance(found, dict) else f"is not a JSON object but a {type(found).__name__}"


def csv_rows(lines: Iterable[Line]) -> Iterator[tuple[int, Row | str]]:
    """Each row under the header by its names, or why it has none; a quoted value may go over several lines."""
    # A limit of the whole process; longer lines are refused before they get here.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    used: list[Line] = []
    reader = csv.reader(_texts(lines, used), strict=True)
    header: list[str] | None = None
    while True:
        used.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield used[0].number, f"is not CSV: {error}"
            continue
        start = used[0].number
        if not any(value.strip() for value in values):
            continue
        if header is None:
            header = [name.strip().casefold() for name in values]
            if not {"question", "answer"} <= set(header):
                named = ", ".join(header)[:200]
                yield start, f"should name the columns question and answer, and names: {named}; no row below is read"
                return
        elif any(line.cut for line in used):
            yield start, _TOO_LONG
        elif len(values) != len(header):
            yield start, f"has {len(values)} values under {len(header)} columns"
        else:
            yield start, dict(zip(header, values, strict=True))


def _texts(lines: Iterable[Line], used: list[Line]) -> Iterator[str]:
    """What the reader of CSV is fed; bytes that are not UTF-8 survive it and are found in the values."""
    for line in lines:
        used.append(line)
        yield line.data.decode("utf-8", "surrogateescape") + "\n"
