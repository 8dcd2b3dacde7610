"""Models that stay loaded in a worker's process, and the ids they were loaded under."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from experts.encoders.base import Encoder, EncoderSpec, load_encoder
from worker.settings import Settings

T = TypeVar("T")


class Resident(Generic[T]):
    """At most ``limit`` loaded things; the one unused for longest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """What is held under ``key``, loaded now where it is not held. What ``load`` raises is passed on."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        loaded = load()
        self._held[key] = loaded
        while len(self._held) > self._limit:
            self._held.popitem(last=False)
        return loaded


_encoders: Resident[Encoder] = Resident(1)


def encoder(settings: Settings, *, threads: int | None = None) -> Encoder:
    """The process's encoder, loaded at its first use; ``threads`` overrides the setting."""
    chosen = settings.encoder
    spec = EncoderSpec(chosen.name, chosen.dtype, chosen.device, chosen.batch_size, threads or chosen.threads)
    return _encoders.get(spec, lambda: load_encoder(spec))
