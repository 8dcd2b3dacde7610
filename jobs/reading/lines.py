"""Splitting a stream into lines, without ever holding more than one too-long line's beginning."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from jobs.errors import BadInput

_BLOCK = 1 << 18
# A stream that goes on for this long without a line end is no file of lines.
_ENDLESS = 1 << 28


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line without its end; ``data`` is None where it was longer than allowed."""

    number: int
    data: bytes | None


def split_lines(stream: BinaryIO, max_bytes: int) -> Iterator[RawLine]:
    """The lines that are not blank, numbered from 1 with the blank ones counted. Only ``\\n`` ends a line.

    U+2028 and its kin stay inside their line, a ``\\r`` before the end is dropped. Raises BadInput for a stream that is
    not made of lines.
    """
    number = 0
    pending = b""
    dropped = 0  # bytes of the present line that were thrown away
    while block := stream.read(_BLOCK):
        *complete, rest = block.split(b"\n")
        for part in complete:
            number += 1
            yield from _line(number, pending + part if pending else part, dropped, max_bytes)
            pending, dropped = b"", 0
        pending += rest
        if len(pending.rstrip(b"\r")) > max_bytes:
            dropped += len(pending)
            pending = b""
        if dropped > _ENDLESS:
            raise BadInput(
                f"line {number + 1} goes on for more than {_ENDLESS >> 20} MiB; batches are one query per line"
            )
    yield from _line(number + 1, pending, dropped, max_bytes)


def _line(number: int, data: bytes, dropped: int, max_bytes: int) -> Iterator[RawLine]:
    data = data.rstrip(b"\r")
    if dropped or len(data) > max_bytes:
        yield RawLine(number, None)
    elif data.strip(b" \t\r"):
        yield RawLine(number, data)
