"""Requests are spaced so that no minute holds more of them than are allowed."""

import threading

from experts.engines.rate_limit import RateLimiter, shared_limiter


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_requests_that_come_at_once_are_spaced_evenly() -> None:
    limiter = RateLimiter(30, Clock())
    assert [limiter.reserve() for _ in range(4)] == [0, 2, 4, 6]
    assert limiter.granted == 4


def test_a_request_after_a_rest_need_not_wait_and_saves_nothing_up() -> None:
    clock = Clock()
    limiter = RateLimiter(30, clock)
    limiter.reserve()
    clock.now += 1.5
    assert limiter.reserve() == 0.5
    clock.now += 100
    assert [limiter.reserve() for _ in range(2)] == [0, 2]


def test_no_minute_holds_more_than_are_allowed_whoever_asks() -> None:
    limiter, starts = RateLimiter(60, Clock()), list[float]()

    def ask() -> None:
        starts.extend(limiter.reserve() for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(starts) == [float(second) for second in range(400)]


def test_a_process_has_one_limiter_per_server() -> None:
    first = shared_limiter("http://one/v1", 10)
    assert shared_limiter("http://one/v1", 10) is first
    assert shared_limiter("http://two/v1", 10) is not first
