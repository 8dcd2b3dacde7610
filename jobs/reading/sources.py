"""Where a batch comes from: a file, a pipe, standard input; plain or gzip. Read as a stream of bytes."""

import gzip
import io
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from jobs.errors import BadInput

STDIN = "-"
_GZIP = b"\x1f\x8b"
_OTHER_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_BOM = b"\xef\xbb\xbf"


@contextmanager
def open_source(path: str) -> Iterator[BinaryIO]:
    """The bytes of the input, unpacked, without a byte-order mark. Raises BadInput, also in the middle of reading."""
    with _raw(path) as raw:
        try:
            yield _text(_unpacked(raw, path), path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise BadInput(f"{path}: the gzip data is damaged or cut off ({error})") from None
        except (IsADirectoryError, UnicodeError) as error:
            raise BadInput(f"{path}: {error}") from None


@contextmanager
def _raw(path: str) -> Iterator[io.BufferedReader]:
    if path == STDIN:
        if sys.stdin is None or sys.stdin.closed:
            raise BadInput("standard input is closed; give a file, or pipe the lines in")
        yield cast(io.BufferedReader, sys.stdin.buffer)
        return
    try:
        kind = Path(path).stat().st_mode
        if stat.S_ISDIR(kind):
            raise BadInput(f"{path} is a folder; give a file of queries")
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            raise BadInput(f"{path} is a device, not a file of queries")
        file = Path(path).open("rb")  # noqa: SIM115  (closed below, where errors of the reader are not ours)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    with file:
        yield file


def _unpacked(raw: io.BufferedReader, path: str) -> "io.BufferedReader[Any]":
    if raw.peek(2)[:2] != _GZIP:
        return raw
    unpacked = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=raw, mode="rb")), 1 << 20)
    if unpacked.peek(2)[:2] == _GZIP:
        raise BadInput(f"{path} is packed twice; unpack it once")
    return unpacked


def _text(stream: "io.BufferedReader[Any]", path: str) -> BinaryIO:
    start = stream.peek(4)[:4]
    for mark, name in _OTHER_ENCODINGS:
        if start.startswith(mark):
            raise BadInput(f"{path} is {name}; batches are UTF-8 (convert it with `iconv -f {name} -t UTF-8`)")
    if start.startswith(_BOM):
        stream.read(len(_BOM))
    return stream


def format_of(path: str, given: str | None) -> str:
    """``jsonl``, ``csv`` or ``parquet``: as given, else by the name. Raises BadInput."""
    if given is not None:
        return given
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return {".csv": "csv", ".parquet": "parquet"}.get(suffixes[-1] if suffixes else "", "jsonl")
