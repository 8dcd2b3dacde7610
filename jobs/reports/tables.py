"""The tables of a routing report. Every one takes what the benchmark found, of which any measure may be missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from jobs.reports.showing import brief, count, interval, name, number, p_value, percent, plain, points, written

_FOLDED = 30  # a longer table is opened by who wants it

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells in words. The first ``names`` columns are names, the others numbers; row ``marked`` stands out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    names: int = 1
    marked: int | None = None

    @property
    def folded(self) -> bool:
        return len(self.rows) > _FOLDED


def part(found: Found, key: str) -> Found:
    """An object of the findings; one that is absent or null is empty."""
    return found.get(key) or {}


def objects(found: Found) -> list[tuple[str, Found]]:
    return [(key, value or {}) for key, value in found.items()]


def side_by_side(results: Mapping[str, Found], default: str | None) -> Table:
    columns = (
        "router", "accuracy", "95 % interval", "macro F1", "calibration error", "outside AUROC", "outside FPR95",
        "ms per query", "training s",
    )  # fmt: skip
    rows = [
        (
            f"{name(kind)} (default)" if kind == default else name(kind),
            percent(result.get("accuracy")),
            interval(result.get("ci")),
            plain(result.get("macro_f1")),
            plain(result.get("ece")),
            plain(result.get("oos_auroc")),
            percent(result.get("oos_fpr95")),
            written(result.get("latency_ms"), ",.3f"),
            written(result.get("train_seconds"), ",.2f"),
        )
        for kind, result in results.items()
    ]
    note = (
        "Calibration error: expected (ECE). Outside: telling queries outside every domain from those inside; FPR95 is"
        " its false positive rate at a true positive rate of 95 %. Time per query is without the embedding."
    )
    marked = list(results).index(default) if default is not None else None
    return Table("Side by side", columns, rows, note, marked=marked)


def paired(found: Found) -> Table:
    rows = [
        (
            name(pair.get("a")),
            name(pair.get("b")),
            points(pair.get("difference")),
            interval(pair.get("ci"), points),
            p_value(pair.get("p")),
        )
        for pair in found.get("paired") or ()
    ]
    columns = ("router a", "router b", "a − b, points", "95 % interval", "p")
    note = "Accuracy of a minus accuracy of b on the same queries, in percentage points."
    return Table("Paired differences", columns, rows, note, names=2)


def targets(found: Found) -> Table:
    words = {True: "✓ met", False: "✗ not met"}
    rows = [
        (
            name(target.get("name"), 120),
            brief(target.get("value")),
            brief(target.get("target")),
            words.get(target.get("met"), "not measured"),
        )
        for target in found.get("targets") or ()
    ]
    return Table("Targets", ("target", "measured", "wanted", "verdict"), rows)


def left_out(found: Found, kinds: Sequence[str]) -> list[Table]:
    """How well each router knows the queries of a label it was not taught as outside; empty where none was measured."""
    measures = part(found, "leave_one_label_out")
    mean, labels = part(measures, "mean"), objects(part(measures, "labels"))
    measured = [kind for kind in kinds if kind in mean or any(kind in each for _, each in labels)]
    means = [
        (name(kind), plain(part(mean, kind).get("auroc")), percent(part(mean, kind).get("fpr95"))) for kind in measured
    ]
    made = [Table("Mean of all labels", ("router", "AUROC", "FPR95"), means)]
    for title, measure, show in (("AUROC by label", "auroc", plain), ("FPR95 by label", "fpr95", percent)):
        rows = [[name(label), *(show(part(each, kind).get(measure)) for kind in measured)] for label, each in labels]
        made.append(Table(title, ["label left out", *map(name, measured)], rows if measured else []))
    return [table for table in made if table.rows]


def by_group(result: Found, data: Found) -> Table:
    rows = [
        (name(group), count(each.get("n")), percent(each.get("accuracy")), plain(each.get("ece")))
        for group, each in objects(part(result, "groups"))
    ]
    by = data.get("group_field")
    return Table(
        f"By {name(by)}" if by is not None else "By group", ("group", "queries", "accuracy", "calibration error"), rows
    )


def by_label(result: Found) -> Table:
    def worst_first(item: tuple[str, Found]) -> float:
        f1 = number(item[1].get("f1"))
        return 2.0 if f1 is None else f1

    rows = [
        (
            name(label),
            count(each.get("n")),
            percent(each.get("precision")),
            percent(each.get("recall")),
            plain(each.get("f1")),
        )
        for label, each in sorted(objects(part(result, "per_label")), key=worst_first)
    ]
    return Table("By label", ("label", "queries", "precision", "recall", "F1"), rows, "Lowest F1 first.")


def risk(result: Found) -> Table:
    rows = [
        (
            percent(each.get("max_misroute")),
            percent(each.get("achieved")),
            interval(each.get("ci")),
            written(each.get("experts_asked"), ",.2f"),
        )
        for each in result.get("risk") or ()
    ]
    note = "A query is misrouted when the right label is not among those asked."
    columns = ("misrouted at most", "misrouted in fact", "95 % interval", "experts asked per query")
    return Table("Risk limits", columns, rows, note, names=0)


def balance(result: Found) -> Table:
    found = part(result, "balance")
    rows = [
        ("Entropy of the load", plain(found.get("entropy"))),
        ("Variation of the load (standard deviation ÷ mean)", plain(found.get("load_cv"))),
        ("Budget", brief(found.get("budget"))),
        ("Accuracy before balancing", percent(found.get("accuracy_before"))),
        ("Accuracy after balancing", percent(found.get("accuracy_after"))),
        ("Variation of the load after balancing", plain(found.get("load_cv_after"))),
    ]
    return Table("Balance of the load", ("measure", "value"), rows if found else [])


def curves(result: Found) -> Iterator[Table]:
    """The numbers that the plots show."""
    bins = [
        (
            plain(each.get("from")),
            plain(each.get("to")),
            count(each.get("n")),
            plain(each.get("confidence")),
            percent(each.get("accuracy")),
        )
        for each in result.get("reliability") or ()
    ]
    yield Table("Reliability", ("confidence from", "to", "queries", "mean confidence", "accuracy"), bins, names=0)
    yield _histogram(result, "confidence_histogram", "Confidence of right and wrong choices", ("right", "wrong"))
    yield _curve(
        result, "threshold_curve", "Threshold on the confidence", {"answered": "answered", "accuracy": "accuracy"}
    )
    yield _curve(
        result,
        "coverage_curve",
        "Threshold on the coverage",
        {"inside_kept": "inside, kept", "outside_caught": "outside, caught"},
    )
    yield _histogram(result, "coverage_histogram", "Coverage of queries inside and outside", ("inside", "outside"))


def _curve(result: Found, key: str, title: str, shares: Mapping[str, str]) -> Table:
    rows = [
        (plain(each.get("threshold")), *(percent(each.get(share)) for share in shares))
        for each in result.get(key) or ()
    ]
    return Table(title, ("threshold", *shares.values()), rows, names=0)


def _histogram(result: Found, key: str, title: str, parts: tuple[str, str]) -> Table:
    histogram = part(result, key)
    ends = histogram.get("edges") or ()
    counts = [histogram.get(each) or [] for each in parts]
    rows = [
        (plain(start), plain(stop), *(count(n) for n in ns))
        for start, stop, *ns in zip_longest(ends[:-1], ends[1:], *counts)
    ]
    return Table(title, ("from", "to", *parts), rows, names=0)
