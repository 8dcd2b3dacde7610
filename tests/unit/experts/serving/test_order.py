"""The order of rows: each once, few adapters at a time, lengths alike."""

from experts.serving.order import arrange


def test_rows_of_one_adapter_stand_together_and_the_resident_come_first() -> None:
    [order] = arrange(["a", "b", "c", "a", "b", "c"], [9, 8, 7, 6, 5, 4], ["c"], rows=8, tokens=1000)
    assert order == [2, 5, 3, 0, 1, 4]


def test_short_rows_are_not_run_with_rows_many_times_as_long() -> None:
    found = arrange([None] * 4, [10, 900, 12, 1000], [], rows=4, tokens=1500)
    assert found == [[3, 1], [2, 0]]


def test_no_rows_have_no_order() -> None:
    assert arrange([], [], [], rows=4, tokens=100) == []
