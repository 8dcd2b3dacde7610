from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.cycle import InteractiveFirst
from worker.names import interactive, is_interactive

QUEUES = ["expert.a", "expert.b", "expert.c", "control"]
ALL = [interactive(queue) for queue in QUEUES] + QUEUES
WAITING = st.dictionaries(st.sampled_from(ALL), st.integers(1, 12), min_size=1)


def work_off(waiting: Mapping[str, int], order: list[str]) -> list[str]:
    """The queue of every message in the order in which a worker takes them.

    As kombu does it: BRPOP takes from the first queue of the cycle that holds anything, then the cycle hears which.
    """
    left = dict(waiting)
    cycle = InteractiveFirst()  # type: ignore[no-untyped-call]
    cycle.update(order)  # type: ignore[no-untyped-call]
    taken = []
    while any(left.values()):
        queue = next(queue for queue in cycle.consume(len(order)) if left.get(queue))
        left[queue] -= 1
        cycle.rotate(queue)  # type: ignore[no-untyped-call]
        taken.append(queue)
    return taken


@given(WAITING, st.permutations(ALL))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_every_message_is_taken_and_interactive_ones_before_all_others(
    waiting: dict[str, int], order: list[str]
) -> None:
    taken = work_off(waiting, order)
    assert {queue: taken.count(queue) for queue in waiting} == waiting
    kinds = [is_interactive(queue) for queue in taken]
    assert kinds == sorted(kinds, reverse=True)


@given(WAITING, st.permutations(ALL))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_no_queue_waits_longer_than_one_turn_of_its_kind(waiting: dict[str, int], order: list[str]) -> None:
    """Between two messages of a queue that holds more, no other queue of its kind is served twice."""
    taken = work_off(waiting, order)
    for kind in (True, False):
        turns = [queue for queue in taken if is_interactive(queue) is kind]
        for queue in set(turns):
            places = [at for at, taken_from in enumerate(turns) if taken_from == queue]
            for before, after in zip([-1, *places], places, strict=False):
                between = turns[before + 1 : after]
                assert len(set(between)) == len(between)


def test_batches_take_turns_while_a_question_goes_first() -> None:
    waiting = {"expert.a": 3, "expert.b": 2, "expert.c.interactive": 1}
    order = ["expert.a", "expert.b", "expert.c", "expert.c.interactive"]
    assert work_off(waiting, order) == [
        "expert.c.interactive",
        "expert.a",
        "expert.b",
        "expert.a",
        "expert.b",
        "expert.a",
    ]


def test_only_as_many_queues_are_looked_at_as_were_asked_for() -> None:
    cycle = InteractiveFirst()  # type: ignore[no-untyped-call]
    cycle.update(["expert.a", "expert.b", "expert.b.interactive"])  # type: ignore[no-untyped-call]
    assert cycle.consume(2) == ["expert.a", "expert.b"]
    assert cycle.consume(3) == ["expert.b.interactive", "expert.a", "expert.b"]


def test_a_queue_that_was_dropped_meanwhile_changes_nothing() -> None:
    cycle = InteractiveFirst()  # type: ignore[no-untyped-call]
    cycle.update(["expert.a", "expert.b"])  # type: ignore[no-untyped-call]
    assert cycle.rotate("expert.gone") == "expert.gone"  # type: ignore[no-untyped-call]
    assert cycle.consume(2) == ["expert.a", "expert.b"]
