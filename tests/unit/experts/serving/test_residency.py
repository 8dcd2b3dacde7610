"""Adapters in memory: within the budget, the unused go first, what is in use stays."""

from collections.abc import Hashable
from typing import Any

import pytest

from experts.errors import ModelUnusable
from experts.serving.residency import ResidencySpec
from tests.tiny_base import tiny_model
from tests.unit.experts.serving.builders import adapter, residency


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def held(model: Any, spec: ResidencySpec, n: int = 6) -> Any:
    adapters: dict[Hashable, Any] = {f"a{seed}": adapter(model, seed) for seed in range(n)}
    return residency(model, adapters, spec)


def touch(adapters: Any, *names: str) -> None:
    for name in names:
        assert adapters.hold(name)
        adapters.release(name)


def test_the_one_unused_for_longest_goes_first(model: Any) -> None:
    adapters = held(model, ResidencySpec(adapters=3))
    touch(adapters, "a0", "a1", "a2", "a0", "a3")
    assert adapters.resident() == ["a3", "a0", "a2"]
    found = adapters.statistics
    assert (found.loads, found.hits, found.evictions) == (4, 1, 1)
    assert found.seconds > 0


def test_what_is_in_use_is_never_evicted(model: Any) -> None:
    adapters = held(model, ResidencySpec(adapters=2))
    assert adapters.hold("a0")
    touch(adapters, "a1", "a2", "a3")
    assert adapters.resident() == ["a3", "a0"]
    assert adapters.hold("a3")
    assert not adapters.hold("a4")
    assert adapters.resident() == ["a3", "a0"]
    adapters.release("a0")
    assert adapters.hold("a4")
    assert adapters.resident() == ["a4", "a3"]


def test_bytes_are_bounded_as_well(model: Any) -> None:
    small, large = adapter(model, 0, rank=2), adapter(model, 1, rank=4)
    size = sum(a.nbytes + b.nbytes for a, b in small.layers.values())
    adapters = residency(model, {"s": small, "t": small, "l": large}, ResidencySpec(adapters=9, bytes=3 * size))
    touch(adapters, "s", "t")
    assert adapters.statistics.bytes == 2 * size
    touch(adapters, "l")
    assert adapters.resident() == ["l", "t"]
    assert adapters.statistics.bytes == 3 * size
    touch(adapters, "s")
    assert adapters.resident() == ["s", "l"]


def test_nothing_is_evicted_for_an_adapter_that_would_not_fit_anyway(model: Any) -> None:
    small, large = adapter(model, 0, rank=2), adapter(model, 1, rank=8)
    size = sum(a.nbytes + b.nbytes for a, b in small.layers.values())
    adapters = residency(model, {"s": small, "l": large}, ResidencySpec(bytes=3 * size))
    touch(adapters, "s")
    with pytest.raises(ModelUnusable, match="bytes"):
        adapters.hold("l")
    assert adapters.resident() == ["s"]


def test_an_adapter_without_room_is_read_once(model: Any) -> None:
    read = []

    class Reads(dict[Hashable, Any]):
        def __getitem__(self, name: Hashable) -> Any:
            read.append(name)
            return super().__getitem__(name)

    adapters = residency(model, Reads({n: adapter(model, 0) for n in "ab"}), ResidencySpec(adapters=1))
    assert adapters.hold("a")
    assert [adapters.hold("b") for _ in range(3)] == [False] * 3
    adapters.release("a")
    assert adapters.hold("b")
    assert read == ["a", "b"]


def test_an_adapter_is_not_released_more_often_than_it_was_held(model: Any) -> None:
    adapters = held(model, ResidencySpec())
    with pytest.raises(ValueError, match="a0"):
        adapters.release("a0")
