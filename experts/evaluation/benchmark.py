"""Every kind of router on the same labelled queries: trained on one part, calibrated on another, tried on a third."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from experts.encoders.base import Encoder
from experts.errors import CannotTrain
from experts.evaluation.metrics import interval, paired
from experts.evaluation.routing import Outcome, details, outcome, summary
from experts.kinds import DEFAULT_ROUTER
from experts.routing.balancing import balanced, utilisation
from experts.routing.base import OUTSIDE, Examples, ExpertProfile, Places, TrainingSet, World
from experts.routing.router import RouterModel
from experts.routing.training import train_router
from experts.routing.world import embedded_world

_RISKS = (0.01, 0.02, 0.05, 0.1, 0.2)
_CAPACITY_FACTOR = 1.25
_BALANCE_BUDGET = 0.01
_SHARD = 256
_MOST_LEFT_OUT = 20


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled queries of one split. ``label`` is None for those outside every label."""

    texts: Sequence[str]
    labels: Sequence[str | None]
    groups: Sequence[str | None] = ()

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: ``shots`` exemplars per label (None: all), by ``seeds`` trainings of each kind."""

    kinds: Sequence[str]
    seeds: int = 1
    shots: int | None = None
    leave_one_label_out: bool = False
    world: bool = True
    report: Callable[[str], None] = field(default=lambda message: None)


@dataclass(frozen=True, slots=True)
class _Split:
    examples: Examples
    groups: Sequence[str | None]


def benchmark(train: Rows, dev: Rows | None, test: Rows, encoder: Encoder, plan: Plan) -> dict[str, Any]:
    """``{"results": {kind: …, "default": …}, "paired": […], "leave_one_label_out": …, …}``. Raises CannotTrain."""
    started = time.perf_counter()
    labels = sorted({label for label in train.labels if label is not None})
    if len(labels) < 2:
        raise CannotTrain(f"the training split has {len(labels)} labels; two are the least there is to choose between")
    for name, rows in (("dev", dev), ("test", test)):
        unknown = sorted(set(rows.labels if rows else ()) - {*labels, None}, key=str)
        if unknown:
            raise CannotTrain(f"labels of the {name} split that the training split does not have: {unknown[:5]}")
    given = {"train": train, "dev": dev, "test": test}
    plan.report(f"embedding {sum(len(rows) for rows in given.values() if rows is not None)} queries")
    splits = {name: _embedded(rows, labels, encoder) for name, rows in given.items() if rows is not None}
    world = embedded_world(encoder) if plan.world else None
    bench = _Bench(labels, splits, world, encoder.name, plan)
    kinds = {kind: bench.measure(kind) for kind in plan.kinds}
    results = {kind: found.result for kind, found in kinds.items()}
    if DEFAULT_ROUTER in results:
        results["default"] = results[DEFAULT_ROUTER]
    return {
        "encoder": encoder.name,
        "labels": labels,
        "seeds": plan.seeds,
        "default": DEFAULT_ROUTER,
        "results": results,
        "paired": _paired(kinds),
        "leave_one_label_out": bench.left_out() if plan.leave_one_label_out else None,
        "seconds": round(time.perf_counter() - started, 2),
    }


def _embedded(rows: Rows, labels: Sequence[str], encoder: Encoder) -> _Split:
    place = {label: number for number, label in enumerate(labels)}
    owner = np.array([OUTSIDE if label is None else place[label] for label in rows.labels], np.int64)
    return _Split(Examples(rows.texts, owner, encoder.embed(rows.texts)), rows.groups)


@dataclass(frozen=True, slots=True)
class _Measured:
    result: dict[str, Any]
    right: np.ndarray[Any, np.dtype[np.float64]]


class _Bench:
    def __init__(
        self, labels: Sequence[str], splits: Mapping[str, _Split], world: World | None, encoder: str, plan: Plan
    ) -> None:
        self._labels = labels
        self._train = splits["train"].examples
        self._dev = splits["dev"].examples if "dev" in splits else None
        self._test = splits["test"]
        self._world = world
        self._encoder = encoder
        self._plan = plan

    def measure(self, kind: str) -> _Measured:
        """Train and measure one kind with every seed; figures are means, plots those of the first seed."""
        summaries, rights, first, seconds = [], [], None, 0.0
        for seed in range(self._plan.seeds):
            started = time.perf_counter()
            model = self._trained(kind, seed)
            seconds += time.perf_counter() - started
            found = outcome(model, self._test.examples)
            summaries.append(summary(found))
            rights.append(found.right.astype(np.float64))
            first = first or (model, found)
        assert first is not None
        model, found = first
        right = np.mean(rights, axis=0)
        figures = {key: _mean([s[key] for s in summaries]) for key in summaries[0] if key != "ci"}
        accuracies = [s["accuracy"] for s in summaries]
        result = {
            **figures,
            "ci": [round(bound, 4) for bound in interval(right)],
            "accuracy_per_seed": accuracies,
            "train_seconds": round(seconds / self._plan.seeds, 2),
            "latency_ms": self._latency(model),
            "groups": self._groups(found),
            "risk": self._risk(model, found),
            "balance": _balance(found),
            **details(found, self._test.examples.texts, self._labels),
        }
        self._plan.report(f"{kind}: accuracy {figures['accuracy']}, calibration error {figures['ece']}")
        return _Measured(result, right)

    def left_out(self) -> dict[str, Any]:
        """Each label in turn has no exemplars: can its queries be told from the others?"""
        step = -(-len(self._labels) // _MOST_LEFT_OUT)
        table = {}
        for place in range(0, len(self._labels), step):
            row = {}
            for kind in self._plan.kinds:
                model = self._trained(kind, 0, without=place)
                test = self._test.examples
                known = _renumbered(test.take(np.flatnonzero(test.owner != OUTSIDE)), place)
                found = summary(outcome(model, known))
                row[kind] = {"auroc": found["oos_auroc"], "fpr95": found["oos_fpr95"]}
            table[self._labels[place]] = row
            self._plan.report(f"without {self._labels[place]}: {row}")
        means = {
            kind: {key: _mean([row[kind][key] for row in table.values()]) for key in ("auroc", "fpr95")}
            for kind in self._plan.kinds
        }
        return {"labels": table, "mean": means}

    def _trained(self, kind: str, seed: int, *, without: int | None = None) -> RouterModel:
        train, dev, labels = self._train, self._dev, list(self._labels)
        if without is not None:
            train = _renumbered(train.take(np.flatnonzero(train.owner != without)), without)
            dev = None if dev is None else _renumbered(dev.take(np.flatnonzero(dev.owner != without)), without)
            del labels[without]
        if self._plan.shots is not None:
            train = train.take(_few(train.owner, self._plan.shots, seed))
        return train_router(
            kind,
            TrainingSet(
                [ExpertProfile(label) for label in labels],
                train,
                self._encoder,
                world=self._world,
                held_out=dev,
                seed=seed,
            ),
        )

    def _latency(self, model: RouterModel) -> float:
        """Milliseconds per query without embedding, in shards."""
        shard = self._test.examples.take(np.arange(min(_SHARD, len(self._test.examples))))
        if not len(shard):
            return 0.0
        times = []
        for _ in range(5):
            started = time.perf_counter()
            model.score(shard.texts, shard.embedded)
            times.append(time.perf_counter() - started)
        return round(1000 * float(np.median(times)) / len(shard), 4)

    def _groups(self, found: Outcome) -> dict[str, Any]:
        groups = np.array([str(group) for group in self._test.groups], object)
        return {
            group: summary(Outcome(found.owner[own], found.share[own], found.confidence[own], found.coverage[own]))
            for group in sorted(set(groups))
            if (own := groups == group).any()
        }

    def _risk(self, model: RouterModel, found: Outcome) -> list[dict[str, Any]]:
        """How often the right expert is missed when as many are asked as the limit needs, and how many that are."""
        inside = found.inside
        share, owner = found.share[inside], found.owner[inside]
        rows = []
        for limit in _RISKS if len(owner) else ():
            asked = share >= model.risk(limit)
            asked[np.arange(len(share)), share.argmax(axis=1)] = True
            missed = ~asked[np.arange(len(owner)), owner]
            low, high = interval(missed)
            rows.append(
                {
                    "max_misroute": limit,
                    "achieved": round(float(missed.mean()), 4),
                    "ci": [round(low, 4), round(high, 4)],
                    "experts_asked": round(float(asked.sum(axis=1).mean()), 3),
                }
            )
        return rows


def _balance(found: Outcome) -> dict[str, Any]:
    """What balanced assignment in shards costs, where every expert takes 1.25 times its even part."""
    inside = found.inside
    share, owner = found.share[inside], found.owner[inside]
    if not len(owner):
        return {}
    moved = []
    for start in range(0, len(share), _SHARD):
        part = share[start : start + _SHARD]
        room = np.full(part.shape[1], int(np.ceil(_CAPACITY_FACTOR * len(part) / part.shape[1])), np.int64)
        moved.append(balanced(part, room, budget=_BALANCE_BUDGET))
    after: Places = np.concatenate(moved)
    before = share.argmax(axis=1)
    entropy, spread = utilisation(before, share.shape[1])
    return {
        "budget": _BALANCE_BUDGET,
        "entropy": round(entropy, 4),
        "load_cv": round(spread, 4),
        "load_cv_after": round(utilisation(after, share.shape[1])[1], 4),
        "accuracy_before": round(float((before == owner).mean()), 4),
        "accuracy_after": round(float((after == owner).mean()), 4),
    }


def _paired(kinds: Mapping[str, _Measured]) -> list[dict[str, Any]]:
    """The default against every other kind, on the same queries; of several seeds the mean."""
    if DEFAULT_ROUTER not in kinds:
        return []
    ours = kinds[DEFAULT_ROUTER].right
    rows = []
    for kind, other in kinds.items():
        if kind == DEFAULT_ROUTER or not len(ours):
            continue
        difference = paired(ours > 0.5, other.right > 0.5)
        low, high = interval(ours - other.right)
        rows.append(
            {
                "a": DEFAULT_ROUTER,
                "b": kind,
                "difference": round(float((ours - other.right).mean()), 4),
                "ci": [round(low, 4), round(high, 4)],
                "p": round(difference.p, 6),
            }
        )
    return rows


def _renumbered(examples: Examples, without: int) -> Examples:
    """The same with the label at ``without`` gone: its queries lie outside, and those after it move up."""
    owner = np.where(examples.owner == without, OUTSIDE, examples.owner - (examples.owner > without))
    return replace(examples, owner=owner.astype(np.int64))


def _few(owner: Places, shots: int, seed: int) -> Places:
    random = np.random.default_rng(seed)
    chosen = [
        places if place == OUTSIDE else random.permutation(places)[:shots]
        for place in np.unique(owner)
        for places in [np.flatnonzero(owner == place)]
    ]
    return np.sort(np.concatenate(chosen))


def _mean(values: Sequence[float | int | None]) -> float | int | None:
    there = [value for value in values if value is not None]
    return round(float(np.mean(there)), 4) if there else None
