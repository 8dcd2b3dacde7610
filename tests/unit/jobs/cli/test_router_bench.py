"""``moe router bench``, without a stack."""

import json
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from tests.unit.jobs.cli.conftest import Moe
from tests.unit.jobs.test_router_bench import SIZES, outside, queries, write

KINDS = ("--kind", "centroid", "--kind", "random", "--no-world")
FULL = ("--oos-label", "oos", "--group", "lang")


@pytest.fixture
def bench(moe: Moe, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Moe:
    """An encoder that needs no model, no stack, and labelled queries in the working folder."""
    monkeypatch.setenv("MOE_ENCODER__NAME", "hashing")
    monkeypatch.setenv("MOE_DATABASE_URL", "")
    monkeypatch.setenv("MOE_REDIS_URL", "")
    write(Path("queries.jsonl"), [row for split, n in SIZES.items() for row in queries(split, n) + outside(split, 3)])
    return moe


def test_every_kind_asked_for_has_a_row(bench: Moe) -> None:
    said = bench("router", "bench", "queries.jsonl", *KINDS, *FULL, code=0)

    first, header, centroid, random = said.text.splitlines()
    assert first.startswith("3 labels; 39 queries to train, 21 to calibrate, 21 to test; 1 seed(s); ")
    assert " ".join(header.split()) == ("kind accuracy 95 % macro F1 ECE outside AUROC FPR95 ms a query training s")
    assert centroid.split()[:4] == ["centroid", "1", "1.0000–1.0000", "1"]
    assert random.split()[0] == "random"
    assert said.err.splitlines()[0] == "embedding 81 queries"


def test_the_default_kind_is_marked_compared_and_shown_by_group(bench: Moe) -> None:
    said = bench("router", "bench", "queries.jsonl", "--kind", "ensemble", *KINDS, *FULL, code=0)

    lines = said.text.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["ensemble", "centroid", "random"]
    assert lines[2].startswith("ensemble (default)  ")
    assert lines[5].startswith("ensemble less centroid: +0.0000 (+0.0000 to +0.0000), p 1")
    assert lines[6].startswith("ensemble less random: +0.6667 (")
    assert lines[7].split() == ["group", "queries", "accuracy", "ECE"]
    assert [line.split()[:3] for line in lines[8:]] == [["de", "9", "1"], ["en", "9", "1"]]


def test_what_was_left_out_is_shown(bench: Moe) -> None:
    said = bench(
        "router", "bench", "queries.jsonl", "--kind", "centroid", "--no-world", *FULL, "--leave-one-label-out", code=0
    )

    assert [line.split() for line in said.text.splitlines()[-2:]] == [
        ["a", "label", "left", "out:", "kind", "mean", "AUROC", "mean", "FPR95"],
        ["centroid", "1", "0"],
    ]


def test_the_figures_are_printed_instead_of_the_table(bench: Moe) -> None:
    found = bench("router", "bench", "queries.jsonl", *KINDS, *FULL, "--seeds", "2", "--shots", "5", "--json", "-").json

    assert (found["data"]["file"], found["data"]["shots"], found["seeds"]) == ("queries.jsonl", 5, 2)
    assert list(found["results"]) == ["centroid", "random"]
    assert found["results"]["centroid"]["accuracy"] == 1.0


def test_the_figures_are_written_to_a_file(bench: Moe) -> None:
    said = bench("router", "bench", "queries.jsonl", *KINDS, "--json", "figures.json", *FULL, code=0)

    assert json.loads(Path("figures.json").read_text())["results"]["centroid"]["accuracy"] == 1.0
    assert said.text.startswith("3 labels; ")


@pytest.mark.parametrize(
    ("kinds", "there"),
    [(KINDS[:2], False), (("--kind", "ensemble"), True)],
    ids=["a new one, without the default", "one that is there, with it"],
)
def test_the_report_is_written_to_a_folder(bench: Moe, kinds: tuple[str, ...], there: bool) -> None:
    if there:
        Path("new/report").mkdir(parents=True)
    said = bench("router", "bench", "queries.jsonl", *kinds, "--no-world", *FULL, "--out", "new/report", code=0)

    assert said.err.splitlines()[-1] == "written to new/report/report.html"
    found = json.loads(Path("new/report/report.json").read_text())
    page = BeautifulSoup(Path("new/report/report.html").read_text(), "html.parser")
    text = page.get_text(" ")
    assert [kind for kind in found["results"] if kind != "default"] == [kinds[1]]
    assert kinds[1] in text
    assert "queries.jsonl" in text


def test_standard_input_is_read(bench: Moe) -> None:
    data = Path("queries.jsonl").read_bytes()

    found = bench("router", "bench", "-", *KINDS, *FULL, "--json", "-", stdin=data).json

    assert (found["data"]["file"], found["data"]["rows"]) == ("-", 81)


def test_columns_and_splits_may_have_any_name(bench: Moe) -> None:
    names = {"text": "q", "label": "intent", "split": "part", "lang": "lang"}
    parts = {"train": "a", "dev": "b", "test": "c"}
    rows = [json.loads(line) for line in Path("queries.jsonl").read_text().splitlines()]
    write(Path("other.jsonl"), [{names[k]: parts.get(v, v) for k, v in row.items()} for row in rows])
    columns = ("--text", "q", "--label", "intent", "--split", "part")
    splits = ("--train-split", "a", "--dev-split", "b", "--test-split", "c")

    found = bench("router", "bench", "other.jsonl", *KINDS, *FULL, *columns, *splits, "--json", "-").json

    assert {split: found["data"][split] for split in parts} == {"train": 39, "dev": 21, "test": 21}


def test_what_a_file_holds_cannot_steer_a_terminal(bench: Moe) -> None:
    rows: list[dict[str, Any]] = [json.loads(line) for line in Path("queries.jsonl").read_text().splitlines()]
    write(Path("queries.jsonl"), [row | {"lang": "\x1b[2J[red]x[/]"} for row in rows])

    shown = bench("router", "bench", "queries.jsonl", "--kind", "ensemble", "--no-world", *FULL, code=0).text

    assert "\x1b" not in shown
    assert "[red]x[/]" in shown


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("missing.jsonl",), "missing.jsonl: No such file or directory"),
        ((".",), ". is a folder; give a file of queries"),
        (("queries.jsonl", "--kind", "psychic"), "unknown router kind 'psychic'; there are: centroid, ensemble"),
        (("queries.jsonl", "--text", "q"), "queries.jsonl, line 1: there is no field 'q'; there are: text, label"),
        (("queries.jsonl", "--split", "part"), "queries.jsonl, line 1: there is no field 'part'; there are: text"),
        (
            ("queries.jsonl", "--test-split", "x"),
            "queries.jsonl: no query is of split 'x'; there are: dev, test, train",
        ),
        (("one.jsonl",), "the training split has 1 labels; two are the least there is to choose between"),
    ],
)
def test_what_cannot_be_measured_ends_in_code_2(bench: Moe, arguments: tuple[str, ...], complaint: str) -> None:
    write(Path("one.jsonl"), [row for split in SIZES for row in queries(split, 3, ["alpha"])])

    said = bench("router", "bench", *arguments, "--no-world", code=2)

    assert said.out == b""
    assert said.err.splitlines()[-1].startswith(f"error: {complaint}")


def test_an_error_is_json_where_the_figures_would_be(bench: Moe) -> None:
    said = bench("router", "bench", "missing.jsonl", "--json", "-", code=2)

    assert json.loads(said.err) == {
        "error": {"code": "bad_input", "message": "missing.jsonl: No such file or directory"}
    }


@pytest.mark.parametrize(
    "arguments", [(), ("queries.jsonl", "--shots", "1"), ("queries.jsonl", "--seeds", "0"), ("queries.jsonl", "more")]
)
def test_wrong_arguments_end_in_code_2(bench: Moe, arguments: tuple[str, ...]) -> None:
    bench("router", "bench", *arguments, code=2)


@pytest.mark.parametrize(
    ("option", "place"),
    [("--json", "."), ("--json", "nowhere/figures.json"), ("--out", "queries.jsonl"), ("--out", "queries.jsonl/below")],
    ids=["a folder", "in no folder", "a file", "below a file"],
)
def test_a_place_that_cannot_be_written_is_told(bench: Moe, option: str, place: str) -> None:
    said = bench("router", "bench", "queries.jsonl", "--kind", "random", "--no-world", *FULL, option, place)

    assert said.code in (1, 2)
    assert f"{place}: " in said.err.splitlines()[-1]


def test_a_file_whose_name_is_no_utf8_is_measured(bench: Moe) -> None:
    name = "q\udcff.jsonl"
    Path(name).write_bytes(Path("queries.jsonl").read_bytes())

    found = bench("router", "bench", name, "--kind", "random", "--no-world", *FULL, "--json", "-").json

    assert found["data"]["file"].startswith("q")
