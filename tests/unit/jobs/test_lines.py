"""Splitting streams into lines."""

import io
import tracemalloc
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import BadInput
from jobs.reading.lines import RawLine, split_lines

# What is read from the stream in one go. Only where blocks end matters here, not how the reader is built.
BLOCK = 1 << 18


class Repeated(io.RawIOBase):
    """The same piece so many times over."""

    def __init__(self, piece: bytes, times: int) -> None:
        self._piece, self._times = piece, times

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._times -= 1
        return self._piece if self._times >= 0 else b""


def split(data: bytes, max_bytes: int = 1000) -> list[tuple[int, bytes | None]]:
    return [(line.number, line.data) for line in split_lines(io.BytesIO(data), max_bytes)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", []),
        (b"\n\n\r\n \t\n", []),
        (b"a", [(1, b"a")]),
        (b"a\n", [(1, b"a")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"a\r\r\nb", [(1, b"a"), (2, b"b")]),
        (b"\n\na\n\n \nb\n\n", [(3, b"a"), (6, b"b")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        (b"\ra\n", [(1, b"\ra")]),
        (b" a \n", [(1, b" a ")]),
        (b"a\x0bb\x0cc\x1cd\x1ee\n", [(1, b"a\x0bb\x0cc\x1cd\x1ee")]),
        ("a\u2028b\u2029c\u0085d\n".encode(), [(1, "a\u2028b\u2029c\u0085d".encode())]),
        (b"\x00\n", [(1, b"\x00")]),
    ],
)
def test_only_a_newline_ends_a_line_and_blank_lines_count(data: bytes, expected: list[tuple[int, bytes]]) -> None:
    assert split(data) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r\r\n"])
def test_a_line_exactly_at_the_cap_is_whole_and_one_over_it_is_not(end: bytes) -> None:
    at, over = b"x" * 10, b"y" * 11
    assert split(b"a\n" + at + end, 10) == [(1, b"a"), (2, at)]
    assert split(b"a\n" + over + end, 10) == [(1, b"a"), (2, None)]


@pytest.mark.parametrize("length", [9, 10, 11, BLOCK, 3 * BLOCK + 5])
@pytest.mark.parametrize("before", range(-13, 3))
def test_where_a_block_ends_makes_no_difference(length: int, before: int) -> None:
    """The line and its end (``\\r\\n``) lie at every place around the end of a block."""
    first = b"f" * (2 * BLOCK + before - 1)
    line = b"x" * length
    found = split(first + b"\n" + line + b"\r\n" + b"last", 10)
    assert found == [(1, None), (2, line if length <= 10 else None), (3, b"last")]


def test_a_too_long_line_is_not_kept() -> None:
    long = Repeated(bytes(BLOCK), 200 << 2)  # 200 MiB
    tracemalloc.start()
    try:
        assert list(split_lines(cast(BinaryIO, long), 1 << 20)) == [RawLine(1, None)]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_stream_without_line_ends_is_no_file_of_lines() -> None:
    endless = Repeated(bytes(BLOCK), 1 << 40)
    with pytest.raises(BadInput, match=r"^line 1 goes on for more than 256 MiB; batches are one query per line$"):
        list(split_lines(cast(BinaryIO, endless), 1 << 20))


def test_the_complaint_names_the_line_that_does_not_end() -> None:
    class Stream(Repeated):
        def read(self, size: int = -1) -> bytes:
            first, self._first = getattr(self, "_first", b"a\n\nb\n"), b""
            return first or super().read(size)

    lines = split_lines(cast(BinaryIO, Stream(bytes(BLOCK), 1 << 40)), 100)
    assert next(lines) == RawLine(1, b"a")
    assert next(lines) == RawLine(3, b"b")
    with pytest.raises(BadInput, match=r"^line 4 goes on for more than 256 MiB"):
        next(lines)


def reference(data: bytes, max_bytes: int) -> list[tuple[int, bytes | None]]:
    found: list[tuple[int, bytes | None]] = []
    for number, part in enumerate(data.split(b"\n"), 1):
        line = part.rstrip(b"\r")
        if len(line) > max_bytes:
            found.append((number, None))
        elif line.strip(b" \t\r"):
            found.append((number, line))
    return found


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\r", b" ", b"xxxxx", b"\xff", b"\x00", b"\n\n"]), max_size=60),
    st.integers(1, 12),
)
def test_lines_are_those_of_the_whole_file_split_at_once(parts: list[bytes], max_bytes: int) -> None:
    data = b"".join(parts)
    assert split(data, max_bytes) == reference(data, max_bytes)
