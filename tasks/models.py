"""Models that stay loaded in a worker's process, and the ids they were loaded under."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from experts.encoders.base import EncoderSpec, load_encoder
from experts.encoders.remembering import RememberingEncoder
from worker.settings import Settings

T = TypeVar("T")


class Resident(Generic[T]):
    """At most ``limit`` loaded things; the one unused for longest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Hashable, T] = OrderedDict()

    def held(self) -> list[T]:
        """What is loaded now."""
        return list(self._held.values())

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


_encoders: Resident[RememberingEncoder] = Resident(1)


def encoder(settings: Settings, *, threads: int | None = None) -> RememberingEncoder:
    """The process's encoder, loaded at its first use; ``threads`` overrides the setting."""
    chosen = settings.encoder
    spec = EncoderSpec(chosen.name, chosen.dtype, chosen.device, chosen.batch_size, threads or chosen.threads)
    return _encoders.get(spec, lambda: RememberingEncoder(load_encoder(spec), settings.routing.cached_queries))


def encoder_in_use(settings: Settings) -> RememberingEncoder | None:
    """The process's encoder if it was loaded; nothing is loaded for this."""
    return next((held for held in _encoders.held() if held.name == settings.encoder.name), None)
