"""What ends a training from outside, said clearly: full memory, a full disk."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from experts.errors import TrainingFailed

# What the libraries say when they find no memory; only CUDA has an exception of its own for it.
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc")
# What they say when a file cannot be written to its end: safetensors, and torch's writer.
_DISK = ("no space left", "disk quota", "file write failed", "pytorchstreamwriter failed")


@contextmanager
def clearly(folder: Path) -> Iterator[None]:
    """Inside, full memory and full disks are raised as TrainingFailed; everything else as it is."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _memory() from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk(folder) from error
        raise
    except Exception as error:  # the libraries raise RuntimeError and their own kinds for both
        said = str(error).lower()
        if any(text in said for text in _MEMORY):
            raise _memory() from error
        if any(text in said for text in _DISK):
            raise _disk(folder) from error
        raise


def _memory() -> TrainingFailed:
    return TrainingFailed(
        "memory ran out while training; a smaller batch_size or max_length needs less, and so does a base in 8 bit"
    )


def _disk(folder: Path) -> TrainingFailed:
    return TrainingFailed(
        f"the disk of {folder} is full; the checkpoints before are whole, and training can go on there"
    )
