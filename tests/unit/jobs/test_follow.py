"""Waiting for runs, and how they are told."""

import re
from pathlib import Path

import pytest

from jobs.follow import details, state_of, summary, wait_until_ended
from jobs.submit import BatchOptions, submit_batch
from storage import runs
from storage.database import transact
from storage.runs import RunView
from tests.unit.jobs.endings import finish, put_decision
from tests.unit.jobs.lines import joined, short
from worker.runtime import Runtime

TOLD = {
    "run",
    "name",
    "state",
    "lines_total",
    "completed",
    "failed",
    "rejected",
    "lines_accounted",
    "output_file",
    "error_file",
    "generation",
    "top_k",
    "strategy",
    "priority",
    "deadline",
    "created_at",
    "started_at",
    "finished_at",
}
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00"


@pytest.fixture
def run(client: Runtime, tmp_path: Path) -> RunView:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(joined(*(short(f"q{n}") for n in range(5)), b"broken", b"[]"))
    submitted = submit_batch(client, str(path), BatchOptions(name="first", top_k=1))
    return transact(client.engine, lambda c: runs.view(c, submitted.id))


def test_a_new_run_is_told_with_nothing_done(client: Runtime, run: RunView) -> None:
    told = summary(client, run)
    assert set(told) == TOLD
    assert re.fullmatch(MOMENT, told.pop("created_at"))
    assert told == {
        "run": run.public_id,
        "name": "first",
        "state": "validating",
        "lines_total": 7,
        "completed": 0,
        "failed": 2,
        "rejected": 2,
        "lines_accounted": 2,
        "output_file": None,
        "error_file": None,
        "generation": 1,
        "top_k": 1,
        "strategy": "weighted",
        "priority": 2,
        "deadline": None,
        "started_at": None,
        "finished_at": None,
    }


def test_an_ended_run_is_told_with_its_files(client: Runtime, run: RunView) -> None:
    told = summary(client, finish(client, run.id, failing={1}))
    assert set(told) == TOLD
    assert (told["state"], told["completed"], told["failed"], told["rejected"]) == ("completed", 4, 3, 2)
    assert told["lines_accounted"] == told["lines_total"] == 7
    assert Path(told["output_file"]).read_bytes().count(b"\n") == 4
    assert Path(told["error_file"]).read_bytes().count(b"\n") == 3
    for moment in ("created_at", "started_at", "finished_at"):
        assert re.fullmatch(MOMENT, told[moment])


def test_a_paused_run_says_so_until_it_has_ended(client: Runtime, run: RunView) -> None:
    transact(client.engine, lambda c: runs.pause(c, run, paused=True))
    paused = transact(client.engine, lambda c: runs.view(c, run.id))
    assert (state_of(paused), paused.state) == ("paused", "validating")
    assert summary(client, paused)["state"] == "paused"


def test_waiting_for_an_ended_run_returns_it_at_once(client: Runtime, run: RunView) -> None:
    ended = finish(client, run.id)
    seen: list[RunView] = []
    assert wait_until_ended(client, run.id, on_change=seen.append, timeout_s=0) == ended
    assert seen == [ended]


def test_waiting_tells_every_new_state_once(client: Runtime, run: RunView) -> None:
    states: list[tuple[str, int]] = []

    def on_change(view: RunView) -> None:
        states.append((view.state, view.n_ok))
        if not view.ended:
            finish(client, run.id)

    wait_until_ended(client, run.id, on_change=on_change, pause_s=0)
    assert states == [("validating", 0), ("completed", 5)]


def test_waiting_in_vain_says_how_the_run_stands(client: Runtime, run: RunView) -> None:
    with pytest.raises(TimeoutError, match=f"^run {run.public_id} did not end within 0 s; it is validating$"):
        wait_until_ended(client, run.id, timeout_s=0, pause_s=0)


def test_details_tell_experts_causes_and_what_is_outside(client: Runtime, run: RunView) -> None:
    ended = finish(client, run.id, failing={1, 3})
    told = transact(client.engine, lambda c: details(c, ended))
    assert told["experts"] == [{"name": "alpha", "lines": 5, "mean_weight": 1.0}]
    assert told["outside"] == 0
    causes = [(c["code"], c["lines"], c["sample_lines"], c["sample_ids"]) for c in told["causes"]]
    assert causes[0] == ("engine_error", 2, [2, 4], ["q1", "q3"])
    assert sorted(causes[1:]) == [("invalid_json", 1, [6], []), ("invalid_json", 1, [7], [])]


def test_what_is_outside_is_counted(client: Runtime, run: RunView) -> None:
    for idx in range(3):
        put_decision(client, run.id, idx, coverage=0.1, in_scope=idx == 0)
    assert transact(client.engine, lambda c: details(c, run))["outside"] == 2
