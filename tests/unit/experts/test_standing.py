"""How an expert stands: limits, anomalies, performance, waiting time, priority, load."""

from dataclasses import replace
from typing import Any

import pytest

from experts.standing import (
    NOTHING,
    Figures,
    Limits,
    Standing,
    capacity,
    imbalance,
    load_ratios,
    standing,
)

GOOD = Figures(n_queries=100, n_errors=0, busy_ms=10_000.0, n_answered=80, mean_confidence=0.7, accuracy=0.9)


def of(recent: Figures = GOOD, history: Figures = NOTHING, **given: Any) -> Standing:
    return standing("alpha", recent, history, **{"queue": 0, "in_flight": 0, "capacity": 512, **given})


def good(**changes: Any) -> Figures:
    return replace(GOOD, **changes)


def test_a_good_expert_stands_well() -> None:
    assert of(queue=96, in_flight=32, capacity=256, history=GOOD) == Standing(
        expert="alpha",
        available=True,
        why=(),
        anomalies=(),
        performance=0.9,
        queue=96,
        in_flight=32,
        capacity=256,
        free=0.5,
        service_s=0.1,
        wait_s=pytest.approx(12.8),
        priority=pytest.approx(0.7 * 0.9 + 0.3 * 0.5),
    )


def test_an_expert_that_did_nothing_yet_is_available_and_unknown() -> None:
    assert of(NOTHING) == Standing("alpha", True, (), (), None, 0, 0, 512, 1.0, None, 0.0, pytest.approx(0.65))


# --- limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recent", "why"),
    [
        pytest.param(good(busy_ms=200_000.0), (), id="just fast enough"),
        pytest.param(good(busy_ms=200_100.0), ("2.001 s per query, over 2 s",), id="too slow"),
        pytest.param(good(accuracy=0.7), (), id="just right enough"),
        pytest.param(good(accuracy=0.6999), ("accuracy 69.99 %, under 70 %",), id="too often wrong"),
        pytest.param(good(accuracy=0.0), ("accuracy 0 %, under 70 %",), id="always wrong"),
        pytest.param(good(accuracy=None), (), id="nobody judged"),
        pytest.param(good(n_errors=20), (), id="just few enough errors"),
        pytest.param(good(n_errors=21), ("errors 21 %, over 20 %",), id="too many errors"),
        pytest.param(
            good(busy_ms=300_000.0, accuracy=0.5, n_errors=100),
            ("3 s per query, over 2 s", "accuracy 50 %, under 70 %", "errors 100 %, over 20 %"),
            id="everything at once",
        ),
        pytest.param(
            good(n_queries=20, n_errors=20, busy_ms=0.0), ("errors 100 %, over 20 %",), id="just enough of it"
        ),
        pytest.param(good(n_queries=19, n_errors=19, busy_ms=1e9, accuracy=0.0), (), id="too few queries"),
    ],
)
def test_an_expert_within_its_limits_is_available(recent: Figures, why: tuple[str, ...]) -> None:
    now = of(recent)

    assert (now.available, now.why) == (not why, why)


def test_a_bad_past_does_not_make_an_expert_unavailable() -> None:
    assert of(good(n_queries=5, accuracy=None), good(n_errors=100, accuracy=0.0)).available


def test_limits_can_be_others() -> None:
    strict = Limits(max_latency_s=0.05, min_accuracy=0.95, max_error_rate=0.0, least_queries=1)

    now = of(good(n_queries=1, n_errors=1, busy_ms=100.0), limits=strict)

    assert now.why == ("0.1 s per query, over 0.05 s", "accuracy 90 %, under 95 %", "errors 100 %, over 0 %")
    assert of(NOTHING, limits=Limits(least_queries=0)).available


# --- anomalies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recent", "history", "anomalies"),
    [
        pytest.param(good(busy_ms=20_000.0), GOOD, ("0.2 s per query, 0.1 s before",), id="twice as slow"),
        pytest.param(good(busy_ms=19_999.0), GOOD, (), id="not quite twice as slow"),
        pytest.param(good(busy_ms=20_000.0), good(busy_ms=0.0), (), id="no time was measured before"),
        pytest.param(good(accuracy=0.8), GOOD, ("accuracy 80 %, 90 % before",), id="accuracy down by a tenth"),
        pytest.param(good(accuracy=0.81), GOOD, (), id="accuracy down by less"),
        pytest.param(good(accuracy=1.0), GOOD, (), id="accuracy up"),
        pytest.param(good(accuracy=None), GOOD, (), id="accuracy not known any more"),
        pytest.param(good(accuracy=0.1), good(accuracy=None), (), id="accuracy not known before"),
        pytest.param(good(n_errors=10), good(n_errors=5), ("errors 10 %, 5 % before",), id="twice the errors"),
        pytest.param(good(n_errors=9), good(n_errors=5), (), id="not quite twice the errors"),
        pytest.param(good(n_errors=5), GOOD, ("errors 5 %, 0 % before",), id="five in a hundred after none"),
        pytest.param(good(n_errors=4), GOOD, (), id="four in a hundred after none"),
        pytest.param(GOOD, GOOD, (), id="no errors then and now"),
        pytest.param(good(n_queries=20, n_errors=1, busy_ms=2e3), GOOD, (), id="one error is chance"),
        pytest.param(good(n_errors=1), good(n_queries=1000, n_errors=1, busy_ms=1e5), (), id="also after very few"),
        pytest.param(
            good(n_queries=20, n_errors=20, busy_ms=1e6, accuracy=0.0), good(n_queries=19), (), id="too short a past"
        ),
        pytest.param(good(n_queries=19, n_errors=19, busy_ms=1e6, accuracy=0.0), GOOD, (), id="too few lately"),
        pytest.param(good(n_errors=100, busy_ms=1e6, accuracy=0.0), NOTHING, (), id="no past"),
        pytest.param(NOTHING, GOOD, (), id="nothing lately"),
        pytest.param(
            good(n_queries=20, n_errors=2, busy_ms=4_000.0, accuracy=0.5),
            good(n_queries=20, n_errors=1, busy_ms=2_000.0),
            ("0.2 s per query, 0.1 s before", "accuracy 50 %, 90 % before", "errors 10 %, 5 % before"),
            id="everything at once, of just enough",
        ),
    ],
)
def test_what_is_unusual_for_this_expert_is_named(
    recent: Figures, history: Figures, anomalies: tuple[str, ...]
) -> None:
    assert of(recent, history).anomalies == anomalies


def test_nothing_at_all_is_never_unusual() -> None:
    assert of(NOTHING, NOTHING, limits=Limits(least_queries=0)).anomalies == ()


# --- performance, time, priority ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recent", "history", "performance"),
    [
        pytest.param(good(accuracy=0.4), GOOD, 0.4, id="what people said lately"),
        pytest.param(good(accuracy=0.0), GOOD, 0.0, id="also when that is the worst"),
        pytest.param(good(accuracy=None), GOOD, 0.9, id="else what they said before"),
        pytest.param(good(accuracy=None, n_errors=25), good(accuracy=None), 0.75, id="else the errors"),
        pytest.param(good(accuracy=None, n_queries=10, n_errors=10), good(accuracy=None, n_queries=30), 0.75, id="all"),
        pytest.param(good(accuracy=None, n_queries=20, n_errors=5), good(accuracy=None), 0.75, id="just enough"),
        pytest.param(good(accuracy=None, n_queries=4, n_errors=1), NOTHING, 0.75, id="of however few"),
        pytest.param(good(accuracy=None, n_errors=100), NOTHING, 0.0, id="nothing but errors"),
        pytest.param(NOTHING, NOTHING, None, id="nothing known"),
    ],
)
def test_performance_is_what_people_say_or_the_share_without_errors(
    recent: Figures, history: Figures, performance: float | None
) -> None:
    now = of(recent, history)

    assert now.performance == performance
    assert now.priority == pytest.approx(0.7 * (0.5 if performance is None else performance) + 0.3)


@pytest.mark.parametrize(
    ("queue", "in_flight", "room", "free"),
    [(0, 0, 10, 1.0), (3, 2, 10, 0.5), (0, 10, 10, 0.0), (10, 10, 10, 0.0), (0, 0, 0, 0.0), (1, 0, 1, 0.0)],
)
def test_what_waits_and_what_is_answered_takes_up_capacity(queue: int, in_flight: int, room: int, free: float) -> None:
    now = of(queue=queue, in_flight=in_flight, capacity=room)

    assert (now.free, now.capacity) == (free, room)
    assert now.priority == pytest.approx(0.63 + 0.3 * free)


@pytest.mark.parametrize(
    ("recent", "history", "queue", "service_s", "wait_s"),
    [
        pytest.param(GOOD, good(busy_ms=1e6), 5, 0.1, 0.6, id="of late"),
        pytest.param(
            good(n_queries=10, busy_ms=4000.0), good(n_queries=30, busy_ms=0.0), 5, 0.1, 0.6, id="few: of all"
        ),
        pytest.param(NOTHING, GOOD, 5, 0.1, 0.6, id="of before"),
        pytest.param(NOTHING, NOTHING, 5, None, None, id="never measured"),
        pytest.param(GOOD, GOOD, -1, 0.1, 0.0, id="nothing waits"),
    ],
)
def test_the_wait_is_the_work_ahead(
    recent: Figures, history: Figures, queue: int, service_s: float | None, wait_s: float | None
) -> None:
    now = of(recent, history, queue=max(queue, 0), in_flight=1 if queue >= 0 else 0)

    assert now.service_s == (None if service_s is None else pytest.approx(service_s))
    assert now.wait_s == (None if wait_s is None else pytest.approx(wait_s))


def test_priority_spans_from_nothing_to_one() -> None:
    assert of(good(accuracy=1.0)).priority == 1.0
    assert of(good(accuracy=0.0), queue=512).priority == 0.0


def test_capacity_is_what_the_capabilities_sum_to() -> None:
    assert capacity({"capabilities": [{"max_load": 30}, {"max_load": 12}]}) == 42
    assert capacity({"capabilities": []}) == capacity({}) == capacity({"capabilities": None}) == 512


# --- load -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "found"),
    [
        pytest.param({}, {}, id="nobody"),
        pytest.param({"a": 0, "b": 0}, {}, id="no load"),
        pytest.param({"a": 7}, {}, id="one alone"),
        pytest.param({"a": 15, "b": 5}, {}, id="exactly at both limits"),
        pytest.param({"a": 151, "b": 49}, {"a": 1.51, "b": 0.49}, id="beyond both"),
        pytest.param({"a": 30, "b": 0, "c": 15, "d": 15}, {"a": 2.0, "b": 0.0}, id="one gets nothing"),
        pytest.param({"a": 1.6, "b": 0.8, "c": 0.6}, {"a": 1.6}, id="only one beyond"),
    ],
)
def test_experts_far_from_the_mean_load_are_found(load: dict[str, float], found: dict[str, float]) -> None:
    assert imbalance(load) == {expert: pytest.approx(ratio) for expert, ratio in found.items()}


def test_load_is_told_as_a_multiple_of_the_mean() -> None:
    assert load_ratios({"a": 30, "b": 10, "c": 20}) == {"a": 1.5, "b": 0.5, "c": 1.0}
    assert load_ratios({"a": 0}) == load_ratios({}) == {}
