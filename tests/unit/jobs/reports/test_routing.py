"""The page of a routing benchmark: complete, sound, safe, and on its own."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import BadInput, Failed
from jobs.reports.routing import write_routing_report
from tests.architecture.sources import ROOT
from tests.unit.jobs.reports.pages import default_part, faults, headings, plot_titles, soup, table, texts
from tests.unit.jobs.reports.samples import DOMAINS, findings

SCRIPT = "<script>alert('x')</script>"
FOUND = findings(kinds=("ensemble", "knn"))
PLOTS = [
    "Accuracy of each router",
    "Confusion matrix",
    "Reliability (calibration error {ece:.4f})",
    "Confidence of right and wrong choices",
    "Threshold on the confidence",
    "Threshold on the coverage",
    "Coverage of queries inside and outside",
]


def render(found: Any, folder: Path) -> str:
    write_routing_report(found, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(FOUND, tmp_path_factory.mktemp("report"))


def numbers(found: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of the findings with the way to it."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(found, list):
        for place, value in enumerate(found):
            yield from numbers(value, f"{path}/{place}")
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield path, found


def written_forms(value: float) -> set[str]:
    """The ways of writing a number from which it can be read again: a count exactly, a measure to four digits."""
    forms = {"< 0.0001"} if 0 < value < 0.0001 else set()
    for form, read in (
        (f"{value:,.0f}", round(value)),
        (f"{value:,.6g}", value),
        (f"{value:.2%}", round(100 * value, 2) / 100),
        (f"{100 * value:+.2f}", round(100 * value, 2) / 100),
        *((f"{value:,.{digits}f}", round(value, digits)) for digits in (1, 2, 3, 4)),
    ):
        if abs(read - value) <= max(5.1e-5, 5e-4 * abs(value)):
            forms.add(form)
    return forms


def test_every_number_stands_in_the_page(page: str) -> None:
    said = {word.strip("[],") for word in soup(page).get_text(" ").replace("< ", "<").split()}
    absent = [
        path for path, value in numbers(FOUND) if not {form.replace(" ", "") for form in written_forms(value)} & said
    ]
    assert absent == []


def test_the_page_says_what_was_measured_on_what(page: str) -> None:
    terms = {each.get_text(): each.find_next("dd").get_text() for each in soup(page).find_all("dt")}  # type: ignore[union-attr]
    assert terms == {
        "File": "data/domains8.jsonl",
        "Rows": "7,687",
        "Train · dev · test": "4,937 · 1,800 · 470",
        "Labels": "8",
        "Label of what lies outside": "oos",
        "Groups by": "source",
        "Training queries per label": "all",
        "Encoder": "all-MiniLM-L6-v2",
        "Seeds": "5",
        "Time taken": "412.7 s",
    }
    accuracy, (low, high) = (FOUND["results"]["ensemble"][key] for key in ("accuracy", "ci"))
    assert (
        f"The default router, ensemble, chose the right label for {accuracy:.2%} of the test queries"
        f" (95 % interval [{low:.2%}, {high:.2%}])." in soup(page).get_text()
    )


def test_the_routers_stand_side_by_side_with_the_default_marked(page: str) -> None:
    rows = table(page, "Side by side")
    assert [row[0] for row in rows] == ["router", "ensemble (default)", "knn"]
    for kind, row in zip(("ensemble", "knn"), rows[1:], strict=True):
        result = FOUND["results"][kind]
        assert row[1:] == [
            f"{result['accuracy']:.2%}",
            f"[{result['ci'][0]:.2%}, {result['ci'][1]:.2%}]",
            f"{result['macro_f1']:.4f}",
            f"{result['ece']:.4f}",
            f"{result['oos_auroc']:.4f}",
            f"{result['oos_fpr95']:.2%}",
            f"{result['latency_ms']:.3f}",
            f"{result['train_seconds']:.2f}",
        ]
    marked = [row.get_text() for row in soup(page).find_all("tr", class_="marked")]
    assert len(marked) == 1
    assert "ensemble (default)" in marked[0]


def test_differences_and_targets_have_their_tables(page: str) -> None:
    pair = FOUND["paired"][0]
    low, high = pair["ci"]
    assert table(page, "Paired differences")[1] == [
        "ensemble",
        "knn",
        f"{100 * pair['difference']:+.2f}",
        f"[{100 * low:+.2f}, {100 * high:+.2f}]",
        "< 0.0001" if pair["p"] < 0.0001 else f"{pair['p']:.4f}",
    ]
    assert [row[2:] for row in table(page, "Targets")[1:]] == [
        ["0.95", "✗ not met"],
        ["300", "✓ met"],
        ["0.7", "not measured"],
    ]


def test_the_tables_of_a_router_hold_its_figures(page: str) -> None:
    result = FOUND["results"]["ensemble"]
    groups = {row[0]: row[1:] for row in table(page, "By source")[1:]}
    assert groups == {
        group: [str(each["n"]), f"{each['accuracy']:.2%}", f"{each['ece']:.4f}"]
        for group, each in result["groups"].items()
    }
    labels = table(page, "By label")[1:]
    assert {row[0]: row[1:] for row in labels} == {
        label: [str(each["n"]), f"{each['precision']:.2%}", f"{each['recall']:.2%}", f"{each['f1']:.4f}"]
        for label, each in result["per_label"].items()
    }
    assert [row[4] for row in labels] == sorted(row[4] for row in labels)
    assert table(page, "Risk limits")[1:3] == [
        ["1.00%", "0.83%", "[0.60%, 1.10%]", "3.00"],
        ["2.00%", "1.66%", "[1.20%, 2.20%]", "2.00"],
    ]
    assert [row[1] for row in table(page, "Balance of the load")[1:]] == [
        "0.9870",
        "0.1432",
        "1.25",
        f"{result['accuracy']:.2%}",
        f"{result['accuracy'] - 0.0051:.2%}",
        "0.0921",
    ]


def test_the_numbers_behind_the_plots_can_be_read(page: str) -> None:
    result = FOUND["results"]["ensemble"]
    assert table(page, "Reliability")[15] == [
        "0.9333",
        "1.0000",
        str(result["reliability"][14]["n"]),
        f"{result['reliability'][14]['confidence']:.4f}",
        f"{result['reliability'][14]['accuracy']:.2%}",
    ]
    assert table(page, "Threshold on the confidence")[1] == ["0.0000", "100.00%", f"{result['accuracy']:.2%}"]
    assert table(page, "Threshold on the confidence")[-1][2] == "–"
    assert table(page, "Threshold on the coverage")[1] == ["0.0000", "100.00%", "0.00%"]
    histogram = result["coverage_histogram"]
    assert table(page, "Coverage of queries inside and outside")[20] == [
        "0.9500",
        "1.0000",
        str(histogram["inside"][19]),
        str(histogram["outside"][19]),
    ]


def test_labels_left_out_are_shown_by_router_and_on_average(page: str) -> None:
    left_out = FOUND["leave_one_label_out"]
    assert table(page, "Mean of all labels")[1:] == [
        [kind, f"{each['auroc']:.4f}", f"{each['fpr95']:.2%}"] for kind, each in left_out["mean"].items()
    ]
    assert table(page, "FPR95 by label") == [
        ["label left out", "ensemble", "knn"],
        *([label, *(f"{each[kind]['fpr95']:.2%}" for kind in each)] for label, each in left_out["labels"].items()),
    ]


def test_confused_pairs_come_with_their_examples(page: str) -> None:
    pairs = [each.get_text(" ", strip=True) for each in default_part(page).select("ol.pairs > li")]
    confused = FOUND["results"]["ensemble"]["confused"]
    assert pairs == [
        f"{pair['true']} taken for {pair['chosen']} : {pair['n']} {' '.join(pair['examples'])}" for pair in confused
    ]


def test_the_default_router_is_open_and_the_others_are_folded(page: str) -> None:
    ece = FOUND["results"]["ensemble"]["ece"]
    assert plot_titles(page) == [title.format(ece=ece) for title in PLOTS]
    others = soup(page).select("details.router")
    assert [each.find("summary").get_text() for each in others] == ["knn"]  # type: ignore[union-attr]
    assert len(others[0].find_all("svg")) == 6
    assert not others[0].has_attr("open")


def test_the_page_is_sound_html(page: str) -> None:
    assert page.startswith("<!DOCTYPE html>\n")
    assert faults(page) == []


@pytest.mark.parametrize("page", ["<p><b></p>", "<p>", "<i id='a'></i><i id='a'></i>", "<p class=a class=b></p>"])
def test_unsound_html_would_be_found(page: str) -> None:
    assert faults(page) != []


def test_the_page_asks_for_nothing_from_elsewhere(page: str) -> None:
    whole = soup(page)
    assert whole.find_all(["script", "link", "iframe", "img", "image", "object", "embed", "base", "form"]) == []
    assert [tag.name for tag in whole.find_all() if any(name.startswith("on") for name in tag.attrs)] == []
    links = [str(tag[name]) for tag in whole.find_all() for name in ("href", "xlink:href", "src") if tag.has_attr(name)]
    assert links
    assert [link for link in links if not link.startswith("#")] == []
    assert [address for address in re.findall(r"url\((.)", page) if address != "#"] == []
    assert "@import" not in page
    policy = whole.find("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert policy is not None
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_link_leads_to_a_part_of_the_page(page: str) -> None:
    whole = soup(page)
    assert [link["href"] for link in whole.select("nav a") if whole.find(id=str(link["href"])[1:]) is None] == []


def test_light_and_dark_give_every_colour_a_value(page: str) -> None:
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    light, dark = re.findall(r":root \{(.*?)\}", page)
    assert "prefers-color-scheme: dark" in page
    assert set(re.findall(r"(--[\w-]+):", light)) == set(re.findall(r"(--[\w-]+):", dark))
    assert used == set(re.findall(r"(--[\w-]+):", light))


def test_the_same_findings_make_the_same_page(page: str, tmp_path: Path) -> None:
    assert render(json.loads(json.dumps(FOUND)), tmp_path) == page


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Names and texts that are markup, formulas, much too long, or no text at all."""
    labels = (SCRIPT, "$\\frac{1}{$", "x" * 100_000, 'quote" onload="alert(1)', "a\u202eb\x00c\ud800", "{{ 7 * 7 }}")
    found = findings(kinds=("ensemble",), labels=labels)
    result = found["results"].pop("ensemble")
    result["confused"][0]["examples"] = [SCRIPT, "</li><b>bold</b>", "y" * 100_000, "never shown"]
    result["groups"] = {SCRIPT: {"n": 3, "accuracy": 0.5, "ece": 0.1}}
    for named in (found["leave_one_label_out"]["mean"], *found["leave_one_label_out"]["labels"].values()):
        named[SCRIPT] = named.pop("ensemble")
    found |= {"results": {SCRIPT: result}, "default": SCRIPT, "encoder": SCRIPT}
    found["data"] |= {"file": f"/tmp/{SCRIPT}.jsonl", "oos_label": SCRIPT, "group_field": SCRIPT}
    found["paired"] = [{"a": SCRIPT, "b": SCRIPT, "difference": 0.0, "ci": [0, 0], "p": 1}]
    found["targets"] = [{"name": SCRIPT, "value": SCRIPT, "target": SCRIPT, "met": True}]
    return render(found, tmp_path_factory.mktemp("hostile"))


def test_markup_in_names_and_texts_is_shown_and_never_run(hostile: str) -> None:
    whole = soup(hostile)
    assert faults(hostile) == []
    assert "<script" not in hostile
    assert whole.find_all(["script"]) == []
    assert [tag.name for tag in whole.find_all() if "onload" in tag.attrs] == []
    assert [b.get_text() for b in whole.find_all("b") if b.get_text() == "bold"] == []
    title = whole.find("title")
    assert title is not None
    assert title.get_text() == f"Routing report: /tmp/{SCRIPT}.jsonl"
    assert SCRIPT in headings(hostile)[2:] or f"{SCRIPT}, the default router" in headings(hostile)
    assert f"By {SCRIPT}" in headings(hostile)
    assert "{{ 7 * 7 }}" in whole.get_text()
    shortened = "<script>aler…')</script>"
    assert [shortened in texts(svg) for svg in whole.find_all("svg")][:2] == [True, True]


def test_long_names_and_texts_are_cut(hostile: str) -> None:
    said = soup(hostile).get_text()
    assert "x" * 30 + "…" + "x" * 29 in said
    assert "x" * 61 not in hostile
    assert "y" * 239 + "…" in said
    assert "never shown" not in said


def test_what_is_no_text_does_not_spoil_the_page(hostile: str) -> None:
    assert "a\ufffdb\ufffdc\ufffd" in soup(hostile).get_text()
    assert not re.search("[\x00\u202e\ud800]", hostile)


def nothing(found: Any) -> Any:
    """The same findings with every measure unknown."""
    if isinstance(found, dict):
        return {key: nothing(value) for key, value in found.items()}
    if isinstance(found, list):
        return [nothing(value) for value in found]
    return None if isinstance(found, int | float) else found


def test_measures_that_are_null_are_dashes(tmp_path: Path) -> None:
    page = render(nothing(findings(kinds=("ensemble", "random"))), tmp_path)
    assert faults(page) == []
    assert table(page, "Side by side")[1:] == [["ensemble (default)", *["–"] * 8], ["random", *["–"] * 8]]
    assert table(page, "By label")[1] == [DOMAINS[0], "–", "–", "–", "–"]
    assert table(page, "Paired differences")[1] == ["ensemble", "random", "–", "–", "–"]
    assert plot_titles(page) == []
    assert "The accuracy of the default router, ensemble, could not be measured." in soup(page).get_text()
    assert not {"nan", "None", "null"} & set(re.findall(r"\w+", soup(page).get_text()))


def test_any_key_of_a_result_may_be_absent_or_null(tmp_path: Path) -> None:
    """One router for each key that is missing; all of them in one page."""
    whole = findings(kinds=("ensemble",))["results"]["ensemble"]
    # Without these the many plots of this page would only cost time.
    costly = ("confusion", "reliability", "coverage_histogram", "confidence_histogram")
    small = {**whole, **dict.fromkeys(costly)}
    absent = {f"no {key}": {k: v for k, v in small.items() if k != key} for key in whole}
    page = render({"results": {**absent, "empty": {}, "null": None}, "default": "no ci"}, tmp_path)
    assert faults(page) == []
    assert [row[0] for row in table(page, "Side by side")[1:]] == [
        *(f"{kind} (default)" if kind == "no ci" else kind for kind in absent),
        "empty",
        "null",
    ]
    assert table(page, "Side by side")[-1][1:] == ["–"] * 8


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"results": {}, "default": "ensemble"},
        {"results": None, "data": None, "paired": None, "targets": None, "leave_one_label_out": None},
        {"results": {}, "leave_one_label_out": {"labels": None, "mean": None}},
    ],
)
def test_a_benchmark_that_measured_nothing_says_so(found: Any, tmp_path: Path) -> None:
    page = render(found, tmp_path)
    assert faults(page) == []
    assert "Nothing was measured." in soup(page).get_text()
    assert headings(page) == ["What was measured"]


def test_without_the_default_the_first_router_stands_for_it(tmp_path: Path) -> None:
    page = render({"results": {"knn": {"accuracy": 0.5}, "random": {}}, "default": "ensemble"}, tmp_path)
    assert "knn, the default router" in headings(page)


def test_parts_that_were_not_measured_have_no_heading(tmp_path: Path) -> None:
    page = render({"results": {"knn": {"accuracy": 0.5}}, "default": "knn"}, tmp_path)
    assert headings(page) == ["What was measured", "Routers compared", "Side by side", "knn, the default router"]


def test_a_single_label_makes_a_page(tmp_path: Path) -> None:
    page = render(findings(kinds=("ensemble",), labels=("only",)), tmp_path)
    assert faults(page) == []
    assert [row[0] for row in table(page, "By label")] == ["label", "only"]
    assert "Confusion matrix" in plot_titles(page)


def test_of_many_labels_the_plot_says_what_it_leaves_out_and_tables_are_folded(tmp_path: Path) -> None:
    labels = tuple(f"intent {n}" for n in range(150))
    page = render(findings(kinds=("ensemble",), labels=labels, per_label=12), tmp_path)
    assert faults(page) == []
    assert "Confusion matrix: the 20 most confused of 150 labels" in plot_titles(page)
    assert sorted(row[0] for row in table(page, "By label")[1:]) == sorted(labels)
    assert [row[0] for row in table(page, "AUROC by label")[1:]] == list(labels)
    folded = [each.get_text() for each in soup(page).select("section.table > details > summary")]
    assert folded == ["150 rows"] * 3
    assert len(table(page, "Mean of all labels")) == 2


def test_pairs_beyond_the_thirtieth_are_counted(tmp_path: Path) -> None:
    pairs = [{"true": f"t{n}", "chosen": f"c{n}", "n": 40 - n} for n in range(37)]
    page = render({"results": {"knn": {"confused": pairs}}, "default": "knn"}, tmp_path)
    assert len(soup(page).select("ol.pairs > li")) == 30
    assert "7 more pairs are not shown." in soup(page).get_text()


def test_a_page_that_is_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("x" * 5_000_000)
    assert render({}, tmp_path).endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("target", ["missing/report.html", "folder"])
def test_a_place_that_cannot_be_written_is_an_error_and_leaves_nothing(target: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Failed, match=f"{target} could not be written: "):
        write_routing_report({}, tmp_path / target)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_the_packages_for_reports_it_says_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "jobs.reports.plots", raising=False)
    monkeypatch.delattr("jobs.reports.plots", raising=False)
    with pytest.raises(BadInput, match=rf"^reports need the package {package}\b.*; install adaptive-moe\[reports\]$"):
        write_routing_report({}, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_reports_load_no_models_and_only_what_a_page_needs() -> None:
    program = (
        "import json, sys; import jobs.reports.routing; before = set(sys.modules)\n"
        "import jobs.reports.plots; print(json.dumps([sorted(before), sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert not {"matplotlib", "jinja2", "numpy"} & set(before)
    assert not {"torch", "sklearn", "transformers", "matplotlib.pyplot"} & set(after)
