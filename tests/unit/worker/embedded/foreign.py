"""Processes that are not the stack's, whatever they are called."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def sleeping(folder: Path, name: str = "sleep") -> Iterator[subprocess.Popen[bytes]]:
    """A process of this name that does nothing."""
    program = folder / name
    shutil.copy(str(shutil.which("sleep")), program)
    process = subprocess.Popen([str(program), "600"], cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def dead_pid() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert not psutil.pid_exists(process.pid)
    return process.pid
