"""In which order batches are answered so that adapters are swapped least, and how many swaps an order costs."""

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResidencyPlan:
    """``order`` are the batches' places in arrival order; ``swaps_avoided`` is against answering them as they came."""

    order: list[int]
    swaps: int
    swaps_avoided: int


class _Memory:
    """Adapters in memory, as they come and go: at most ``capacity``, the one unused for longest goes first."""

    def __init__(self, resident: Sequence[Hashable], capacity: int) -> None:
        self.held: OrderedDict[Hashable, None] = OrderedDict((a, None) for a in reversed(resident[:capacity]))
        self._capacity = capacity
        self.loads = 0

    def touch(self, adapter: Hashable | None) -> None:
        if adapter is None:
            return
        if adapter not in self.held:
            self.loads += 1
            if len(self.held) >= self._capacity:
                self.held.popitem(last=False)
        self.held[adapter] = None
        self.held.move_to_end(adapter)


def count_swaps(adapters: Sequence[Hashable | None], resident: Sequence[Hashable], capacity: int) -> int:
    """How many adapters are loaded when batches of these adapters are answered in this order.

    ``resident`` are in memory at first, the one used last first; None is a batch for the base alone.
    """
    memory = _Memory(resident, capacity)
    for adapter in adapters:
        memory.touch(adapter)
    return memory.loads


def plan_batches(
    adapters: Sequence[Hashable | None], resident: Sequence[Hashable], capacity: int, patience: int
) -> ResidencyPlan:
    """An order in which no batch is overtaken by more than ``patience`` others that came after it.

    Whose adapter is in memory goes first, the one used last before others; then the adapter that most batches wait for.
    The plan is never worse than the order of arrival, which it falls back to.
    """
    order = _by_memory(adapters, resident, capacity, patience)
    as_they_came = count_swaps(adapters, resident, capacity)
    planned = count_swaps([adapters[place] for place in order], resident, capacity)
    if planned >= as_they_came:
        return ResidencyPlan(list(range(len(adapters))), as_they_came, 0)
    return ResidencyPlan(order, planned, as_they_came - planned)


def _by_memory(
    adapters: Sequence[Hashable | None], resident: Sequence[Hashable], capacity: int, patience: int
) -> list[int]:
    memory = _Memory(resident, capacity)
    waiting: dict[Hashable | None, deque[int]] = {}
    for place, adapter in enumerate(adapters):
        waiting.setdefault(adapter, deque()).append(place)
    order: list[int] = []
    while waiting:
        oldest = min(waiting, key=lambda adapter: waiting[adapter][0])
        # All that came before the oldest are done, so the rest of what is done has overtaken it; and nobody else has
        # been overtaken by more.
        overtaken = len(order) - waiting[oldest][0]
        chosen = oldest if overtaken >= patience else _cheapest(waiting, memory)
        order.append(waiting[chosen].popleft())
        memory.touch(chosen)
        if not waiting[chosen]:
            del waiting[chosen]
    return order


def _cheapest(waiting: dict[Hashable | None, deque[int]], memory: _Memory) -> Hashable | None:
    if None in waiting:
        return None
    held = next((adapter for adapter in reversed(memory.held) if adapter in waiting), None)
    return held if held is not None else max(waiting, key=lambda adapter: (len(waiting[adapter]), -waiting[adapter][0]))
