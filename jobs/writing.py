"""Files that are written for people: each appears when it is complete."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from jobs.errors import BadInput, Failed


@contextmanager
def complete_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, that takes its place when the block ends well and is gone otherwise.

    A pipe or a device is written to as it is. Raises Failed where that cannot be done.
    """
    try:
        special = path.exists() and not path.is_file()
        part = path if special else path.with_name(f".moe-{os.getpid()}.part")
        try:
            with part.open("wb") as sink:
                yield sink
            if not special:  # a pipe or a device is written to, never replaced
                part.replace(path)
        finally:
            if not special:
                with suppress(OSError):
                    part.unlink()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise Failed(f"{path} could not be written: {getattr(error, 'strerror', None) or error}") from None


def check_place(path: Path) -> None:
    """Raise BadInput where a file at ``path`` could not be written, before hours are spent on what it would hold."""
    try:
        fits = path.parent.is_dir() and not path.is_dir()
    except OSError:  # a name longer than names may be
        fits = False
    if not fits:
        raise BadInput(f"{path}: cannot be written; give a file in a folder that is there")


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    """Write one JSON document that people can read. Raises Failed."""
    document = orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n"
    with complete_file(path) as file:
        file.write(document)
