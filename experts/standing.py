"""How an expert stands now: whether it can be relied on, what is unusual, how soon it could take another query."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# What an expert takes at once whose card names no capability.
_DEFAULT_CAPACITY = 512
_PERFORMANCE_SHARE = 0.7
_FREE_SHARE = 0.3
_UNKNOWN_PERFORMANCE = 0.5
_TOO_MUCH = 1.5
_TOO_LITTLE = 0.5
# 0.9 - 0.8 is a little less than 0.1 in binary.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Figures:
    """What an expert did in a stretch of time.

    ``n_queries`` counts those that ended in an error as well, ``busy_ms`` is one worker's time for all of them.
    ``accuracy`` is the share of good ones among the answers that people judged, None where too few did.
    """

    n_queries: int
    n_errors: int
    busy_ms: float
    n_answered: int
    mean_confidence: float | None
    accuracy: float | None

    @property
    def latency_ms(self) -> float | None:
        """Mean time of one worker per query; None without queries."""
        return self.busy_ms / self.n_queries if self.n_queries else None

    @property
    def error_rate(self) -> float | None:
        """Share of the queries that ended in an error; None without queries."""
        return self.n_errors / self.n_queries if self.n_queries else None


class Stretch(Protocol):
    """Anything with the fields of Figures."""

    @property
    def n_queries(self) -> int: ...
    @property
    def n_errors(self) -> int: ...
    @property
    def busy_ms(self) -> float: ...
    @property
    def n_answered(self) -> int: ...
    @property
    def mean_confidence(self) -> float | None: ...
    @property
    def accuracy(self) -> float | None: ...


class Backlog(Protocol):
    """Queries that wait for a worker, and those being answered."""

    @property
    def queued(self) -> int: ...
    @property
    def leased(self) -> int: ...


class Measured(Protocol):
    """All that whoever keeps the figures knows of an expert."""

    @property
    def expert(self) -> str: ...
    @property
    def card(self) -> Mapping[str, Any]: ...
    @property
    def recent(self) -> Stretch: ...
    @property
    def history(self) -> Stretch: ...
    @property
    def backlog(self) -> Backlog: ...


NOTHING = Figures(0, 0, 0.0, 0, None, None)


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an expert stops being available, and what counts as unusual.

    The first three are absolute: what somebody who waits for an answer will bear. The next three compare an expert with
    its own past, since a slow engine is not broken for being slow. Fewer than ``least_queries`` say nothing, neither
    recent ones nor past ones: with 20, one failure is 5 %, a quarter of what is tolerated (Hystrix's circuit breaker
    asks for as many before it opens). A single error is never unusual, whatever came before, and ``error_floor`` stands
    in for twice the error rate of a past without errors.
    """

    max_latency_s: float = 2.0
    min_accuracy: float = 0.7
    max_error_rate: float = 0.2
    latency_ratio: float = 2.0
    accuracy_drop: float = 0.1
    error_ratio: float = 2.0
    least_queries: int = 20
    least_errors: int = 2
    error_floor: float = 0.05


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Standing:
    """An expert at this moment.

    ``why`` names every limit that is broken and ``anomalies`` what is unusual, both with their figures. ``performance``
    and ``free`` are in [0, 1]. ``queue`` counts waiting queries, ``in_flight`` those being answered, ``capacity`` how
    many it takes at once. ``service_s`` is one worker's time for a query and ``wait_s`` that for all queries before the
    next; None where nothing was measured.
    """

    expert: str
    available: bool
    why: tuple[str, ...]
    anomalies: tuple[str, ...]
    performance: float | None
    queue: int
    in_flight: int
    capacity: int
    free: float
    service_s: float | None
    wait_s: float | None
    priority: float


def standing_of(measured: Measured, limits: Limits = DEFAULT_LIMITS) -> Standing:
    """How the expert stands by what was measured of it."""
    return standing(
        measured.expert,
        _figures(measured.recent),
        _figures(measured.history),
        queue=measured.backlog.queued,
        in_flight=measured.backlog.leased,
        capacity=capacity(measured.card),
        limits=limits,
    )


def _figures(stretch: Stretch) -> Figures:
    return Figures(
        stretch.n_queries,
        stretch.n_errors,
        stretch.busy_ms,
        stretch.n_answered,
        stretch.mean_confidence,
        stretch.accuracy,
    )


def standing(
    expert: str,
    recent: Figures,
    history: Figures,
    *,
    queue: int,
    in_flight: int,
    capacity: int,
    limits: Limits = DEFAULT_LIMITS,
) -> Standing:
    """How the expert stands, from what it did lately and before that (the two stretches do not overlap).

    An expert with few recent queries is available: nothing speaks against it, and one that is asked no more would
    otherwise never be asked again.

    ``free`` is the share of the capacity that neither waiting queries nor those being answered take up. ``wait_s`` is
    the work ahead of the next query in a first-come queue with one worker, an upper bound where there are more.
    ``priority`` is 0.7 × performance + 0.3 × free: quality first, and between equals the idler one; an expert of
    unknown performance counts as 0.5, so that it is tried before bad ones and after good ones.
    """
    under_way = queue + in_flight
    why = _broken(recent, limits)
    performance = _performance(recent, history, limits)
    free = min(max(1 - under_way / capacity, 0.0), 1.0) if capacity > 0 else 0.0
    service_ms = _telling(recent, history, limits).latency_ms
    service_s = None if service_ms is None else service_ms / 1000
    known = _UNKNOWN_PERFORMANCE if performance is None else performance
    return Standing(
        expert=expert,
        available=not why,
        why=why,
        anomalies=_anomalies(recent, history, limits),
        performance=performance,
        queue=queue,
        in_flight=in_flight,
        capacity=capacity,
        free=free,
        service_s=service_s,
        wait_s=0.0 if under_way == 0 else None if service_s is None else under_way * service_s,
        priority=_PERFORMANCE_SHARE * known + _FREE_SHARE * free,
    )


def _broken(recent: Figures, limits: Limits) -> tuple[str, ...]:
    latency, errors = recent.latency_ms, recent.error_rate
    if latency is None or errors is None or recent.n_queries < limits.least_queries:
        return ()
    why = []
    if latency > 1000 * limits.max_latency_s:
        why.append(f"{_seconds(latency)} per query, over {limits.max_latency_s:g} s")
    if recent.accuracy is not None and recent.accuracy < limits.min_accuracy:
        why.append(f"accuracy {_percent(recent.accuracy)}, under {_percent(limits.min_accuracy)}")
    if errors > limits.max_error_rate:
        why.append(f"errors {_percent(errors)}, over {_percent(limits.max_error_rate)}")
    return tuple(why)


def _anomalies(recent: Figures, history: Figures, limits: Limits) -> tuple[str, ...]:
    if min(recent.n_queries, history.n_queries) < max(limits.least_queries, 1):
        return ()
    found = []
    latency, latency_before = recent.busy_ms / recent.n_queries, history.busy_ms / history.n_queries
    if latency_before > 0 and latency >= limits.latency_ratio * latency_before:
        found.append(f"{_seconds(latency)} per query, {_seconds(latency_before)} before")
    if (
        recent.accuracy is not None
        and history.accuracy is not None
        and history.accuracy - recent.accuracy >= limits.accuracy_drop - _ROUNDING
    ):
        found.append(f"accuracy {_percent(recent.accuracy)}, {_percent(history.accuracy)} before")
    errors, errors_before = recent.n_errors / recent.n_queries, history.n_errors / history.n_queries
    unusual = limits.error_ratio * errors_before if errors_before > 0 else limits.error_floor
    if errors >= unusual and recent.n_errors >= limits.least_errors:
        found.append(f"errors {_percent(errors)}, {_percent(errors_before)} before")
    return tuple(found)


def _performance(recent: Figures, history: Figures, limits: Limits) -> float | None:
    """What people say where they said enough, lately or before; else the share of queries without an error."""
    for accuracy in (recent.accuracy, history.accuracy):
        if accuracy is not None:
            return accuracy
    errors = _telling(recent, history, limits).error_rate
    return None if errors is None else 1 - errors


def _telling(recent: Figures, history: Figures, limits: Limits) -> Figures:
    """The recent figures where they are enough, else both stretches added up (without what people said)."""
    if recent.n_queries >= limits.least_queries:
        return recent
    return Figures(
        recent.n_queries + history.n_queries,
        recent.n_errors + history.n_errors,
        recent.busy_ms + history.busy_ms,
        recent.n_answered + history.n_answered,
        None,
        None,
    )


def capacity(card: Mapping[str, Any]) -> int:
    """Queries an expert takes at once: what the capabilities on its card sum to."""
    return sum(int(capability["max_load"]) for capability in card.get("capabilities") or []) or _DEFAULT_CAPACITY


def load_ratios(load: Mapping[str, float]) -> dict[str, float]:
    """expert -> its load as a multiple of the mean; empty where there is no load at all."""
    mean = sum(load.values()) / len(load) if load else 0.0
    return {expert: amount / mean for expert, amount in load.items()} if mean > 0 else {}


def imbalance(load: Mapping[str, float]) -> dict[str, float]:
    """expert -> its load as a multiple of the mean, of those above 1.5 × or below 0.5 × the mean.

    Experts without any load belong in ``load`` with 0. They run side by side, so the busiest one decides when all are
    done: at 1.5 × the mean, everybody else waits for a third of its time. Mixtures inside one network leave an expert
    room for 1 to 2 × the mean (Fedus et al. 2021, Switch Transformers); one below half of it is hardly used.
    """
    return {expert: ratio for expert, ratio in load_ratios(load).items() if ratio > _TOO_MUCH or ratio < _TOO_LITTLE}


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.4g} s"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
