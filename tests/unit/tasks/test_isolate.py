from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import StorageUnavailable
from storage.leases import LeaseLost
from tasks.isolate import Failed, NothingWorked, isolate


class Doubler:
    """Doubles numbers; a batch that holds one of ``bad`` raises. Counts what it was given."""

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        for item in items:
            if item in self.bad:
                raise ValueError(f"no {item}")
        return [2 * item for item in items]


def test_a_good_batch_is_worked_on_once() -> None:
    work = Doubler(set())
    assert isolate([1, 2, 3], work) == [2, 4, 6]
    assert work.batches == [[1, 2, 3]]


def test_nothing_is_no_work() -> None:
    work = Doubler(set())
    assert isolate([], work) == []
    assert work.batches == []


def test_a_bad_batch_is_halved_down_to_the_single_item() -> None:
    work = Doubler({5})
    assert isolate([0, 1, 2, 3, 4, 5, 6, 7], work) == [0, 2, 4, 6, 8, Failed("ValueError: no 5"), 12, 14]
    assert work.batches == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]


@given(st.lists(st.integers(0, 60), unique=True, max_size=40), st.sets(st.integers(0, 60), max_size=6))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_every_item_has_its_own_result_in_its_own_place(items: list[int], bad: set[int]) -> None:
    work = Doubler(bad)
    expected = [Failed(f"ValueError: no {item}") if item in bad else 2 * item for item in items]
    assert isolate(items, work) == expected
    guilty = len(bad & set(items))
    depth = max(len(items) - 1, 1).bit_length()
    assert len(work.batches) <= 1 + 2 * guilty * depth


@pytest.mark.parametrize("error", [LeaseLost("taken"), StorageUnavailable("away")])
def test_a_lost_lease_or_database_ends_it_all(error: Exception) -> None:
    batches = []

    def work(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        raise error

    with pytest.raises(type(error)):
        isolate([1, 2, 3, 4], work)
    assert batches == [[1, 2, 3, 4]]


def test_what_ends_the_process_is_not_held_up() -> None:
    def work(items: Sequence[int]) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        isolate([1, 2], work)


def test_too_little_memory_for_all_may_be_enough_for_half() -> None:
    def work(items: Sequence[int]) -> list[int]:
        if len(items) > 2:
            raise MemoryError
        return list(items)

    assert isolate([1, 2, 3, 4, 5], work) == [1, 2, 3, 4, 5]


def test_a_reason_is_short_however_long_the_error() -> None:
    def work(items: Sequence[int]) -> list[int]:
        raise ValueError("x" * 10_000)

    (found,) = isolate([1], work)
    assert found == Failed(("ValueError: " + "x" * 10_000)[:500])


def test_the_text_of_an_error_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    isolate([5], Doubler({5}))
    said = capsys.readouterr().out
    assert "item.failed" in said
    assert "no 5" not in said


def test_where_nothing_worked_another_worker_should_try() -> None:
    """A device that is broken fails every query; that is not the queries' fault."""

    def broken(part: Sequence[int]) -> list[int]:
        raise RuntimeError("no device")

    with pytest.raises(NothingWorked, match="all 3 items failed, the first with RuntimeError: no device"):
        isolate([1, 2, 3], broken, is_last_try=False)
    assert isolate([1, 2, 3], broken) == [Failed("RuntimeError: no device")] * 3
    assert isolate([1], broken, is_last_try=False) == [Failed("RuntimeError: no device")]
