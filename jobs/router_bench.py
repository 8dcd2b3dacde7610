"""``moe router bench``: every kind of router on anybody's labelled queries, without a stack."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experts import kinds
from jobs.errors import BadInput
from jobs.reading.labelled import Columns, LabelledRow, read_labelled
from jobs.reading.sources import as_text
from worker.settings import Encoder

_TRAIN, _TEST = ("train", "training"), ("test",)
_DEV = ("dev", "val", "valid", "validation")
# Figures that are asked of a router, and what they should reach.
_TARGETS = (
    ("routing accuracy", "accuracy", 0.95, True),
    ("calibration error", "ece", 0.05, False),
    ("outside recognised (AUROC)", "oos_auroc", 0.9, True),
    ("milliseconds per query without embedding", "latency_ms", 5.0, False),
)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """As on the command line. Splits that are not named are found by their usual names."""

    columns: Columns
    train_split: str | None = None
    dev_split: str | None = None
    test_split: str | None = None
    kinds: Sequence[str] = ()
    shots: int | None = None
    seeds: int = 1
    leave_one_label_out: bool = False
    world: bool = True


def bench(
    path: str, encoder_settings: Encoder, options: BenchOptions, *, report: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """Train, calibrate and measure; the result as JSON. Raises BadInput, UnknownKind, CannotTrain, ModelUnusable."""
    chosen = list(options.kinds) or sorted(kinds.ROUTERS, key=lambda kind: (kind != kinds.DEFAULT_ROUTER, kind))
    for kind in chosen:
        kinds.check("router kind", kinds.ROUTERS, kind)
    rows = read_labelled(path, options.columns)
    splits = {row.split for row in rows}
    train = _of(rows, _split(path, splits, options.train_split, _TRAIN, "train"))
    dev_name = _split(path, splits, options.dev_split, _DEV, None)
    test = _of(rows, _split(path, splits, options.test_split, _TEST, "test"))
    if dev_name == test[0].split:
        dev_name = None  # what is tested on is not calibrated on
    # Before numpy is imported: idle threads that spin keep the others from working.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from experts.evaluation.benchmark import Plan, Rows, benchmark
    from experts.evaluation.encoding import encoder

    def part(found: Sequence[LabelledRow]) -> Rows:
        return Rows([r.text for r in found], [r.label for r in found], [r.group for r in found])

    dev = None if dev_name is None else _of(rows, dev_name)
    if dev is None:
        report("no dev split: probabilities are calibrated on parts of the training split left out in turn")
    plan = Plan(chosen, options.seeds, options.shots, options.leave_one_label_out, options.world, report)
    found = benchmark(
        part(train), None if dev is None else part(dev), part(test), encoder(encoder_settings.model_dump()), plan
    )
    default = found["results"].get("default") or {}
    return {
        "data": {
            "file": as_text(Path(path).name),
            "rows": len(rows),
            "train": len(train),
            "dev": len(dev or ()),
            "test": len(test),
            "labels": found.pop("labels"),
            "oos_label": options.columns.outside,
            "group_field": options.columns.group,
            "shots": options.shots,
        },
        **found,
        "targets": _targets(default),
    }


def _split(
    path: str, splits: set[str | None], wanted: str | None, usual: Sequence[str], needed: str | None
) -> str | None:
    if wanted is not None:
        if wanted not in splits:
            raise BadInput(f"{path}: no query is of split {wanted!r}; there are: {_names(splits)}")
        return wanted
    found = next((name for name in usual if name in splits), None)
    if found is None and needed is not None:
        raise BadInput(
            f"{path}: no query is of split {needed!r}; there are: {_names(splits)}. Say which with --{needed}-split"
        )
    return found


def _names(splits: set[str | None]) -> str:
    return ", ".join(sorted(map(str, splits))[:10])


def _of(rows: Sequence[LabelledRow], split: str | None) -> list[LabelledRow]:
    return [row for row in rows if row.split == split]


def _targets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "value": value, "target": target, "met": value >= target if more else value <= target}
        for name, key, target, more in _TARGETS
        if (value := found.get(key)) is not None
    ]
