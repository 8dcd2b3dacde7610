"""Opening what a batch comes from."""

import gzip
import io
import os
import re
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import BadInput
from jobs.reading.sources import format_of, open_source

DATA = b'{"id":"a","text":"t"}\n'


def read(path: str) -> bytes:
    with open_source(path) as stream:
        return stream.read()


class Trickle(io.RawIOBase):
    """A pipe whose writer hands over one byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        byte = self._data.read(1)
        buffer[: len(byte)] = byte
        return len(byte)


def set_stdin(monkeypatch: pytest.MonkeyPatch, raw: io.RawIOBase | io.BytesIO) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(raw)))


@pytest.mark.parametrize(
    "data", [DATA, gzip.compress(DATA, mtime=0), b"\xef\xbb\xbf" + DATA, gzip.compress(b"\xef\xbb\xbf" + DATA, mtime=0)]
)
@pytest.mark.parametrize("name", ["b.jsonl", "b.gz", "b", "new\nline", " ", "-x", "\udcff.jsonl", "é.jsonl", "*?[a]"])
def test_a_file_is_read_unpacked_and_without_its_mark(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert read(str(tmp_path / name)) == DATA


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert read(str(tmp_path / "empty")) == b""


@pytest.mark.parametrize("data", [b"", b"\xef", b"\xef\xbb", b"\xff", b"\x1f", b"\x00"])
def test_the_beginning_of_a_mark_is_data(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "short").write_bytes(data)
    assert read(str(tmp_path / "short")) == data


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"^{re.escape(str(tmp_path))} is a folder; give a file of queries$"):
        read(str(tmp_path))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device: str) -> None:
    with pytest.raises(BadInput, match=f"^{device} is a device, not a file of queries$"):
        read(device)


def test_a_socket_is_refused(workdir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")  # the name of a socket must be short, so it is told without its folder
        with pytest.raises(BadInput, match=r"^socket is a device, not a file of queries$"):
            read("socket")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "No such file or directory"),
        ("file/below", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
        ("a\x00b", "embedded null byte"),
        ("dangling", "No such file or directory"),
    ],
)
def test_what_cannot_be_opened_is_refused_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    path = str(tmp_path / name)
    with pytest.raises(BadInput, match=rf"^{re.escape(path)}: {reason}$"):
        read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file, whatever its permissions")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(mode=0)
    with pytest.raises(BadInput, match=r"Permission denied$"):
        read(str(path))


@pytest.mark.parametrize("data", [DATA, gzip.compress(DATA, mtime=0)])
def test_a_fifo_is_read_to_its_end(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    try:
        assert read(str(path)) == DATA
    finally:
        writer.join()


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    set_stdin(monkeypatch, io.BytesIO(gzip.compress(DATA, mtime=0)))
    assert read("-") == DATA


@pytest.mark.parametrize(
    "data", [DATA, gzip.compress(DATA, mtime=0), b"\xef\xbb\xbf" + DATA], ids=["plain", "gzip", "mark"]
)
def test_how_a_pipe_hands_over_its_bytes_makes_no_difference(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    set_stdin(monkeypatch, Trickle(data))
    assert read("-") == DATA


def test_another_encoding_is_seen_however_a_pipe_hands_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    set_stdin(monkeypatch, Trickle(DATA.decode().encode("utf-16")))
    with pytest.raises(BadInput, match=r"^- is UTF-16; batches are UTF-8"):
        read("-")


def test_closed_standard_input_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    complaint = r"^standard input is closed; give a file, or pipe the lines in$"
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadInput, match=complaint):
        read("-")
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr(sys, "stdin", closed)
    with pytest.raises(BadInput, match=complaint):
        read("-")


def test_the_file_is_closed_afterwards(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(DATA)
    with open_source(str(tmp_path / "b")) as stream:
        pass
    assert stream.closed


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jsonl", "jsonl"),
        ("a.csv", "csv"),
        ("a.CSV", "csv"),
        ("a.csv.gz", "csv"),
        ("a.Csv.Gz", "csv"),
        ("a.parquet", "parquet"),
        ("a.parquet.csv", "csv"),
        ("a.csv.jsonl", "jsonl"),
        ("a.csv.txt", "jsonl"),
        ("a.json", "jsonl"),
        ("a.gz", "jsonl"),
        ("a", "jsonl"),
        ("-", "jsonl"),
        ("", "jsonl"),
        (".csv", "jsonl"),
        ("a.csv/b", "jsonl"),
    ],
)
def test_the_format_is_taken_from_the_name(path: str, expected: str) -> None:
    assert format_of(path, None) == expected


def test_a_format_that_is_said_goes_before_the_name() -> None:
    assert format_of("a.csv", "jsonl") == "jsonl"
    assert format_of("-", "csv") == "csv"
