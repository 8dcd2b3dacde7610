"""An expert is made of a file of examples while everything runs; its training is killed, paused, resumed, cancelled."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storage import expert_versions, jobs
from storage.database import transact
from tests.acceptance.conftest import StackMaker
from tests.acceptance.harness import ROOT, Stack, count, wait_for
from worker.runtime import Runtime

ROLES = ("control", "router", "expert", "training", "beat")
NAME = "shell_commands"
GIVEN = ROOT / "experts" / "learned" / NAME


@pytest.fixture
def stack(make_stack: StackMaker) -> Stack:
    """A stack of experts that echo; what learns does so for some seconds."""
    return make_stack(
        MOE_PIPELINE__LEASE_SECONDS="5",
        MOE_TRAINING__EPOCHS="12",
        MOE_TRAINING__FLOOR="0",
        MOE_SERVING__MAX_TOKENS="32",
    )


def part(stack: Stack, name: str, rows: int) -> Path:
    """The first examples of one of the bundled files."""
    lines = (GIVEN / name).read_text().splitlines(keepends=True)
    (stack.home / name).write_text("".join(lines[:rows]))
    return stack.home / name


def begun(stack: Stack, *arguments: str) -> "subprocess.Popen[str]":
    """The command line, at work."""
    command = [sys.executable, "-m", "tests.doubles.worker", *arguments]
    return subprocess.Popen(command, cwd=stack.home, env=stack.environment, stdout=subprocess.PIPE, text=True)


def state(client: Runtime, job: int) -> str:
    return transact(client.engine, lambda c: jobs.view(c, job)).state


def under_way(client: Runtime, job: int) -> None:
    """Wait until the job's training has told how far it is."""
    wait_for(
        lambda: count(
            client.engine,
            "SELECT count(*) FROM job WHERE id = :job AND state = 'running' AND progress IS NOT NULL",
            job=job,
        ),
        f"job {job} to train",
        timeout_s=90,
    )


def in_state(client: Runtime, job: int, wanted: str) -> None:
    wait_for(lambda: state(client, job) == wanted, f"job {job} to be {wanted}", timeout_s=90)


def ask(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = stack.moe_json("ask", "shell command: sort the lines of notes.txt", "--top-k", "1")
    return found


def test_an_expert_is_made_of_examples_and_answers_while_trainings_come_and_go(stack: Stack) -> None:
    stack.start(*ROLES)
    client = stack.client()
    data = part(stack, "train.jsonl", 400)

    made_and_killed(stack, client, data)
    version = transact(client.engine, lambda c: expert_versions.version(c, NAME, None))
    assert version.adapter is not None
    reply = ask(stack)
    (expert,) = reply["experts"]
    assert (expert["name"], expert["version"], expert["adapter"]) == (NAME, 1, version.adapter.sha256)
    assert expert["tokens"]["completion"] > 0
    assert reply["text"].split()[0] == "sort"

    # From here on trainings last longer than this test.
    stack.kill("training")
    stack.start("training", MOE_TRAINING__EPOCHS="2000")
    paused_resumed_and_cancelled(stack, client, data)
    scheduled(stack, client)

    assert [view.number for view in transact(client.engine, lambda c: expert_versions.versions(c, NAME))] == [1]
    again = ask(stack)
    assert (again["text"], again["experts"][0]["adapter"]) == (reply["text"], expert["adapter"])


def made_and_killed(stack: Stack, client: Runtime, data: Path) -> None:
    """The training worker is killed after its first checkpoint; the command line waits on and sees it through."""
    held = part(stack, "test.jsonl", 30)
    create = ["experts", "create", NAME, "--domain", "shell commands", "--keyword", "shell", "--data", str(data)]
    creation = begun(stack, *create, "--validation", str(held), "--wait", "--json")
    folder = stack.home / "training" / "job-1"
    wait_for(lambda: list(folder.glob("checkpoint-*/whole.json")), "the first checkpoint", timeout_s=90)
    stack.kill("training")
    kept = max(int(found.parent.name.removeprefix("checkpoint-")) for found in folder.glob("checkpoint-*/whole.json"))
    told = count(client.engine, "SELECT coalesce(max(id), 0) FROM job_event")
    assert count(client.engine, "SELECT count(*) FROM expert WHERE name = :name", name=NAME) == 0
    stack.start("training")

    said, _ = creation.communicate(timeout=240)
    assert creation.returncode == 0
    made = json.loads(said)
    assert (made["job"], made["expert"], made["version"], made["state"]) == (1, NAME, 1, "live")
    assert (made["promoted"], made["metrics"]["base_unchanged"]) == (True, True)
    assert made["metrics"]["exact_match"] > made["metrics"]["base_exact_match"]
    later = transact(client.engine, lambda c: jobs.events(c, 1, after=told))
    steps = [event.data["step"] for event in later if event.data]
    assert min(steps) >= kept  # what was kept is not learned again
    assert max(steps) == made["metrics"]["steps"]
    assert count(client.engine, "SELECT epoch FROM job WHERE id = 1") >= 2
    assert not folder.exists()


def paused_resumed_and_cancelled(stack: Stack, client: Runtime, data: Path) -> None:
    job = stack.moe_json("experts", "train", NAME, "--data", str(data))["job"]
    busy = stack.moe("experts", "retrain", NAME, check=False)
    assert busy.returncode != 0
    assert f"job {job} (train_expert" in " ".join(busy.stderr.split())
    under_way(client, job)
    assert stack.moe_json("jobs", "pause", str(job))["wanted"] == "pause"
    in_state(client, job, "paused")
    folder = stack.home / "training" / f"job-{job}"
    assert list(folder.glob("checkpoint-*/whole.json"))
    assert stack.moe_json("jobs", "resume", str(job))["state"] == "queued"
    in_state(client, job, "running")
    stack.moe_json("jobs", "cancel", str(job))
    in_state(client, job, "cancelled")
    assert not folder.exists()


def scheduled(stack: Stack, client: Runtime) -> None:
    nightly = stack.moe_json("schedule", "set", "nightly", "--every", "1d", "--expert", NAME)
    assert (nightly["schedule"], nightly["subject"]) == ("nightly", f"expert:{NAME}")
    started = stack.moe_json("schedule", "run-now", "nightly")["job"]
    under_way(client, started)
    (listed,) = stack.moe_json("schedule", "list")
    assert (listed["schedule"], listed["last_job"]) == ("nightly", started)
    stack.moe_json("jobs", "cancel", str(started))
    in_state(client, started, "cancelled")
