"""``moe experts bench-retrieval``, without a stack."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import session
from jobs.cli.main import app
from jobs.errors import BadInput
from tests.unit.jobs.cli.conftest import own_logging

ROWS = [
    {"type": "passage", "id": "p1", "domain": "code", "title": "Sorting", "text": "Quicksort picks a pivot."},
    {"type": "passage", "id": "p2", "domain": "law", "title": "", "text": "A lease ends with notice."},
    {
        "type": "question",
        "id": "q1",
        "domain": "code",
        "text": "what does quicksort pick",
        "gold": ["p1"],
        "answerable": True,
        "split": "dev",
    },
    {
        "type": "question",
        "id": "q2",
        "domain": "law",
        "text": "who feeds the cat",
        "gold": [],
        "answerable": False,
        "gap": "[red]removed",
        "split": "dev",
    },
]


@pytest.fixture
def file(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A collection in a folder of its own, and an encoder that needs no model."""
    monkeypatch.setenv("MOE_ENCODER__NAME", "hashing")
    monkeypatch.setenv("MOE_HOME", str(workdir / "home"))
    path = workdir / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    session.settings.cache_clear()
    with own_logging():
        yield path
    session.settings.cache_clear()


def moe(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["experts", "bench-retrieval", *arguments])


def test_every_method_has_a_row(file: Path) -> None:
    done = moe(str(file))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "dev: 1 answerable questions, 1 others, 2 passages of 2 domains"
    assert [line.split()[0] for line in lines[2:8]] == ["global", "oracle", "top1", "top2", "routed", "exhaustive"]
    assert lines[2].split()[1:4] == ["1.000", "[1.000,", "1.000]"]
    assert "100.0%" in lines[2]
    assert lines[8].startswith("routed less global: recall@1 +0.000 [+0.000, +0.000], recall@5 +0.000")
    assert lines[9].startswith("AUROC against 1 of [red]removed: global 1.0")
    assert lines[10] == "the router names the right domain first for 50.0%"


def test_the_figures_are_written_to_a_file(file: Path) -> None:
    out = file.parent / "figures.json"
    done = moe(str(file), "--json", str(out), "--top", "2")
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found["splits"]["dev"]["methods"]["routed"]["recall@2"] == {"value": 1.0, "ci": [1.0, 1.0]}
    assert "recall@2" in done.stdout


def test_the_figures_are_printed_instead_of_the_table(file: Path) -> None:
    done = moe(str(file), "--json", "-")
    assert json.loads(done.stdout)["encoder"] == "hashing"


@pytest.mark.parametrize("place", [".", "nowhere/figures.json"], ids=["a folder", "in no folder"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    file: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("jobs.retrieval_bench.bench")
    done = moe(str(file), "--json", str(file.parent / place))
    assert isinstance(done.exception, BadInput)
    assert "cannot be written" in str(done.exception)


def test_a_bad_file_is_refused(file: Path) -> None:
    file.write_text('{"type": "passage"}\n')
    done = moe(str(file))
    assert isinstance(done.exception, BadInput)
    assert str(done.exception) == f"{file}, line 1: id: Field required"


@pytest.mark.parametrize("top", ["0", "101", "some"])
def test_recall_among_none_or_too_many_is_refused(file: Path, top: str) -> None:
    assert moe(str(file), "--top", top).exit_code == 2
