"""Only a checkpoint that is whole, and of this very training, is gone on from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experts.adapters.checkpoints import SEAL, last_whole, seal


def checkpoint(folder: Path, step: int, *, identity: str = "this") -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir()
    (made / "weights").write_bytes(b"0123456789")
    (made / "training_args.bin").write_bytes(b"a pickle")
    seal(made, identity=identity, seconds=float(step))
    return made


def cut_short(folder: Path) -> None:
    (folder / "weights").write_bytes(b"01234")


def unsealed(folder: Path) -> None:
    (folder / SEAL).unlink()


def half_sealed(folder: Path) -> None:
    (folder / SEAL).write_text((folder / SEAL).read_text()[:20])


def with_another_file(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"a pickle")


def without_a_file(folder: Path) -> None:
    (folder / "weights").unlink()


def test_the_last_whole_checkpoint_is_by_step_and_not_by_name(tmp_path: Path) -> None:
    for step in (9, 10):
        checkpoint(tmp_path, step)

    found = last_whole(tmp_path, "this")

    assert found is not None
    assert (found.step, found.seconds) == (10, 10.0)


@pytest.mark.parametrize("harm", [cut_short, unsealed, half_sealed, with_another_file, without_a_file])
def test_a_checkpoint_that_is_not_whole_is_passed_over_and_removed(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    checkpoint(tmp_path, 1)
    harmed = checkpoint(tmp_path, 2)
    harm(harmed)

    found = last_whole(tmp_path, "this")

    assert found is not None
    assert found.step == 1
    assert not harmed.exists()


def test_a_checkpoint_of_another_training_does_not_count(tmp_path: Path) -> None:
    checkpoint(tmp_path, 1, identity="another")

    assert last_whole(tmp_path, "this") is None


def test_no_pickled_settings_are_kept(tmp_path: Path) -> None:
    assert not (checkpoint(tmp_path, 1) / "training_args.bin").exists()
