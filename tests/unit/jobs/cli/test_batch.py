"""``moe batch``."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobs.submit import BatchOptions, submit_batch
from storage import runs
from storage.database import transact
from storage.runs import RunView
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.jobs.endings import finish
from tests.unit.jobs.lines import joined, nothing_stored, rows, short
from worker.runtime import Runtime

# What scripts read. Keys are added, never renamed, and are there whatever the state.
DOCUMENTED = {"run", "name", "state", "lines_total", "completed", "failed", "output_file", "error_file"}
SUMMARY = DOCUMENTED | {
    "rejected",
    "lines_accounted",
    "generation",
    "top_k",
    "strategy",
    "priority",
    "deadline",
    "created_at",
    "started_at",
    "finished_at",
}
DETAILS = {"experts", "outside", "causes"}


@pytest.fixture
def batch(client: Runtime, workdir: Path) -> Path:
    """Four good lines and a bad one."""
    path = workdir / "batch.jsonl"
    path.write_bytes(joined(*(short(f"q{n}") for n in range(4)), b"broken"))
    return path


@pytest.fixture
def started(client: Runtime, batch: Path) -> RunView:
    run = submit_batch(client, str(batch), BatchOptions(name="first"))
    return transact(client.engine, lambda c: runs.view(c, run.id))


@pytest.fixture
def ended(client: Runtime, started: RunView) -> RunView:
    return finish(client, started.id, failing={2})


def kinds(document: dict[str, Any]) -> dict[str, str]:
    return {key: type(value).__name__ for key, value in document.items() if key in DOCUMENTED}


def test_submitting_tells_the_run(moe: Moe, batch: Path) -> None:
    said = moe("batch", "submit", "batch.jsonl", code=0)
    assert re.fullmatch(r"run batch_[0-9a-f]{24}: 5 lines, 1 of them rejected\n", said.text)
    assert said.err == ""


def test_submitting_as_json_is_one_document(moe: Moe, batch: Path, client: Runtime) -> None:
    found = moe("batch", "submit", "batch.jsonl", "--json", "--name", "n", "--top-k", "3", "--priority", "high").json
    assert set(found) == SUMMARY
    assert kinds(found) == {
        "run": "str",
        "name": "str",
        "state": "str",
        "lines_total": "int",
        "completed": "int",
        "failed": "int",
        "output_file": "NoneType",
        "error_file": "NoneType",
    }
    assert (found["name"], found["top_k"], found["priority"], found["lines_total"]) == ("n", 3, 4, 5)
    assert rows(client.engine, "SELECT public_id FROM run") == [(found["run"],)]


def test_waiting_for_a_run_that_has_ended_tells_it(moe: Moe, batch: Path, client: Runtime) -> None:
    """The same key finds the same run, which has ended meanwhile."""
    command = ("batch", "submit", "batch.jsonl", "--idempotency-key", "k")
    first = moe(*command, "--json").json
    [(run_id,)] = rows(client.engine, "SELECT id FROM run")
    finish(client, run_id, failing={2})
    found = moe(*command, "--wait", "--json").json
    assert set(found) == SUMMARY
    assert {key: found[key] for key in DOCUMENTED - {"output_file", "error_file"}} == {
        "run": first["run"],
        "name": None,
        "state": "completed",
        "lines_total": 5,
        "completed": 3,
        "failed": 2,
    }
    assert [json.loads(line)["custom_id"] for line in Path(found["output_file"]).read_bytes().splitlines()] == [
        "q0",
        "q1",
        "q3",
    ]
    assert [json.loads(line)["custom_id"] for line in Path(found["error_file"]).read_bytes().splitlines()] == [
        "q2",
        None,
    ]
    said = moe(*command, "--wait", code=0)
    assert f"run {first['run']}: 5 lines, 1 of them rejected (submitted before with this key)\n" in said.text
    assert f"run {first['run']} is completed\nlines: 5 in = 3 output + 2 error\n" in said.text
    assert "completed: 5 of 5 lines, 2 failed" in said.err


def test_waiting_for_a_run_that_was_cancelled_fails(moe: Moe, batch: Path, client: Runtime) -> None:
    command = ("batch", "submit", "batch.jsonl", "--idempotency-key", "k")
    run = moe(*command, "--json").json["run"]
    moe("batch", "cancel", run, code=0)
    [(run_id,)] = rows(client.engine, "SELECT id FROM run")
    finish(client, run_id)
    said = moe(*command, "--wait", "--json", code=1)
    assert json.loads(said.out)["state"] == "cancelled"


def test_a_key_that_was_used_for_something_else_is_refused(moe: Moe, batch: Path) -> None:
    moe("batch", "submit", "batch.jsonl", "--idempotency-key", "k", code=0)
    said = moe("batch", "submit", "batch.jsonl", "--idempotency-key", "k", "--top-k", "1", "--json", code=2)
    assert json.loads(said.err) == {
        "error": {
            "code": "idempotency_key_reused",
            "message": "idempotency key 'k' was used before for a different request; use a new key",
        }
    }
    assert said.out == b""


def test_standard_input_is_submitted(moe: Moe, client: Runtime) -> None:
    assert moe("batch", "submit", "-", "--json", stdin=joined(short("a"), short("b"))).json["lines_total"] == 2
    assert rows(client.engine, "SELECT source FROM run") == [("-",)]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_format_can_be_said(moe: Moe, client: Runtime, form: str) -> None:
    data = {"jsonl": short("a"), "csv": b"id,text\na,t\n"}[form]
    assert moe("batch", "submit", "-", "--format", form, "--json", stdin=data).json["rejected"] == 0


def test_without_experts_nothing_is_submitted(moe: Moe, bare_client: Runtime, workdir: Path) -> None:
    Path("batch.jsonl").write_bytes(short("a"))
    said = moe("batch", "submit", "batch.jsonl", code=2)
    assert said.err == "error: no expert serves yet; load a catalogue with `moe experts load DIR`\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--strategy", "best"), "unknown strategy 'best'; there are: weighted"),
        (("--deadline", "soon"), "deadline 'soon' is neither a duration (90s, 30m, 2h, 1d) nor an ISO time"),
        (("--deadline", "2020-01-01"), "deadline '2020-01-01' has passed already"),
        (("--name", ""), "name must be 1 to 200 printable characters"),
        (("--name", "x" * 201), "name must be 1 to 200 printable characters"),
        (("--idempotency-key", ""), "idempotency key must be 1 to 200 printable characters"),
    ],
)
def test_options_that_cannot_be_end_in_code_2_and_nothing_stored(
    moe: Moe, batch: Path, client: Runtime, arguments: tuple[str, ...], complaint: str
) -> None:
    said = moe("batch", "submit", "batch.jsonl", *arguments, code=2)
    assert (said.out, said.err) == (b"", f"error: {complaint}\n")
    said = moe("batch", "submit", "batch.jsonl", *arguments, "--json", code=2)
    assert json.loads(said.err)["error"]["message"] == complaint
    assert said.out == b""
    assert nothing_stored(client.engine)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--top-k", "0"),
        ("--top-k", "65"),
        ("--top-k", "-1"),
        ("--top-k", "many"),
        ("--top-k", ""),
        ("--top-k", "1.5"),
        ("--priority", "urgent"),
        ("--format", "xml"),
        ("--unknown",),
        ("one", "too", "many"),
    ],
)
def test_arguments_that_cannot_be_end_in_code_2_and_nothing_stored(
    moe: Moe, batch: Path, client: Runtime, arguments: tuple[str, ...]
) -> None:
    said = moe("batch", "submit", "batch.jsonl", *arguments, code=2)
    assert said.out == b""
    assert arguments[0] in said.err or "unexpected extra argument" in said.err
    assert nothing_stored(client.engine)


def test_a_deadline_beyond_every_calendar_is_refused(moe: Moe, batch: Path, client: Runtime) -> None:
    said = moe("batch", "submit", "batch.jsonl", "--deadline", "99999999999d", code=2)
    assert "deadline" in said.err
    assert nothing_stored(client.engine)


# Following


def test_status_as_json_has_its_keys_whatever_the_state(moe: Moe, client: Runtime, started: RunView) -> None:
    def told() -> Any:
        found = moe("batch", "status", started.public_id, "--json").json
        assert set(found) == SUMMARY | DETAILS
        return found

    assert (told()["state"], told()["failed"]) == ("validating", 1)
    moe("batch", "pause", "first", code=0)
    assert told()["state"] == "paused"
    moe("batch", "resume", "first", code=0)
    finish(client, started.id, failing={2})
    found = told()
    assert (found["state"], found["completed"], found["failed"]) == ("completed", 3, 2)
    assert found["experts"] == [{"name": "alpha", "lines": 4, "mean_weight": 1.0}]
    assert found["outside"] == 0
    assert {frozenset(cause) for cause in found["causes"]} == {
        frozenset({"code", "message", "lines", "sample_lines", "sample_ids"})
    }
    assert sorted((cause["code"], cause["sample_lines"]) for cause in found["causes"]) == [
        ("engine_error", [3]),
        ("invalid_json", [5]),
    ]


def test_status_for_people_shows_that_every_line_is_accounted_for(moe: Moe, ended: RunView) -> None:
    said = moe("batch", "status", "first", code=0)
    assert said.text.startswith(f"run {ended.public_id} (first) is completed\nlines: 5 in = 3 output + 2 error\ntime: ")
    assert "engine_error" in said.text
    assert "/output.jsonl\n" in said.text
    assert "/errors.jsonl\n" in said.text


def test_open_lines_are_told(moe: Moe, started: RunView) -> None:
    assert "lines: 5 in = 0 output + 1 error + 4 open\n" in moe("batch", "status", "first", code=0).text


@pytest.mark.parametrize("key", ["id", "id without batch_", "beginning", "name"])
def test_a_run_is_found_by_what_people_have(moe: Moe, started: RunView, key: str) -> None:
    said = {
        "id": started.public_id,
        "id without batch_": started.public_id.removeprefix("batch_"),
        "beginning": started.public_id[:15],
        "name": "first",
    }[key]
    assert moe("batch", "status", said, "--json").json["run"] == started.public_id


@pytest.mark.parametrize("key", ["", "nobody", "batch_", "%", "first'", "FIRST", "x" * 10_000, "\x1b[31m", "é", "１"])
@pytest.mark.parametrize("command", ["status", "watch", "cancel", "pause", "resume", "results", "failures", "verify"])
def test_an_unknown_run_ends_in_code_2(moe: Moe, client: Runtime, command: str, key: str) -> None:
    said = moe("batch", command, key, "--json", code=2)
    assert json.loads(said.err) == {"error": {"code": "not_found", "message": f"no run {key!r}"}}
    assert said.out == b""


def test_a_key_that_is_no_utf8_finds_nothing(moe: Moe, client: Runtime) -> None:
    assert moe("batch", "status", "\udcff", code=2).err.startswith("error: no run ")
    assert json.loads(moe("batch", "status", "\udcff", "--json", code=2).err)["error"]["code"] == "not_found"


def test_the_beginning_of_several_ids_is_refused(moe: Moe, batch: Path, client: Runtime) -> None:
    ids = [moe("batch", "submit", "batch.jsonl", "--json").json["run"] for _ in range(2)]
    said = moe("batch", "status", "batch_", code=2)
    assert said.err == f"error: 'batch_' is the beginning of several run ids: {ids[1]}, {ids[0]}\n"


def test_watching_an_ended_run_tells_it(moe: Moe, ended: RunView) -> None:
    assert set(moe("batch", "watch", "first", "--json").json) == SUMMARY
    said = moe("batch", "watch", "first", code=0)
    assert "lines: 5 in = 3 output + 2 error" in said.text
    assert said.err == "completed: 5 of 5 lines, 2 failed\n"


def test_the_newest_runs_are_listed_first(moe: Moe, batch: Path, client: Runtime) -> None:
    ids = [moe("batch", "submit", "batch.jsonl", "--json").json["run"] for _ in range(3)]
    found = moe("batch", "list", "--json").json
    assert [run["run"] for run in found] == ids[::-1]
    assert {frozenset(run) for run in found} == {frozenset(SUMMARY)}
    assert [run["run"] for run in moe("batch", "list", "--limit", "1", "--json").json] == [ids[2]]
    listed = moe("batch", "list", code=0).text.splitlines()
    assert listed[0].split() == ["run", "name", "state", "lines", "completed", "failed", "created"]
    assert [line.split()[0] for line in listed[1:]] == ids[::-1]


def test_an_empty_list_is_a_document_too(moe: Moe, client: Runtime) -> None:
    assert moe("batch", "list", "--json").json == []
    assert moe("batch", "list", code=0).text.split() == [
        "run",
        "name",
        "state",
        "lines",
        "completed",
        "failed",
        "created",
    ]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x"])
def test_a_limit_out_of_bounds_ends_in_code_2(moe: Moe, client: Runtime, limit: str) -> None:
    assert "--limit" in moe("batch", "list", "--limit", limit, code=2).err


# Steering


def test_cancelling_twice_changes_nothing_the_second_time(moe: Moe, client: Runtime, started: RunView) -> None:
    first = moe("batch", "cancel", "first", "--json").json
    assert set(first) == SUMMARY | {"changed"}
    assert (first["state"], first["changed"]) == ("cancelling", True)
    again = moe("batch", "cancel", "first", "--json").json
    assert (again["state"], again["changed"]) == ("cancelling", False)
    assert moe("batch", "cancel", "first").text == f"run {started.public_id} has ended or is ending already\n"
    found = finish(client, started.id)
    assert (found.state, found.n_ok, found.n_error) == ("cancelled", 0, 5)


def test_pausing_and_going_on(moe: Moe, started: RunView) -> None:
    run = f"run {started.public_id}"
    assert moe("batch", "pause", "first").text == f"{run} paused\n"
    assert moe("batch", "pause", "first").text == f"{run} is paused already\n"
    assert moe("batch", "resume", "first").text == f"{run} goes on\n"
    assert moe("batch", "resume", "first").text == f"{run} is not paused\n"
    assert moe("batch", "pause", "first", "--json").json["changed"] is True


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_ended_run_cannot_be_steered(moe: Moe, ended: RunView, command: str) -> None:
    said = moe("batch", command, "first", "--json", code=2)
    assert json.loads(said.err)["error"]["code"] == "not_allowed"


def test_failed_lines_are_retried(moe: Moe, client: Runtime, ended: RunView) -> None:
    found = moe("batch", "retry-failed", "first", "--json").json
    assert set(found) == SUMMARY | {"retried"}
    assert (found["state"], found["retried"], found["generation"]) == ("in_progress", 1, 2)
    finish(client, ended.id)
    said = moe("batch", "retry-failed", "first", "--cause", "x", "--json", code=2)
    assert "has no failed line to retry with code x" in json.loads(said.err)["error"]["message"]


def test_corrected_lines_are_retried(moe: Moe, client: Runtime, ended: RunView, workdir: Path) -> None:
    Path("edits.jsonl").write_bytes(b'{"line":5,"id":"q4","text":"t"}\n')
    said = moe("batch", "retry-failed", "first", "--edits", "edits.jsonl", code=0)
    assert said.text == f"run {ended.public_id}: 2 failed lines go round again\n"
    Path("edits.jsonl").write_bytes(b"broken")
    assert (
        "edits.jsonl line 1: an edit is an object"
        in moe("batch", "retry-failed", "first", "--edits", "edits.jsonl", code=2).err
    )


# Files


def test_results_go_to_standard_output(moe: Moe, client: Runtime, ended: RunView) -> None:
    assert ended.output is not None
    expected = Path(client.store.locate(ended.output["path"])).read_bytes()
    assert moe("batch", "results", "first", code=0).out == expected
    assert moe("batch", "results", "first", "--out", "-", code=0).out == expected


def test_results_go_to_files(moe: Moe, ended: RunView, workdir: Path) -> None:
    said = moe("batch", "results", "first", "--out", "out", "--errors", "err", code=0)
    assert (said.out, said.err) == (b"", "3 lines in out\n2 lines in err\n")
    assert [Path(name).read_bytes().count(b"\n") for name in ("out", "err")] == [3, 2]
    assert set(moe("batch", "results", "first", "--out", "out", "--json").json) == SUMMARY


def test_only_errors_are_fetched_where_only_they_are_asked_for(moe: Moe, ended: RunView) -> None:
    said = moe("batch", "results", "first", "--errors", "-", code=0)
    assert [json.loads(line)["custom_id"] for line in said.out.splitlines()] == ["q2", None]


def test_results_of_a_run_that_goes_on_end_in_code_2(moe: Moe, started: RunView) -> None:
    said = moe("batch", "results", "first", code=2)
    assert said.err == (f"error: run {started.public_id} is validating; its files are there when it has ended\n")


@pytest.mark.parametrize("place", ["missing/out", "batch.jsonl/out"])
def test_results_that_cannot_be_written_end_in_code_1(moe: Moe, ended: RunView, place: str) -> None:
    said = moe("batch", "results", "first", "--out", place, "--json", code=1)
    assert json.loads(said.err)["error"]["code"] == "failed"
    assert f"{place} could not be written: " in json.loads(said.err)["error"]["message"]


def test_a_folder_as_target_ends_in_code_2(moe: Moe, ended: RunView) -> None:
    assert moe("batch", "results", "first", "--out", ".", code=2).err == "error: . is a folder; name a file\n"


def test_verifying_tells_that_all_is_well(moe: Moe, ended: RunView) -> None:
    assert moe("batch", "verify", "first", "--json").json == {
        "run": ended.public_id,
        "state": "completed",
        "ok": True,
        "lines_total": 5,
        "output_lines": 3,
        "error_lines": 2,
        "problems": [],
    }
    assert moe("batch", "verify", "first", code=0).text == (
        f"run {ended.public_id} (completed): 5 lines in = 3 output + 2 error\neverything is accounted for\n"
    )


def test_verifying_a_damaged_file_ends_in_code_1(moe: Moe, client: Runtime, ended: RunView) -> None:
    assert ended.output is not None
    Path(client.store.locate(ended.output["path"])).write_bytes(b"")
    said = moe("batch", "verify", "first", "--json", code=1)
    assert json.loads(said.out)["ok"] is False
    said = moe("batch", "verify", "first", code=1)
    assert "output file lacks 3 recorded lines" in said.text
    assert said.text.endswith("something is wrong\n")


def test_failures_are_grouped_by_cause(moe: Moe, ended: RunView) -> None:
    found = moe("batch", "failures", "first", "--json").json
    assert sorted((cause["code"], cause["lines"], cause["sample_lines"]) for cause in found) == [
        ("engine_error", 1, [3]),
        ("invalid_json", 1, [5]),
    ]
    listed = moe("batch", "failures", "first", code=0).text.splitlines()
    assert listed[0].split() == ["failed", "code", "message", "lines"]
    assert len(listed) == 3


def test_what_a_line_says_is_shown_as_it_is(moe: Moe, client: Runtime, workdir: Path) -> None:
    """Markup of the console is no markup in what people wrote, and steering characters do not reach the terminal."""
    Path("batch.jsonl").write_bytes(joined(short("a", model="[bold]x[/]"), short("b", model="\x1b[31my")))
    run = moe("batch", "submit", "batch.jsonl", "--json").json["run"]
    said = moe("batch", "failures", run, code=0)
    assert "'[bold]x[/]' is neither" in said.text
    assert "\x1b" not in said.text


# Dry runs


def test_a_dry_run_of_no_batch_ends_in_code_2(moe: Moe, client: Runtime, workdir: Path) -> None:
    Path("empty").touch()
    said = moe("batch", "submit", "empty", "--dry-run", "--json", code=2)
    assert json.loads(said.err) == {"error": {"code": "no_lines", "message": "empty holds no lines"}}
    assert nothing_stored(client.engine)
