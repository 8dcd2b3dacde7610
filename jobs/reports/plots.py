"""Plots as SVG that stands inside a page: text stays text, and colours are the page's own, by light and by dark.

Every plot is a string, empty where there is nothing to draw. ``key`` tells the plots of one page apart.
"""

import html
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from jobs.reports.showing import bounds, name, number

_MOST_LABELS = 30
FEW_LABELS = 12  # a matrix of so few fits beside another plot
_MOST_CONFUSED = 20
_LABEL = 24

# Drawn in these colours, which occur nowhere else; the page gives the variables their values.
_INK, _FAINT, _ONE, _TWO, _ON_ONE = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
_VARIABLES = {_INK: "--ink", _FAINT: "--faint", _ONE: "--one", _TWO: "--two", _ON_ONE: "--on-one"}

_STYLE: dict[str, Any] = {
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.alpha": 0.5,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,  # labels come from files; a dollar sign in them is a dollar sign
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
}
_SIZE = (5.2, 3.7)


def accuracies(results: Mapping[str, Mapping[str, Any]], *, key: str) -> str:
    """The accuracy of every router with its interval, in the order given."""
    known = {kind: value for kind, found in results.items() if (value := number(found.get("accuracy"))) is not None}
    if not known:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row, (kind, value) in enumerate(known.items()):
            low, high = bounds(results[kind].get("ci"))
            if low is not None and high is not None:
                axes.plot([low, high], [row, row], color=_ONE, linewidth=2, solid_capstyle="butt")
            axes.plot([value], [row], "o", color=_ONE, markersize=6)
            axes.annotate(f"{value:.1%}", (value, row), (0, 7), textcoords="offset points", ha="center", fontsize=9)
        axes.set_yticks(range(len(known)), [name(kind, _LABEL) for kind in known])
        axes.set_ylim(len(known) - 0.5, -0.7)
        axes.margins(x=0.08)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        axes.set_xlabel("accuracy with 95 % interval [%]")

    return _svg(draw, "Accuracy of each router", key, (5.2, 1.3 + 0.36 * len(known)))


def confusion(labels: Sequence[Any], matrix: Sequence[Sequence[Any]], *, key: str) -> str:
    """Queries by true (rows) and chosen label (columns), coloured by their share of the row.

    Of more than 30 labels only those of the most confused pairs are drawn, and the title says so.
    """
    cells = [[number(cell) or 0.0 for cell in row] for row in matrix]
    if not any(map(any, cells)) or len(cells) != len(labels) or any(len(row) != len(labels) for row in cells):
        return ""
    shown, title = list(range(len(labels))), "Confusion matrix"
    if len(labels) > _MOST_LABELS:
        confused = _most_confused(cells)
        shown = confused or shown[:_MOST_CONFUSED]
        which = "most confused" if confused else "first"
        title = f"Confusion matrix: the {len(shown)} {which} of {len(labels)} labels"
    names = [name(labels[place], _LABEL) for place in shown]
    cell = 0.55 if len(shown) <= FEW_LABELS else 0.36 if len(shown) <= 20 else 0.28

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for y, true in enumerate(shown):
            whole = sum(cells[true])
            for x, chosen in enumerate(shown):
                if cells[true][chosen]:
                    _draw_cell(axes, x, y, cells[true][chosen], cells[true][chosen] / whole, cell)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="chosen label [queries]", ylabel="true label [queries]")
        axes.grid(alpha=0.35)
        axes.set_axisbelow(True)

    side, longest = cell * len(names), 0.085 * max(map(len, names))
    return _svg(draw, title, key, (max(side + longest + 0.6, 5.2), max(side + 0.75 * longest + 0.9, 4.0)))


def _most_confused(cells: Sequence[Sequence[float]]) -> list[int]:
    """The labels of the most frequent confusions, partners side by side."""
    pairs = sorted(
        (-n, true, chosen) for true, row in enumerate(cells) for chosen, n in enumerate(row) if true != chosen and n
    )
    return list(dict.fromkeys(place for _, *pair in pairs for place in pair))[:_MOST_CONFUSED]


def _draw_cell(axes: Axes, x: int, y: int, n: float, share: float, inches: float) -> None:
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=_ONE, alpha=0.08 + 0.92 * share, linewidth=0))
    said = f"{n:,.0f}"
    size = min(9.0, 62 * inches / len(said))
    axes.text(x, y, said, ha="center", va="center_baseline", fontsize=size, color=_ON_ONE if share > 0.55 else _INK)


def reliability(bins: Sequence[Mapping[str, Any]], ece: Any, *, key: str) -> str:
    """Accuracy against confidence in each bin, with the bins' sizes below."""
    known = [
        (confidence, accuracy, number(each.get("n")) or 0.0)
        for each in bins
        if (confidence := number(each.get("confidence"))) is not None
        and (accuracy := number(each.get("accuracy"))) is not None
    ]
    if not known:
        return ""

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.plot([0, 1], [0, 1], color=_FAINT, linestyle="--", linewidth=1.2, label="perfectly calibrated")
        confidences, shares, sizes = zip(*known, strict=True)
        areas = [12 + 60 * size / (max(sizes) or 1) for size in sizes]
        upper.plot(confidences, shares, color=_ONE, linewidth=1.2)
        upper.scatter(confidences, shares, areas, color=_ONE, label="measured", zorder=3)
        upper.set(ylim=(-0.03, 1.03), ylabel="accuracy [%]")
        upper.legend(loc="upper left")
        for each in bins:
            start, stop, n = (number(each.get(part)) for part in ("from", "to", "n"))
            if start is not None and stop is not None and n:
                lower.bar(start, n, width=stop - start, align="edge", color=_ONE, alpha=0.7, linewidth=0)
        lower.set(xlim=(0, 1), xlabel="confidence [%]", ylabel="queries [n]")
        upper.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        lower.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))

    error = number(ece)
    title = "Reliability" if error is None else f"Reliability (calibration error {error:.4f})"
    return _svg(draw, title, key, (5.2, 4.4))


def curves(
    points: Sequence[Mapping[str, Any]], series: Mapping[str, str], *, title: str, x: str, y: str, key: str
) -> str:
    """Shares against a threshold; ``series`` maps the fields of the points to their names in the legend."""
    known = sorted(
        ((threshold, each) for each in points if (threshold := number(each.get("threshold"))) is not None),
        key=lambda point: point[0],
    )
    values = {
        field: [float("nan") if (value := number(each.get(field))) is None else value for _, each in known]
        for field in series
    }
    if not any(value == value for line in values.values() for value in line):
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        marker = "o" if len(known) <= 25 else None
        for (field, line), color, dash in zip(values.items(), (_ONE, _TWO), ("-", (0, (5, 2))), strict=False):
            axes.plot(
                [at for at, _ in known], line, color=color, linestyle=dash, marker=marker, markersize=3, linewidth=2,
                label=series[field],
            )  # fmt: skip
        axes.set(ylim=(-0.03, 1.03), xlabel=x, ylabel=y)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
        figure.legend(loc="outside lower center", ncols=2)

    return _svg(draw, title, key, _SIZE)


def distributions(histogram: Mapping[str, Any], series: Mapping[str, str], *, title: str, x: str, key: str) -> str:
    """Two histograms over the same bins, each as shares of its own queries, so that a small one is seen as well."""
    edges = [value for edge in histogram.get("edges") or () if (value := number(edge)) is not None]
    shares: dict[str, list[float]] = {}
    for field, said in series.items():
        counts = [number(n) or 0.0 for n in histogram.get(field) or ()]
        if sum(counts) > 0 and len(counts) + 1 == len(edges):
            shares[f"{said} (n = {sum(counts):,.0f})"] = [100 * n / sum(counts) for n in counts]
    if not shares:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (said, values), color, dash in zip(shares.items(), (_ONE, _TWO), ("-", (0, (5, 2))), strict=False):
            axes.stairs(values, edges, fill=True, color=color, alpha=0.25, linewidth=0)
            axes.stairs(values, edges, color=color, linewidth=1.8, linestyle=dash, label=said)
        axes.set(xlabel=x, ylabel="share of these queries [%]")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)

    return _svg(draw, title, key, _SIZE)


def _svg(draw: Callable[[Figure], None], title: str, key: str, size: tuple[float, float]) -> str:
    """What ``draw`` draws, as one svg element of a page."""
    sink = io.StringIO()
    # The salt makes the ids of definitions differ from plot to plot and not from day to day.
    with matplotlib.style.context({**_STYLE, "svg.hashsalt": key}, after_reset=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the measuring font lacks; the browser has them
        figure = Figure(figsize=size)
        draw(figure)
        figure.suptitle(title, fontsize=11, fontweight="bold")
        figure.savefig(sink, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = re.sub(r"<style.*?</style>", "", sink.getvalue(), flags=re.DOTALL)  # it would hold for the whole page
    drawn = drawn[drawn.index("<svg") :]
    # Text never holds angle brackets here, so whatever stands between two of them is a tag.
    drawn = re.sub(r"<[^<>]*>", lambda tag: _own(tag.group()), drawn)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def _own(tag: str) -> str:
    """A tag with the page's colours and fonts, and without the numbering that every plot begins anew."""
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    return re.sub("#0a0b0[1-5]", lambda color: f"var({_VARIABLES[color.group()]})", tag)
