"""``moe schedule``: what is done again and again is set, held, removed and done at once."""

import json

import pytest

from storage import schedules
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.jobs.trainer import HELD_BACK, Trainer, add_version, trainer
from tests.unit.storage.builders import Store
from worker.runtime import Runtime

__all__ = ["trainer"]

SET = ("schedule", "set", "nightly", "--every", "1d", "--expert", "alpha")


@pytest.fixture
def store(moe: Moe, client: Runtime) -> Store:
    """Of three experts alpha has learned."""
    made = Store(client.engine)
    add_version(made, "alpha", live=True)
    return made


def test_a_schedule_is_set(moe: Moe, store: Store) -> None:
    found = moe(*SET, "--min-feedback", "5", "--json").json

    view = store(schedules.view, "nightly")
    assert found == {
        "schedule": "nightly",
        "kind": "train_expert",
        "subject": "expert:alpha",
        "every_s": 86_400.0,
        "min_feedback": 5,
        "paused": False,
        "next_at": view.next_at.isoformat(),
        "last_at": None,
        "last_job": None,
        "last_state": None,
        "outcome": "never ran",
    }
    assert moe("schedule", "list", "--json").json == [found]


@pytest.mark.parametrize(
    ("every", "shown"), [("90m", "90m"), ("120m", "2h"), ("24h", "1d"), ("14d", "2w"), ("36h", "36h")]
)
def test_a_stretch_of_time_is_told_in_its_largest_unit(moe: Moe, store: Store, every: str, shown: str) -> None:
    said = moe("schedule", "set", "weekly", "--every", every, "--router", code=0).text
    next_at = store(schedules.view, "weekly").next_at
    assert said == f"weekly: train_router router every {shown}, next {next_at:%Y-%m-%d %H:%M}\n"


def test_schedules_are_a_table(moe: Moe, store: Store) -> None:
    moe(*SET, "--min-feedback", "5", code=0)
    moe("schedule", "set", "weekly", "--every", "1w", "--router", code=0)
    moe("schedule", "pause", "weekly", code=0)

    header, first, second = (line.split() for line in moe("schedule", "list", code=0).text.splitlines())

    assert " ".join(header) == "schedule does every feedback next last what came of it"
    assert (first[:5], first[7:]) == (["nightly", "train_expert", "expert:alpha", "1d", "5"], ["never", "ran"])
    assert second == ["weekly", "train_router", "router", "1w", "paused", "never", "ran"]


def test_without_schedules_there_is_an_empty_table(moe: Moe, store: Store) -> None:
    assert moe("schedule", "list", "--json").json == []
    assert len(moe("schedule", "list", code=0).text.splitlines()) == 1


def test_a_schedule_is_held_let_go_on_and_removed(moe: Moe, store: Store) -> None:
    moe(*SET, code=0)
    assert moe("schedule", "pause", "nightly", code=0).text == "nightly is paused\n"
    assert moe("schedule", "pause", "nightly", "--json").json["paused"] is True
    assert moe("schedule", "resume", "nightly", "--json").json["paused"] is False
    assert moe("schedule", "resume", "nightly", code=0).text.startswith("nightly: train_expert expert:alpha every 1d,")
    assert moe("schedule", "remove", "nightly", "--json").json == {"schedule": "nightly", "removed": True}
    moe(*SET, code=0)
    assert moe("schedule", "remove", "nightly", code=0).text == "nightly is removed\n"


def test_a_schedule_is_done_at_once(moe: Moe, store: Store) -> None:
    moe(*SET, code=0)
    found = moe("schedule", "run-now", "nightly", "--json").json
    assert store.rows("SELECT id, state FROM job") == [(found["job"], "queued")]
    [listed] = moe("schedule", "list", "--json").json
    assert (listed["last_job"], listed["last_state"]) == (found["job"], "queued")
    assert listed["last_at"] is not None
    said = moe("schedule", "run-now", "nightly", "--json", code=2)
    assert json.loads(said.err)["error"]["code"] == "not_allowed"
    moe("jobs", "cancel", str(found["job"]), code=0)
    said = moe("schedule", "run-now", "nightly", code=0)
    job = store.value("SELECT max(id) FROM job")
    assert said.text == f"job {job} is queued; `moe jobs watch {job}` follows it\n"


def test_its_end_may_be_waited_for(moe: Moe, store: Store, trainer: Trainer) -> None:
    moe(*SET, code=0)
    trainer.results["train_expert"] = HELD_BACK

    found = moe("schedule", "run-now", "nightly", "--wait", "--json").json
    said = moe("schedule", "run-now", "nightly", "--wait", code=0)

    first, second = trainer.done
    assert found == {"job": first, **HELD_BACK}
    assert said.text == f"job {second}: tax@1 stayed a candidate: not better than the base; F1 [0.1]\n"
    trainer.results["train_expert"] = "The loss is no number."
    assert "The loss is no number." in moe("schedule", "run-now", "nightly", "--wait", code=1).err


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("set", "nightly", "--every", "soon", "--router"), "bad_input", "'soon' is no stretch of time; "),
        (("set", "nightly", "--every", "1d"), "bad_input", "say what is to be done: --expert NAME, or --router"),
        (("set", "Nightly", "--every", "1d", "--router"), "bad_input", "'Nightly' is no name of a schedule: "),
        (("set", "nightly", "--every", "1d", "--expert", "tax"), "not_found", "no expert 'tax'; "),
        (("set", "nightly", "--every", "1d", "--expert", "beta"), "not_allowed", "beta has learned nothing yet; "),
        (("pause", "nightly"), "not_found", "no schedule 'nightly'"),
        (("resume", "nightly"), "not_found", "no schedule 'nightly'"),
        (("remove", "nightly"), "not_found", "no schedule 'nightly'"),
        (("run-now", "nightly"), "not_found", "no schedule 'nightly'"),
    ],
)
def test_what_cannot_be_done_ends_in_code_2(
    moe: Moe, store: Store, arguments: tuple[str, ...], code: str, complaint: str
) -> None:
    said = moe("schedule", *arguments, "--json", code=2)
    error = json.loads(said.err)["error"]
    assert (said.out, error["code"]) == (b"", code)
    assert error["message"].startswith(complaint)
    assert store.rows("SELECT id FROM schedule") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "nightly", "--router"),
        ("set", "nightly", "--every", "1d", "--router", "--min-feedback", "-1"),
        ("pause",),
    ],
    ids=" ".join,
)
def test_arguments_that_are_missing_or_wrong_end_in_code_2(moe: Moe, store: Store, arguments: tuple[str, ...]) -> None:
    assert moe("schedule", *arguments, code=2).out == b""
