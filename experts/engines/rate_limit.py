"""No more requests per minute than a server allows, for all that one process asks of it."""

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """Starts at most ``per_minute`` requests in any minute, evenly spaced; threads and event loops may share it."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._clock = 60 / per_minute, clock
        self._lock, self._next = threading.Lock(), clock()
        self.granted = 0

    def reserve(self) -> float:
        """The seconds to wait before the next request; its place is taken, whether or not it is made."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._interval
            self.granted += 1
            return start - now


_limiters: dict[tuple[str, int], RateLimiter] = {}
_lock = threading.Lock()


def shared_limiter(server: str, per_minute: int) -> RateLimiter:
    """The one limiter this process has for a server."""
    with _lock:
        return _limiters.setdefault((server, per_minute), RateLimiter(per_minute))
