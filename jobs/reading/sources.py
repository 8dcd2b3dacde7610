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


@contextmanager
def _raw(path: str) -> Iterator[io.BufferedReader]:
    if path == STDIN:
        if sys.stdin is None or sys.stdin.closed:
            raise BadInput("standard input is closed; give a file, or pipe the lines in")
        yield cast(io.BufferedReader, sys.stdin.buffer)
        return
    file = open_file(path)
    with file:
        yield file


def open_file(path: str, *, again: bool = False) -> io.BufferedReader:
    """A file or a pipe, ``again`` only what can be read a second time. Raises BadInput."""
    try:
        kind = Path(path).stat().st_mode
        if stat.S_ISDIR(kind):
            raise BadInput(f"{path} is a folder; give a file of queries")
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            raise BadInput(f"{path} is a device, not a file of queries")
        if again and not stat.S_ISREG(kind):
            raise BadInput(f"{path} is a pipe and can be read only once; give a file")
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _unpacked(raw: io.BufferedReader, path: str) -> io.BufferedReader:
    plain, start = _beginning(raw, len(_GZIP))
    if start != _GZIP:
        return plain
    unpacked, start = _beginning(io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=plain, mode="rb")), 1 << 20), 2)
    if start == _GZIP:
        raise BadInput(f"{path} is packed twice; unpack it once")
    return unpacked


def _text(stream: io.BufferedReader, path: str) -> BinaryIO:
    whole, start = _beginning(stream, 4)
    for mark, name in _OTHER_ENCODINGS:
        if start.startswith(mark):
            raise BadInput(f"{path} is {name}; batches are UTF-8 (convert it with `iconv -f {name} -t UTF-8`)")
    if start.startswith(_BOM):
        whole.read(len(_BOM))
    return whole


class _Rejoined(io.RawIOBase):
    """A stream of which the beginning was read already."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start, self._rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._start or self._rest.read(len(buffer))
        taken, self._start = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def _beginning(stream: io.BufferedReader, n: int) -> tuple[io.BufferedReader, bytes]:
    """The stream with its first ``n`` bytes still to come, and those bytes; a pipe may deliver them one by one."""
    start = stream.peek(n)[:n]
    if len(start) == n:
        return stream, start
    start = stream.read(n)
    return io.BufferedReader(_Rejoined(start, stream)), start


def as_text(path: str) -> str:
    """A path as it can be stored and shown: names of files may hold bytes that are no text."""
    return path.encode("utf-8", "backslashreplace").decode()


def format_of(path: str, given: str | None) -> str:
    """``jsonl``, ``csv`` or ``parquet``: as given, else by the name. Raises BadInput."""
    if given is not None:
        return given
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return {".csv": "csv", ".parquet": "parquet"}.get(suffixes[-1] if suffixes else "", "jsonl")
