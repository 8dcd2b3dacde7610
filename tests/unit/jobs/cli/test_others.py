"""``moe experts``, ``gaps``, ``feedback``, ``status``, ``db`` and the roles, as far as they need no workers."""

import json
from pathlib import Path

import pytest

from jobs.submit import BatchOptions, submit_batch
from storage import migrate
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.jobs.endings import finish, put_decision
from tests.unit.jobs.lines import joined, rows, short
from worker.roles import ROLES
from worker.runtime import Runtime


def test_experts_are_listed(moe: Moe, client: Runtime) -> None:
    found = moe("experts", "list", "--json").json
    assert [expert["name"] for expert in found] == ["alpha", "beta", "gamma"]
    assert {frozenset(expert) for expert in found} == {
        frozenset(
            {
                "name",
                "title",
                "parent",
                "serving",
                "version",
                "engine",
                "knowledge",
                "documents",
                "passages",
                "exemplars",
            }
        )
    }
    assert [line.split()[0] for line in moe("experts", "list", code=0).text.splitlines()] == [
        "name",
        "alpha",
        "beta",
        "gamma",
    ]


def test_an_expert_is_shown(moe: Moe, client: Runtime) -> None:
    found = moe("experts", "show", "alpha", "--json").json
    assert (found["name"], found["card"]["keywords"], found["engine"]) == ("alpha", ["alpha"], "echo")
    shown = moe("experts", "show", "alpha", code=0).text
    assert shown.startswith("Alpha (alpha, version 1, echo engine)\nAnswers everything about alpha.\n")


@pytest.mark.parametrize("arguments", [("show", "delta"), ("docs", "list", "delta"), ("docs", "remove", "delta", "x")])
def test_an_unknown_expert_ends_in_code_2(moe: Moe, client: Runtime, arguments: tuple[str, ...]) -> None:
    said = moe("experts", *arguments, "--json", code=2)
    assert json.loads(said.err) == {
        "error": {"code": "not_found", "message": "no expert 'delta'; there are: alpha, beta, gamma"}
    }


def test_documents_are_added_listed_and_removed(moe: Moe, client: Runtime, workdir: Path) -> None:
    Path("snow.md").write_text("# All of snow\n\nIt is white.")
    added = moe("experts", "docs", "add", "alpha", "snow.md", "--no-wait", "--json").json
    assert (added["expert"], added["documents"]) == ("alpha", ["snow"])
    assert rows(client.engine, "SELECT id, kind, state FROM job") == [(added["job"], "refresh", "queued")]
    [listed] = moe("experts", "docs", "list", "alpha", "--json").json
    assert (listed["name"], listed["title"], listed["characters"]) == ("snow", "All of snow", 12)
    assert "snow  All of snow          12" in moe("experts", "docs", "list", "alpha", code=0).text
    removed = moe("experts", "docs", "remove", "alpha", "snow", "--no-wait", "--json").json
    assert removed["removed"] == ["snow"]
    assert moe("experts", "docs", "list", "alpha", "--json").json == []
    assert "alpha has no document snow" in moe("experts", "docs", "remove", "alpha", "snow", code=2).err


def test_a_folder_that_is_no_catalogue_ends_in_code_2(moe: Moe, client: Runtime, workdir: Path) -> None:
    assert "missing is not a folder" in moe("experts", "load", "missing", code=2).err
    Path("empty").mkdir()
    assert "empty holds no expert" in moe("experts", "load", "empty", "--json", code=2).err
    assert rows(client.engine, "SELECT count(*) FROM job") == [(0,)]


def test_gaps_are_listed_without_what_steers_a_terminal(moe: Moe, client: Runtime, workdir: Path) -> None:
    Path("batch.jsonl").write_bytes(joined(short("a\x1b[31m", "Who \x1b[2J [won]?"), short("b")))
    run = submit_batch(client, "batch.jsonl", BatchOptions())
    put_decision(client, run.id, 0, coverage=0.1234567, in_scope=False)
    put_decision(client, run.id, 1, coverage=0.9, in_scope=True)
    assert moe("gaps", "list", "--json").json == [
        {
            "run": run.public_id,
            "custom_id": "a\x1b[31m",
            "text": "Who \x1b[2J [won]?",
            "coverage": 0.1235,
            "nearest": "alpha",
        }
    ]
    shown = moe("gaps", "list", "--run", run.public_id, code=0).text
    assert "\x1b" not in shown
    assert "[won]?" in shown
    assert "\\[" not in shown
    assert json.loads(moe("gaps", "list", "--run", "nobody", "--json", code=2).err)["error"]["code"] == "not_found"


def test_an_answer_is_judged(moe: Moe, client: Runtime, workdir: Path) -> None:
    Path("batch.jsonl").write_bytes(joined(short("a"), short("b")))
    run = finish(client, submit_batch(client, "batch.jsonl", BatchOptions()).id, failing={1}).public_id
    assert moe("feedback", run, "a", "--positive", "--json").json == {"run": run, "custom_id": "a", "expert": "alpha"}
    assert moe("feedback", run, "a", "--expert", "beta", code=0).text == "noted for alpha\n"
    assert rows(client.engine, "SELECT positive, correct_expert, correct_answer FROM feedback ORDER BY id") == [
        (True, None, None),
        (None, "beta", None),
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("a",), "say --positive or --negative, the right --expert, or the right --answer"),
        (("a", "--expert", "delta"), "no expert 'delta'; there are: alpha, beta, gamma"),
        (("c", "--negative"), "no line with custom_id 'c'"),
        (("b", "--negative"), "line 'b' of run {run} has no answer to judge"),
        (("", "--negative"), "no line with custom_id ''"),
    ],
)
def test_what_cannot_be_judged_ends_in_code_2(
    moe: Moe, client: Runtime, workdir: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    Path("batch.jsonl").write_bytes(joined(short("a"), short("b")))
    run = finish(client, submit_batch(client, "batch.jsonl", BatchOptions()).id, failing={1}).public_id
    assert moe("feedback", run, *arguments, code=2).err == f"error: {complaint.format(run=run)}\n"
    assert rows(client.engine, "SELECT count(*) FROM feedback") == [(0,)]


@pytest.mark.parametrize("arguments", [("\udcff", "--negative"), ("a", "--answer", "\udcff")])
def test_feedback_that_is_no_utf8_ends_in_code_2(
    moe: Moe, client: Runtime, workdir: Path, arguments: tuple[str, ...]
) -> None:
    Path("batch.jsonl").write_bytes(short("a"))
    run = finish(client, submit_batch(client, "batch.jsonl", BatchOptions()).id).public_id
    moe("feedback", run, *arguments, code=2)
    assert rows(client.engine, "SELECT count(*) FROM feedback") == [(0,)]


def test_status_shows_what_is_missing(moe: Moe, client: Runtime) -> None:
    shown = moe("status", code=0).text
    assert shown.startswith("database up, redis up, router heuristic ")
    assert "open runs: 0\n" in shown
    assert "no worker serves alpha; 0 queries wait for it\n" in shown


def test_the_schema_is_told(moe: Moe, bare_client: Runtime) -> None:
    head = migrate.head()
    assert moe("db", "current", "--json").json == {"current": head, "head": head}
    assert moe("db", "upgrade", code=0).text == f"database is at {head}, this program needs {head}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("cook",), f"unknown role 'cook'; the roles are {', '.join(ROLES)}"),
        (("control", "--expert", "alpha"), "--expert goes with the role expert"),
    ],
)
def test_a_worker_that_cannot_be_ends_in_code_2(moe: Moe, arguments: tuple[str, ...], complaint: str) -> None:
    assert moe("worker", *arguments, code=2).err == f"error: {complaint}\n"


def test_stopping_a_stack_that_does_not_run_says_so(moe: Moe) -> None:
    assert moe("down", code=0).text == "nothing was running\n"
    assert moe("down", "--json").json == {"stopped": False}
