"""What a person does with runs: look before, steer, ask, fetch, correct."""

import gzip
import json
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.acceptance.conftest import ROLES, StackMaker
from tests.acceptance.harness import Stack, count, write_batch
from tests.support.experts import NAMES

SUMMARY = {"run", "name", "state", "lines_total", "completed", "failed", "output_file", "error_file"}
PASSPORT = {"experts", "confidence", "coverage", "in_scope", "reason"}


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def stored(stack: Stack) -> int:
    """Rows that a submission could leave behind."""
    tables = ("run", "query", "shard", "chunk", "decision", "answer", "outcome")
    return sum(count(stack.client().engine, f"SELECT count(*) FROM {table}") for table in tables)


def test_a_batch_is_submitted_waited_for_fetched_and_checked(make_stack: StackMaker) -> None:
    stack = make_stack(kind="poison")
    stack.start(*ROLES)
    texts = [f"question {n} about {NAMES[n % 3]}" for n in range(60)]
    texts[7] = "ROUTEBREAK about beta"
    batch = write_batch(stack.home / "batch.jsonl", texts)
    with batch.open("a") as file:
        file.write("not json\n\n" + json.dumps({"id": "q3", "text": "again"}) + "\n")

    done = stack.moe("batch", "submit", str(batch), "--wait", "--top-k", "1", "--name", "mine", "--json")

    run = json.loads(done.stdout)
    assert run.keys() >= SUMMARY
    assert (run["name"], run["state"]) == ("mine", "completed")
    assert (run["lines_total"], run["completed"], run["failed"]) == (62, 59, 3)
    outputs, errors = read_lines(run["output_file"]), read_lines(run["error_file"])
    assert len(outputs) == 59
    assert all(line["moe"].keys() >= PASSPORT for line in outputs)
    assert all(line["moe"]["experts"][0].keys() >= {"name", "version", "weight"} for line in outputs)
    assert [(line["custom_id"], line["error"]["code"], line["error"]["line"]) for line in errors] == [
        ("q7", "routing_failed", 8),
        (None, "invalid_json", 61),
        ("q3", "duplicate_custom_id", 63),
    ]
    assert stack.moe_json("batch", "status", "mine").items() >= run.items()
    verified = stack.moe_json("batch", "verify", "mine")
    assert (verified["ok"], verified["lines_total"]) == (True, 62)
    assert (verified["output_lines"], verified["error_lines"]) == (59, 3)
    causes = {cause["code"]: cause["sample_lines"] for cause in stack.moe_json("batch", "failures", "mine")}
    assert causes == {"routing_failed": [8], "invalid_json": [61], "duplicate_custom_id": [63]}
    stack.moe("batch", "results", "mine", "--out", "out.jsonl", "--errors", "err.jsonl")
    for mine, theirs in (("out.jsonl", "output_file"), ("err.jsonl", "error_file")):
        assert (stack.home / mine).read_bytes() == Path(run[theirs]).read_bytes()


def test_a_changed_output_file_does_not_pass_the_check(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)
    batch = write_batch(stack.home / "batch.jsonl", ["about alpha", "about beta"])
    run = json.loads(stack.moe("batch", "submit", str(batch), "--wait", "--json").stdout)
    path = Path(run["output_file"])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1])

    checked = stack.moe("batch", "verify", run["run"], "--json", check=False)

    assert checked.returncode == 1
    assert json.loads(checked.stdout)["problems"] == [
        f"output file {path} is not the one that was recorded (sha256)",
        "output file lacks 1 recorded lines",
        "1 output and 0 error lines for 2 input lines",
    ]


def test_standard_input_may_be_compressed_and_without_a_last_line_end(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)
    zipped = stack.home / "batch.jsonl.gz"
    zipped.write_bytes(gzip.compress(b'{"id": "a", "text": "about alpha"}\r\n\r\n{"id": "b", "text": "about beta"}'))

    by_name = stack.moe_json("batch", "submit", str(zipped), "--wait")
    by_stdin = json.loads(
        stack.moe("batch", "submit", "-", "--wait", "--json", stdin=gzip.decompress(zipped.read_bytes())).stdout
    )

    for run in (by_name, by_stdin):
        assert [line["custom_id"] for line in read_lines(run["output_file"])] == ["a", "b"]


def test_a_dry_run_tells_where_lines_would_go_and_leaves_nothing(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)
    texts = [f"question {n} about alpha" for n in range(20)] + [f"question {n} about beta" for n in range(10)]
    batch = write_batch(stack.home / "batch.jsonl", [*texts, "nobody knows this", ""])
    before = stored(stack)

    found = stack.moe_json("batch", "submit", str(batch), "--dry-run", "--top-k", "1")

    assert (found["lines_total"], found["lines_valid"], found["lines_invalid"]) == (32, 31, 1)
    assert [(line["line"], line["code"]) for line in found["invalid"]] == [(32, "invalid_request")]
    assert sum(e["lines"] for e in found["experts"]) == 31  # the one outside goes to the nearest
    assert {e["name"]: e["lines"] // 10 for e in found["experts"]} == {"alpha": 2, "beta": 1}
    assert found["outside"] == 1
    assert found["estimated_seconds"]["total"] is None  # nothing was measured yet
    assert sorted(found["estimated_seconds"]["not_measured"]) == ["alpha", "beta"]
    assert stored(stack) == before == 0
    assert list((stack.home / "artefacts").rglob("output*")) == []
    stack.moe("batch", "submit", str(batch), "--wait", check=False)
    again = stack.moe_json("batch", "submit", str(batch), "--dry-run", "--top-k", "1")
    assert again["estimated_seconds"]["not_measured"] == []
    assert again["estimated_seconds"]["total"] >= again["estimated_seconds"]["route"] > 0


def test_a_paused_run_waits_until_it_is_resumed(make_stack: StackMaker) -> None:
    stack = make_stack()
    client = stack.client()
    batch = write_batch(stack.home / "batch.jsonl", [f"question {n} about alpha" for n in range(40)])
    run = stack.moe_json("batch", "submit", str(batch))["run"]
    assert stack.moe_json("batch", "pause", run)["state"] == "paused"
    stack.start(*ROLES)
    other = stack.moe_json("batch", "submit", str(batch), "--wait")
    assert (other["state"], other["completed"]) == ("completed", 40)
    assert stack.moe_json("batch", "status", run)["completed"] == 0
    assert count(client.engine, "SELECT count(*) FROM answer WHERE run_id = (SELECT min(id) FROM run)") == 0

    assert stack.moe_json("batch", "resume", run)["changed"] is True

    ended = stack.moe_json("batch", "watch", run)
    assert (ended["state"], ended["completed"]) == ("completed", 40)
    assert stack.moe("batch", "resume", run, check=False).returncode == 2  # it has ended


def test_failed_lines_are_corrected_and_answered_into_the_same_run(make_stack: StackMaker) -> None:
    stack = make_stack(engine="poison")
    stack.start(*ROLES)
    batch = write_batch(stack.home / "batch.jsonl", ["about alpha", "BROKEN about beta", "about gamma"])
    with batch.open("a") as file:
        file.write('{"id": "q3", "text": 5}\n')
    first = json.loads(stack.moe("batch", "submit", str(batch), "--wait", "--json").stdout)
    assert (first["completed"], first["failed"]) == (2, 2)

    stubborn = stack.moe_json("batch", "retry-failed", first["run"], "--cause", "engine_error", "--wait")
    assert (stubborn["run"], stubborn["retried"], stubborn["completed"]) == (first["run"], 1, 2)
    edits = stack.home / "edits.jsonl"
    edits.write_text(
        '{"line": 2, "id": "q1", "text": "mended about beta"}\n{"line": 4, "id": "q3", "text": "about gamma"}\n'
    )
    mended = stack.moe_json("batch", "retry-failed", first["run"], "--edits", str(edits), "--wait")

    assert (mended["run"], mended["retried"]) == (first["run"], 2)
    assert (mended["lines_total"], mended["completed"], mended["failed"]) == (4, 4, 0)
    answers = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"]
        for line in read_lines(mended["output_file"])
    }
    assert answers == {"q0": "about alpha", "q1": "mended about beta", "q2": "about gamma", "q3": "about gamma"}
    assert stack.moe_json("batch", "verify", first["run"])["ok"] is True
    assert stack.moe("batch", "retry-failed", first["run"], check=False).returncode == 2  # nothing failed any more


def test_the_same_key_returns_the_same_run_and_another_body_is_refused(make_stack: StackMaker) -> None:
    stack = make_stack()
    batch = write_batch(stack.home / "batch.jsonl", ["about alpha"])
    other = write_batch(stack.home / "other.jsonl", ["about beta"])

    first = stack.moe_json("batch", "submit", str(batch), "--idempotency-key", "monday")
    again = stack.moe_json("batch", "submit", str(batch), "--idempotency-key", "monday")
    refused = stack.moe("batch", "submit", str(other), "--idempotency-key", "monday", check=False)

    assert first["run"] == again["run"]
    assert refused.returncode == 2
    assert "monday" in refused.stderr
    assert count(stack.client().engine, "SELECT count(*) FROM run") == 1


def test_one_question_goes_through_the_queues_and_is_explained(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)

    reply = stack.moe_json("ask", "tell me about beta", "--top-k", "1")
    told = stack.moe("ask", "tell me about beta", "--top-k", "1").stdout
    direct = stack.moe_json("ask", "tell me about beta", "--model", "moe/gamma")
    unknown = stack.moe("ask", "tell me", "--model", "moe/delta", check=False)

    assert reply.keys() >= PASSPORT
    assert [expert["name"] for expert in reply["experts"]] == ["beta"]
    assert (reply["text"], reply["error"]) == ("tell me about beta", None)
    assert "beta 1.00 (version 1)" in told
    assert f"why: {reply['reason']}" in " ".join(told.split())
    assert [expert["name"] for expert in direct["experts"]] == ["gamma"]
    assert unknown.returncode == 2
    assert "delta" in unknown.stderr
    assert "alpha, beta, gamma" in unknown.stderr


def test_an_explanation_shows_every_part_and_stores_nothing(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)

    found = stack.moe_json("router", "explain", "is alpha more than beta?", "--top-k", "2")

    assert {e["name"] for e in found["experts"]} == {"alpha", "beta"}
    assert sum(e["weight"] for e in found["experts"]) == 1
    assert found["scores"].keys() >= {"alpha", "beta"}
    parts = {"gate", "self", "share", "load", "final", "priority", "wait_s"}
    assert all(scores.keys() == parts for scores in found["scores"].values())
    assert found["otherwise"].keys() == {"alone", "coverage", "runner_up", "margin"}
    assert found["keywords"] == {"alpha": ["alpha"], "beta": ["beta"]}
    assert found["analysis"]["task"] == "question_answering"
    assert stored(stack) == 0


def test_what_is_no_batch_is_refused_with_two_and_nothing_is_stored(make_stack: StackMaker) -> None:
    stack = make_stack()
    missing = stack.moe("batch", "submit", "none.jsonl", check=False)
    wrong = stack.moe(
        "batch", "submit", str(write_batch(stack.home / "b.jsonl", ["x"])), "--strategy", "x", check=False
    )
    gone = stack.moe("batch", "status", "batch_none", "--json", check=False)

    assert [done.returncode for done in (missing, wrong, gone)] == [2, 2, 2]
    assert "none.jsonl" in missing.stderr
    assert "weighted" in wrong.stderr
    assert "batch_none" in json.loads(gone.stderr or gone.stdout)["error"]["message"]
    assert stored(stack) == 0


def test_what_an_expert_did_is_added_up_by_the_hour(make_stack: StackMaker) -> None:
    stack = make_stack(engine="poison")
    stack.start(*ROLES)
    batch = write_batch(stack.home / "batch.jsonl", ["about alpha", "BROKEN about alpha", "again about alpha"])
    stack.moe("batch", "submit", str(batch), "--wait", "--top-k", "1")

    shown = stack.moe_json("experts", "show", "alpha")

    sums = {key: sum(hour[key] for hour in shown["hours"]) for key in ("n_queries", "n_answered", "n_errors")}
    assert sums == {"n_queries": 3, "n_answered": 2, "n_errors": 1}
    assert {hour["mean_confidence"] for hour in shown["hours"]} == {1.0}
    assert stack.moe_json("experts", "show", "gamma")["hours"] == []


def test_old_runs_are_deleted_with_their_files_and_no_others(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)
    batch = write_batch(stack.home / "batch.jsonl", ["about alpha", "about beta"])
    old = json.loads(stack.moe("batch", "submit", str(batch), "--wait", "--json").stdout)
    stack.moe("ask", "about alpha")
    with stack.client().engine.begin() as connection:
        connection.execute(text("UPDATE run SET finished_at = finished_at - interval '2 days'"))
    young = json.loads(stack.moe("batch", "submit", str(batch), "--wait", "--json").stdout)

    assert stack.moe_json("batch", "prune", "--older-than", "1d") == {"deleted": 2}

    assert [run["run"] for run in stack.moe_json("batch", "list", "--questions")] == [young["run"]]
    assert [folder.name for folder in (stack.home / "artefacts" / "runs").iterdir()] == [young["run"]]
    assert not Path(old["output_file"]).exists()
    assert stack.moe_json("batch", "verify", young["run"])["ok"] is True
    for table in ("query", "shard", "chunk", "decision", "answer", "outcome"):
        assert count(stack.client().engine, f"SELECT count(DISTINCT run_id) FROM {table}") == 1
    assert stack.moe("batch", "prune", "--older-than", "soon", check=False).returncode == 2
