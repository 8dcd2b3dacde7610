"""``moe jobs``: jobs are listed, shown, followed, stopped and let go on."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import training_jobs
from jobs.cli import jobs as commands
from jobs.cli.jobs import curve
from storage import jobs
from storage.jobs import ClaimedJob
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.storage.builders import Store, claim_job
from worker.runtime import Runtime

HALF = {"step": 50, "total_steps": 100, "train_loss": 1.5, "validation_loss": 1.25, "seconds_left": 30.4}


@pytest.fixture
def store(moe: Moe, bare_client: Runtime) -> Store:
    return Store(bare_client.engine)


@pytest.fixture
def job(store: Store) -> int:
    """A job that waits."""
    return store(jobs.add, "train_expert", {"mode": "train"}, subject="expert:alpha")


@pytest.fixture
def running(store: Store, job: int) -> ClaimedJob:
    """It is under way, half done."""
    claimed = claim_job(store, job)
    store(jobs.progress, claimed.lease, HALF)
    return claimed


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# list


def test_jobs_are_json(moe: Moe, store: Store, job: int) -> None:
    refresh = store(jobs.add_refresh)
    store(jobs.fail, claim_job(store, refresh), "bad_catalogue", "There is nothing.")

    first, second = moe("jobs", "list", "--json").json

    view = store(jobs.view, refresh)
    assert view.finished_at is not None
    assert first == {
        "job": refresh,
        "kind": "refresh",
        "subject": None,
        "state": "failed",
        "wanted": None,
        "progress": None,
        "error": {"code": "bad_catalogue", "message": "There is nothing."},
        "created_at": view.created_at.isoformat(),
        "finished_at": view.finished_at.isoformat(),
    }
    assert (second["job"], second["state"], second["error"], second["finished_at"]) == (job, "queued", None, None)
    assert [found["job"] for found in moe("jobs", "list", "--open", "--json").json] == [job]
    assert [found["job"] for found in moe("jobs", "list", "--limit", "1", "--json").json] == [refresh]


def test_jobs_are_a_table(moe: Moe, store: Store, running: ClaimedJob) -> None:
    failed = store(jobs.add, "refresh")
    store(jobs.fail, claim_job(store, failed), "bad_catalogue", f"\x1b[2J[red]{'x' * 100}")

    said = moe("jobs", "list", code=0).text

    header, newest, oldest = cells(said)
    assert header == ["job", "kind", "of", "state", "how", "far", "asked", "for", "error"]
    assert newest[1:3] == ["refresh", "failed"]
    assert newest[-1] == f"\N{REPLACEMENT CHARACTER}[2J[red]{'x' * 71}"
    assert oldest[1:4] == ["train_expert", "expert:alpha", "running"]
    assert "50/100 loss 1.250, 30 s left" in said


def test_without_jobs_there_is_an_empty_table(moe: Moe, store: Store) -> None:
    assert moe("jobs", "list", "--json").json == []
    assert len(cells(moe("jobs", "list", code=0).text)) == 1


# show


def test_a_job_is_json_with_its_story(moe: Moe, store: Store, running: ClaimedJob) -> None:
    number = running.lease.id
    store(jobs.report, number, "step 50 of 100", HALF)
    store(jobs.succeed, running, {"version": 2})

    found = moe("jobs", "show", str(number), "--json").json

    [event] = found.pop("events")
    assert (event["message"], event["data"], set(event)) == ("step 50 of 100", HALF, {"at", "message", "data"})
    assert (found["job"], found["state"], found["progress"], found["result"]) == (
        number,
        "succeeded",
        HALF,
        {"version": 2},
    )


def test_a_job_is_shown_with_its_losses(moe: Moe, store: Store, running: ClaimedJob) -> None:
    number = running.lease.id
    store(jobs.report, number, "learning from [24] examples\x1b[2J")
    for step, loss in enumerate((None, 4.0, 2.0, 0.5)):
        store(jobs.report, number, f"step {step}", {"train_loss": loss, "validation_loss": 1.0})

    first, *story = moe("jobs", "show", str(number), code=0).text.splitlines()

    assert first == f"job {number}: train_expert expert:alpha, running 50/100 loss 1.250, 30 s left"
    assert story[0].split("  ", 1)[1] == "learning from [24] examples\N{REPLACEMENT CHARACTER}[2J"
    assert [line.split("  ", 1)[1] for line in story[1:5]] == ["step 0", "step 1", "step 2", "step 3"]
    assert story[5:] == ["            loss 4.000 █▄▁ 0.500", " validation loss 1.000 ▁▁▁▁ 1.000"]


def test_a_job_that_failed_is_shown_with_why(moe: Moe, store: Store, running: ClaimedJob) -> None:
    store(jobs.fail, running, "cannot_train", "Only [2] examples.")
    said = moe("jobs", "show", str(running.lease.id), code=0).text
    assert said.splitlines()[-1] == "cannot_train: Only [2] examples."


@pytest.mark.parametrize(
    ("losses", "shown"),
    [
        ([1.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([3.0, 1.0], "█▁"),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
    ],
)
def test_losses_are_drawn_from_lowest_to_highest(losses: list[float], shown: str) -> None:
    assert curve(losses) == shown


@pytest.mark.parametrize("n", [40, 41, 79, 1000])
def test_many_losses_are_drawn_in_forty_blocks(n: int) -> None:
    drawn = curve([float(n - i) for i in range(n)])
    assert len(drawn) == 40
    assert list(drawn) == sorted(drawn, reverse=True)
    assert (drawn[0], drawn[-1]) == ("█", "▁")


# watch


def test_a_job_is_followed_to_its_end(moe: Moe, store: Store, running: ClaimedJob) -> None:
    number = running.lease.id
    store(jobs.report, number, "one")
    store(jobs.report, number, "two")
    store(jobs.succeed, running, {"version": 2})

    said = moe("jobs", "watch", str(number), code=0)
    assert (said.text, said.err) == (f"job {number} succeeded\n", "one\ntwo\n")

    said = moe("jobs", "watch", str(number), "--json")
    shown = moe("jobs", "show", str(number), "--json").json
    del shown["events"]
    assert (said.json, said.err) == (shown, "")


def test_a_story_cannot_steer_the_terminal_it_is_shown_on(moe: Moe, store: Store, running: ClaimedJob) -> None:
    store(jobs.report, running.lease.id, "one [two] [/three] \x1b[2J")
    store(jobs.succeed, running, {})
    said = moe("jobs", "watch", str(running.lease.id), code=0)
    assert said.err == "one [two] [/three] \N{REPLACEMENT CHARACTER}[2J\n"


def test_following_a_job_that_failed_tells_why(moe: Moe, store: Store, running: ClaimedJob) -> None:
    store(jobs.fail, running, "cannot_train", "Only [2] examples.")
    number = running.lease.id
    assert moe("jobs", "watch", str(number), code=0).text == f"job {number} failed: Only [2] examples.\n"


def test_following_ends_where_a_job_is_paused(moe: Moe, job: int) -> None:
    moe("jobs", "pause", str(job), code=0)
    assert moe("jobs", "watch", str(job), code=0).text == f"job {job} paused\n"


def test_on_a_terminal_a_bar_is_shown(
    moe: Moe, store: Store, running: ClaimedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = running.lease.id
    store(jobs.report, number, "one [two] \x1b[2J")
    store(jobs.succeed, running, {"version": 2})
    monkeypatch.setattr(commands, "sys", SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: True)))

    said = moe("jobs", "watch", str(number), code=0)

    assert said.text == f"job {number} succeeded\n"
    story, *bar = said.err.splitlines()
    assert story.startswith("one [two] \N{REPLACEMENT CHARACTER}[2J")
    assert "50/100" in " ".join(bar)
    assert "loss 1.250, 30 s left" in " ".join(bar)


def test_who_stops_watching_is_told_that_the_job_goes_on(
    moe: Moe, store: Store, job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training_jobs, "watch", interrupted)
    said = moe("jobs", "watch", str(job))
    assert said.code != 0
    assert said.err.startswith(f"\njob {job} goes on; `moe jobs watch {job}` follows it, ")
    assert store(jobs.view, job).state == "queued"


# cancel, pause, resume


def test_a_job_that_waits_is_stopped_at_once(moe: Moe, store: Store, job: int) -> None:
    assert moe("jobs", "pause", str(job), code=0).text == f"job {job} is paused\n"
    assert moe("jobs", "resume", str(job), code=0).text == f"job {job} is queued\n"
    found = moe("jobs", "cancel", str(job), "--json").json
    assert found == moe("jobs", "list", "--json").json[0]
    assert (found["state"], found["wanted"], found["finished_at"] is None) == ("cancelled", None, False)


@pytest.mark.parametrize(("command", "shown"), [("cancel", "cancelling"), ("pause", "pausing")])
def test_a_job_that_runs_is_asked_to_stop(
    moe: Moe, store: Store, running: ClaimedJob, command: str, shown: str
) -> None:
    number = running.lease.id
    asked = f"job {number} was asked to {command}; its worker stops at the next step\n"
    assert moe("jobs", command, str(number), code=0).text == asked
    found = moe("jobs", command, str(number), "--json").json
    assert (found["state"], found["wanted"]) == ("running", command)
    assert cells(moe("jobs", "list", code=0).text)[1][3] == shown


def test_a_pause_that_was_asked_for_is_taken_back(moe: Moe, running: ClaimedJob) -> None:
    number = str(running.lease.id)
    moe("jobs", "pause", number, code=0)
    found = moe("jobs", "resume", number, "--json").json
    assert (found["state"], found["wanted"]) == ("running", None)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("cancel", "job {job} is succeeded; only open jobs can be stopped"),
        ("pause", "job {job} is succeeded; only open jobs can be stopped"),
        ("resume", "job {job} is succeeded; only paused jobs can be resumed"),
    ],
)
def test_a_job_that_is_over_is_left_alone(
    moe: Moe, store: Store, running: ClaimedJob, command: str, complaint: str
) -> None:
    store(jobs.succeed, running, {})
    number = running.lease.id
    said = moe("jobs", command, str(number), "--json", code=2)
    assert json.loads(said.err) == {"error": {"code": "not_allowed", "message": complaint.format(job=number)}}


@pytest.mark.parametrize("number", ["12345", "99999999999999999999"])
@pytest.mark.parametrize("command", ["show", "watch", "cancel", "pause", "resume"])
def test_an_unknown_job_ends_in_code_2(moe: Moe, store: Store, command: str, number: str) -> None:
    said = moe("jobs", command, number, "--json", code=2)
    assert json.loads(said.err) == {"error": {"code": "not_found", "message": f"no job '{number}'"}}


@pytest.mark.parametrize(
    "arguments", [("show",), ("show", "0"), ("watch", "-1"), ("cancel", "x"), ("list", "--limit", "0")], ids=" ".join
)
def test_what_is_no_job_ends_in_code_2(moe: Moe, store: Store, arguments: tuple[str, ...]) -> None:
    assert moe("jobs", *arguments, code=2).out == b""


def test_progress_without_a_loss_is_shown(moe: Moe, store: Store, job: int) -> None:
    claimed = claim_job(store, job)
    far: dict[str, Any] = {"step": 1, "total_steps": 9, "validation_loss": None, "seconds_left": None}
    store(jobs.progress, claimed.lease, far)
    assert cells(moe("jobs", "list", code=0).text)[1][4] == "1/9"
