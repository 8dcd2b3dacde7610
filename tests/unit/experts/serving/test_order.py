"""The order of rows: each once, few adapters at a time, lengths alike."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from experts.serving.order import arrange


def test_rows_of_one_adapter_stand_together_and_the_resident_come_first() -> None:
    [order] = arrange(["a", "b", "c", "a", "b", "c"], [9, 8, 7, 6, 5, 4], ["c"], rows=8, tokens=1000)
    assert order == [2, 5, 3, 0, 1, 4]


def test_short_rows_are_not_run_with_rows_many_times_as_long() -> None:
    found = arrange([None] * 4, [10, 900, 12, 1000], [], rows=4, tokens=1500)
    assert found == [[3, 1], [2, 0]]


def test_no_rows_have_no_order() -> None:
    assert arrange([], [], [], rows=4, tokens=100) == []


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    asked=st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(1, 3000)), max_size=200),
    tokens=st.integers(1, 5000),
)
def test_every_row_is_run_once(asked: list[tuple[str | None, int]], tokens: int) -> None:
    adapters, needs = [adapter for adapter, _ in asked], [need for _, need in asked]
    found = arrange(adapters, needs, ["b"], rows=8, tokens=tokens)
    assert sorted(place for stretch in found for place in stretch) == list(range(len(asked)))
    for stretch in found:
        order = [adapters[place] for place in stretch]
        changes = sum(one != other for one, other in pairwise(order))
        assert changes == max(len(set(order)) - 1, 0)
