"""Files that are written for people: a bad place is told before, and nothing half-written is left."""

import json
from pathlib import Path

import pytest

from jobs.errors import BadInput, Failed
from jobs.writing import check_place, complete_file, write_json


@pytest.mark.parametrize(
    "place", [".", "nowhere/figures.json", "x" * 300], ids=["a folder", "in no folder", "too long"]
)
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(BadInput, match=r"cannot be written; give a file in a folder that is there$"):
        check_place(tmp_path / place)


@pytest.mark.parametrize("place", ["new.json", "old.json"])
def test_a_file_may_be_new_or_replaced(tmp_path: Path, place: str) -> None:
    (tmp_path / "old.json").write_text("old")
    check_place(tmp_path / place)
    write_json(tmp_path / place, {"accuracy": 0.5})
    assert json.loads((tmp_path / place).read_text()) == {"accuracy": 0.5}


def test_a_block_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("old")

    def fill() -> None:
        with complete_file(path) as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(Failed, match=r"figures\.json could not be written: No space left on device$"):
        fill()
    assert [(left.name, left.read_text()) for left in tmp_path.iterdir()] == [("figures.json", "old")]
