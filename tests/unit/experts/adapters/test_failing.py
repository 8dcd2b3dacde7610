"""Full memory and full disks are said clearly; other errors stay what they are."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from experts.adapters.failing import clearly
from experts.errors import CannotTrain, TrainingFailed


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "memory ran out"),
        (MemoryError(), "memory ran out"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "memory ran out"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of /somewhere is full"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk"),
        (RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file"), "disk"),
    ],
)
def test_what_is_full_is_named(error: Exception, said: str) -> None:
    with pytest.raises(TrainingFailed, match=said), clearly(Path("/somewhere")):
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EACCES, "no"), CannotTrain("few")])
def test_another_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, clearly(Path("/somewhere")):
        raise error

    assert raised.value is error


@pytest.mark.parametrize(
    "write", [lambda file: torch.save(torch.zeros(100_000), file), lambda file: file.write_bytes(b"0" * 100_000)]
)
def test_a_disk_that_is_really_full_is_found_in_what_is_said(write: Callable[[Path], None], tmp_path: Path) -> None:
    """The file is a link to the device that is always full, so that nothing can be put in the device's place."""
    full = tmp_path / "full"
    full.symlink_to("/dev/full")

    with pytest.raises(TrainingFailed, match="disk"), clearly(tmp_path):
        write(full)
