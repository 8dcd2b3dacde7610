"""Checkpoints that are whole or do not count: each is sealed last, with the hash of every file in it."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

# Written after all others; a checkpoint without it was cut short.
SEAL = "whole.json"
# The library writes these beside a checkpoint. The first is a pickle of its settings; nobody needs either again.
_NEEDLESS = ("training_args.bin", "README.md")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint: where it is, its step, and how long training had taken up to it."""

    folder: Path
    step: int
    seconds: float


def seal(folder: Path, *, identity: str, seconds: float) -> None:
    """Declare the checkpoint in ``folder`` whole; ``identity`` says what is being trained on what."""
    for name in _NEEDLESS:
        (folder / name).unlink(missing_ok=True)
    hashes = {file.name: _sha256(file) for file in sorted(folder.iterdir()) if file.name != SEAL}
    for name in hashes:
        _to_disk(folder / name)
    text = json.dumps({"identity": identity, "seconds": seconds, "files": hashes})
    unfinished = folder / f"{SEAL}.part"
    unfinished.write_text(text)
    _to_disk(unfinished)
    unfinished.rename(folder / SEAL)
    _to_disk(folder)


def last_whole(folder: Path, identity: str) -> Checkpoint | None:
    """The latest whole checkpoint of this very training, if any; those not whole, or of another, are removed."""
    found = None
    for one in sorted(folder.glob("checkpoint-*"), key=lambda path: -_step(path)):
        seconds = _seconds(one, identity)
        if seconds is None:
            shutil.rmtree(one, ignore_errors=True)
        elif found is None:
            found = Checkpoint(one, _step(one), seconds)
    return found


def newest_step(folder: Path) -> int:
    """The step of the latest sealed checkpoint, without a look into it; 0 where there is none."""
    return max((_step(sealed.parent) for sealed in folder.glob(f"checkpoint-*/{SEAL}")), default=0)


def checkpoint_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"checkpoint-{step}"


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _seconds(folder: Path, identity: str) -> float | None:
    """The seconds noted in a whole checkpoint of this training; None for any other."""
    try:
        found = json.loads((folder / SEAL).read_bytes())
        there = {file.name for file in folder.iterdir()} - {SEAL}
        whole = (
            found["identity"] == identity
            and there == set(found["files"])
            and all(_sha256(folder / name) == expected for name, expected in found["files"].items())
        )
        return float(found["seconds"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
