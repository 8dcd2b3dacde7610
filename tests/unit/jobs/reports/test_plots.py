"""Plots: what is drawn, what is not, and that each can stand in a page."""

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from jobs.reports import plots
from tests.unit.jobs.reports.pages import soup, texts
from tests.unit.jobs.reports.samples import findings

RESULT = findings(kinds=("ensemble",))["results"]["ensemble"]
THRESHOLDS = {"answered": "answered", "accuracy": "accuracy among them"}
NASTY = ("<script>alert(1)</script>", "$\\frac{1}$", "a & b", 'x" onload="y', "--><b>", "fill: #0a0b01", "医療")


def curve(points: Any) -> str:
    return plots.curves(points, THRESHOLDS, title="Threshold", x="threshold [0–1]", y="queries [%]", key="k")


def histogram(found: Any) -> str:
    return plots.distributions(found, {"right": "right", "wrong": "wrong"}, title="Spread", x="confidence", key="k")


def identity(n: int, wrong: dict[tuple[int, int], int]) -> list[list[int]]:
    return [[10 if true == chosen else wrong.get((true, chosen), 0) for chosen in range(n)] for true in range(n)]


def opacities(svg: str) -> list[float]:
    return [float(value) for value in re.findall(r"fill: var\(--one\); opacity: ([\d.]+)", svg)]


def drawn(which: str) -> str:
    """One plot of every kind."""
    match which:
        case "accuracies":
            return plots.accuracies({"knn": {"accuracy": 0.9, "ci": [0.88, 0.92]}}, key="k")
        case "confusion":
            return plots.confusion(["a", "b"], [[3, 1], [0, 2]], key="k")
        case "many labels":
            return plots.confusion([f"l{n}" for n in range(150)], identity(150, {(3, 4): 2}), key="k")
        case "nasty labels":
            return plots.confusion(NASTY, identity(len(NASTY), {(0, 1): 3}), key="k")
        case "reliability":
            return plots.reliability(RESULT["reliability"], RESULT["ece"], key="k")
        case "curves":
            return curve(RESULT["threshold_curve"])
        case _:
            return histogram(RESULT["confidence_histogram"])


ALL = ("accuracies", "confusion", "many labels", "nasty labels", "reliability", "curves", "distributions")


@pytest.mark.parametrize("which", ALL)
def test_every_plot_is_one_svg_in_the_colours_of_the_page(which: str) -> None:
    svg = drawn(which)
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    styles = " ".join(each.get("style", "") for each in root.iter())
    assert re.findall(r"#[0-9a-f]{3,6}", styles) == []
    assert set(re.findall(r"var\((.*?)\)", styles)) <= {"--ink", "--faint", "--one", "--two", "--on-one"}
    assert not any(each.tag.endswith(("}style", "}script", "}image", "}metadata")) for each in root.iter())
    assert root.get("aria-label") in texts(svg)


@pytest.mark.parametrize("which", ALL)
def test_every_axis_says_what_it_shows_and_in_which_unit(which: str) -> None:
    svg = drawn(which)
    expected = {
        "Accuracy of each router": ["accuracy with 95 % interval [%]"],
        "Confusion matrix": ["chosen label [queries]", "true label [queries]"],
        "Reliability": ["accuracy [%]", "queries [n]", "confidence [%]"],
        "Threshold": ["threshold [0–1]", "queries [%]", "answered", "accuracy among them"],
        "Spread": ["confidence", "share of these queries [%]"],
    }
    title = str(soup(svg).svg["aria-label"])  # type: ignore[index]
    wanted = next(axes for begin, axes in expected.items() if title.startswith(begin))
    assert [axis for axis in wanted if axis not in texts(svg)] == []


def test_names_are_written_as_they_are_and_never_run() -> None:
    svg = drawn("nasty labels")
    written = texts(svg)
    assert [label for label in NASTY[1:] if written.count(label) != 2] == []
    assert written.count("<script>aler…1)</script>") == 2
    assert "<script" not in svg
    assert "<b>" not in svg
    assert soup(svg).select("[onload]") == []


def test_two_plots_of_one_page_share_no_id() -> None:
    ids = [
        {each["id"] for each in soup(curve_with_key).find_all(id=True)}
        for curve_with_key in (
            plots.reliability(RESULT["reliability"], 0.1, key="one"),
            plots.reliability(RESULT["reliability"], 0.1, key="two"),
        )
    ]
    assert ids[0]
    assert ids[0] & ids[1] == set()


def test_what_is_referred_to_is_there() -> None:
    svg = drawn("reliability")
    ids = {each["id"] for each in soup(svg).find_all(id=True)}
    referred = re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)
    assert referred
    assert set(referred) <= ids


def test_the_same_plot_comes_out_the_same() -> None:
    assert plots.confusion(["a", "b"], [[3, 1], [0, 2]], key="k") == drawn("confusion")


def test_a_cell_holds_its_queries_and_is_coloured_by_its_share_of_the_row() -> None:
    svg = drawn("confusion")
    assert opacities(svg) == [0.77, 0.31]  # 0.08 + 0.92 × share; the third is whole and says no opacity
    assert svg.count("fill: var(--one)") == 3
    assert [text for text in texts(svg) if text.isdigit()] == ["3", "1", "2"]


def test_up_to_thirty_labels_are_all_drawn() -> None:
    labels = [f"label {n}" for n in range(30)]
    written = texts(plots.confusion(labels, identity(30, {}), key="k"))
    assert [label for label in labels if written.count(label) != 2] == []
    assert "Confusion matrix" in written


def test_of_more_labels_the_most_confused_are_drawn_partners_side_by_side() -> None:
    labels = [f"l{n}" for n in range(31)]
    svg = plots.confusion(labels, identity(31, {(5, 9): 7, (30, 2): 3, (9, 5): 1}), key="k")
    drawn = [text for text in texts(svg) if text.startswith("l")]
    assert drawn == ["l5", "l9", "l30", "l2"] * 2
    assert "Confusion matrix: the 4 most confused of 31 labels" in texts(svg)
    assert sorted(text for text in texts(svg) if text.isdigit()) == ["1", "10", "10", "10", "10", "3", "7"]


def test_no_more_than_twenty_of_many_labels_are_drawn() -> None:
    labels = [f"l{n}" for n in range(150)]
    svg = plots.confusion(labels, [[1] * 150] * 150, key="k")
    assert len({text for text in texts(svg) if text.startswith("l")}) == 20


def test_of_many_labels_without_a_confusion_the_first_are_drawn() -> None:
    svg = plots.confusion([f"l{n}" for n in range(40)], identity(40, {}), key="k")
    assert "Confusion matrix: the 20 first of 40 labels" in texts(svg)
    assert [text for text in texts(svg) if text.startswith("l")] == [f"l{n}" for n in range(20)] * 2


def test_bins_without_queries_are_no_points() -> None:
    bins: list[dict[str, Any]] = [
        {"from": 0.0, "to": 0.5, "n": 0, "confidence": None, "accuracy": None},
        {"from": 0.5, "to": 1.0, "n": 8, "confidence": 0.8, "accuracy": 0.75},
    ]
    svg = plots.reliability(bins, 0.05, key="k")
    assert "Reliability (calibration error 0.0500)" in texts(svg)
    assert "Reliability" in texts(plots.reliability(bins, None, key="k"))
    assert plots.reliability(bins[:1], 0.05, key="k") == ""


def test_a_histogram_shows_both_parts_with_their_sizes() -> None:
    svg = histogram({"edges": [0, 0.5, 1], "right": [100, 900], "wrong": [3, 1]})
    assert {"right (n = 1,000)", "wrong (n = 4)"} <= set(texts(svg))
    only = histogram({"edges": [0, 0.5, 1], "right": [1, 2], "wrong": [0, 0]})
    assert [text for text in texts(only) if "n =" in text] == ["right (n = 3)"]


@pytest.mark.parametrize(
    "empty",
    [
        lambda: plots.accuracies({}, key="k"),
        lambda: plots.accuracies({"knn": {"accuracy": None}}, key="k"),
        lambda: plots.confusion([], [], key="k"),
        lambda: plots.confusion(["a"], [[0]], key="k"),
        lambda: plots.confusion(["a", "b"], [[None, None], [None, None]], key="k"),
        lambda: plots.confusion(["a", "b"], [[1, 2]], key="k"),
        lambda: plots.confusion(["a"], [[1, 2]], key="k"),
        lambda: plots.reliability([], None, key="k"),
        lambda: curve([]),
        lambda: curve([{"threshold": None, "answered": 1.0, "accuracy": 1.0}]),
        lambda: curve([{"threshold": 0.5, "answered": None}]),
        lambda: histogram({}),
        lambda: histogram({"edges": [0, 1], "right": None, "wrong": [0]}),
        lambda: histogram({"edges": [0, 1], "right": [1, 2]}),
    ],
)
def test_without_numbers_there_is_no_plot(empty: Callable[[], str]) -> None:
    assert empty() == ""


def test_a_curve_with_gaps_is_drawn() -> None:
    svg = curve([{"threshold": 1.0, "answered": 0.0, "accuracy": None}, {"threshold": 0.0, "answered": 1.0}])
    assert "Threshold" in texts(svg)


def test_an_empty_row_of_the_matrix_is_no_division_by_zero() -> None:
    svg = plots.confusion(["a", "b"], [[0, 0], [None, 2]], key="k")
    assert [text for text in texts(svg) if text.isdigit()] == ["2"]
