"""Which adapters lie in memory: within a budget, the one unused for longest goes first, none that is in use goes."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch

from experts.errors import ModelUnusable
from experts.serving.adapters import AdapterLayers, Group, Weights


@dataclass(frozen=True, slots=True)
class ResidencySpec:
    """At most ``adapters`` at once, and at most ``bytes`` of them; None is no bound."""

    adapters: int = 5
    bytes: int | None = None


@dataclass(slots=True)
class ResidencyStatistics:
    """What was done so far. ``seconds`` went into reading and placing adapters; ``bytes`` are held now."""

    loads: int = 0
    hits: int = 0
    evictions: int = 0
    seconds: float = 0.0
    bytes: int = 0


class Residency:
    """Adapters laid beside one base, loaded when they are asked for. ``read`` may raise ExpertsError."""

    def __init__(
        self, layers: AdapterLayers, read: Callable[[Hashable], Weights], spec: ResidencySpec | None = None
    ) -> None:
        self._layers, self._read = layers, read
        self._spec = spec or ResidencySpec()
        self._sizes: OrderedDict[Hashable, int] = OrderedDict()  # the one used last comes last
        self._holders: Counter[Hashable] = Counter()
        # Read, but there was no room yet: it is not read a second time.
        self._ready: tuple[Hashable, Weights] | None = None
        self.statistics = ResidencyStatistics()

    def resident(self) -> list[Hashable]:
        """The adapters in memory, the one used last first."""
        return list(reversed(self._sizes))

    def hold(self, adapter: Hashable) -> bool:
        """Have ``adapter`` in memory until it is released as often as it was held.

        False, and nothing changed, if what is in use leaves no room. Raises ModelUnusable if it does not fit this base
        or is larger than the whole budget, and what reading it raises.
        """
        if adapter in self._sizes:
            self._sizes.move_to_end(adapter)
            self.statistics.hits += 1
        elif not self._load(adapter):
            return False
        self._holders[adapter] += 1
        return True

    def release(self, adapter: Hashable) -> None:
        """Undo one ``hold``; the adapter stays in memory while there is room."""
        if not self._holders[adapter]:
            raise ValueError(f"adapter {adapter!r} is not held")
        self._holders[adapter] -= 1

    def use(self, groups: Sequence[Group], device: torch.device | str) -> None:
        """Lay adapters under the tokens of the next passes."""
        self._layers.use(groups, device)

    def _load(self, adapter: Hashable) -> bool:
        started = time.perf_counter()
        try:
            weights = self._ready[1] if self._ready is not None and self._ready[0] == adapter else self._read(adapter)
            size = self._layers.size(weights)
            budget = self._spec.bytes
            if budget is not None and size > budget:
                raise ModelUnusable(f"the adapter takes {size} bytes, and {budget} are allowed for all adapters")
            if not self._make_room(size):
                self._ready = (adapter, weights)
                return False
            self._ready = None
            self._layers.add(adapter, weights)
        finally:
            self.statistics.seconds += time.perf_counter() - started
        self._sizes[adapter] = size
        self.statistics.loads += 1
        self.statistics.bytes += size
        return True

    def _make_room(self, size: int) -> bool:
        """Evict as few as needed; nothing at all if even that would not do."""
        going: list[Hashable] = []
        free = [adapter for adapter in self._sizes if not self._holders[adapter]]
        while self._is_full(len(going), size - sum(self._sizes[adapter] for adapter in going)):
            if len(going) == len(free):
                return False
            going.append(free[len(going)])
        for adapter in going:
            self._layers.remove(adapter)
            self.statistics.bytes -= self._sizes.pop(adapter)
            self.statistics.evictions += 1
        return True

    def _is_full(self, gone: int, more: int) -> bool:
        too_many = len(self._sizes) - gone >= self._spec.adapters
        return too_many or (self._spec.bytes is not None and self.statistics.bytes + more > self._spec.bytes)
