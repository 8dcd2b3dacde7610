"""Orders of batches: fewer swaps, and nobody waits for ever."""

from hypothesis import given, settings
from hypothesis import strategies as st

from experts.serving.plan import count_swaps, plan_batches

ADAPTERS = st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=30)


def test_batches_of_one_adapter_are_answered_together() -> None:
    plan = plan_batches(["a", "b", "a", "b", "a", "b"], [], capacity=1, patience=10)
    assert plan.order == [0, 2, 4, 1, 3, 5]
    assert (plan.swaps, plan.swaps_avoided) == (2, 4)


def test_the_adapter_in_memory_is_used_first() -> None:
    plan = plan_batches(["a", "b", "a", "b"], ["b"], capacity=1, patience=10)
    assert plan.order == [1, 3, 0, 2]
    assert (plan.swaps, plan.swaps_avoided) == (1, 3)


def test_impatience_is_the_order_of_arrival() -> None:
    plan = plan_batches(["a", "b", "a", "b"], [], capacity=1, patience=0)
    assert plan.order == [0, 1, 2, 3]
    assert (plan.swaps, plan.swaps_avoided) == (4, 0)


def test_the_base_swaps_nothing() -> None:
    assert count_swaps([None, "a", None, "a"], [], 1) == 1


@settings(deadline=None, max_examples=100, derandomize=True)
@given(adapters=ADAPTERS, capacity=st.integers(1, 4), patience=st.integers(0, 8))
def test_every_batch_is_answered_once_and_overtaken_no_more_than_allowed(
    adapters: list[str | None], capacity: int, patience: int
) -> None:
    plan = plan_batches(adapters, ["a", "b"], capacity, patience)
    assert sorted(plan.order) == list(range(len(adapters)))
    overtaken = [sum(later > place for later in plan.order[:at]) for at, place in enumerate(plan.order)]
    assert max(overtaken, default=0) <= patience
    arrived = count_swaps(adapters, ["a", "b"], capacity)
    assert plan.swaps == count_swaps([adapters[place] for place in plan.order], ["a", "b"], capacity)
    assert plan.swaps + plan.swaps_avoided == arrived
    assert plan.swaps_avoided >= 0
