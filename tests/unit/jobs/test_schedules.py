"""Schedules as people set them, and what they are told of them."""

from dataclasses import replace
from typing import Any

import pytest

from jobs import schedules
from jobs.errors import BadInput
from storage import job_control, jobs
from storage.errors import NotAllowed, NotFound
from storage.hints import JobHint
from storage.schedules import ScheduleView, fire_due
from tests.unit.jobs.lines import rows
from tests.unit.jobs.trainer import HELD_BACK, PASSED, Sent, add_version
from tests.unit.storage.builders import Store, claim_job
from worker.runtime import Runtime

DAY_S = 86_400.0


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def stack(client: Runtime, sent: Sent) -> Runtime:
    """Of three experts alpha has learned; what is sent is kept."""
    made = replace(client, dispatcher=sent)  # type: ignore[arg-type]
    add_version(Store(made.engine), "alpha", live=True)
    return made


@pytest.fixture
def store(stack: Runtime) -> Store:
    return Store(stack.engine)


def view(stack: Runtime) -> ScheduleView:
    """The one schedule there is."""
    [found] = schedules.listing(stack)
    return found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m", 60), ("30m", 1800), ("6h", 21_600), ("1d", DAY_S), (" 2w ", 1_209_600), ("366d", 366 * DAY_S)],
)
def test_a_stretch_of_time_is_read(text: str, seconds: float) -> None:
    assert schedules.every(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "-1d", "1", "d", "1.5h", "1 d", "1D", "1y", "60s", "367d", "53w", "99999w"])
def test_what_is_no_stretch_of_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"is no stretch of time; write it as 30m, 6h, 1d or 2w, at most a year$"):
        schedules.every(text)


def test_an_expert_is_retrained_on_a_schedule(stack: Runtime) -> None:
    found = schedules.put(stack, "nightly", every_s=DAY_S, expert="alpha", min_feedback=10)
    assert (found.name, found.kind, found.subject, found.params) == (
        "nightly",
        "train_expert",
        "expert:alpha",
        {"mode": "retrain", "expert": "alpha"},
    )
    assert (found.every_s, found.min_feedback, found.paused_at) == (DAY_S, 10, None)
    assert schedules.listing(stack) == [found]
    assert rows(stack.engine, "SELECT id FROM job") == []


def test_the_router_is_trained_on_a_schedule_as_it_is_set_up(stack: Runtime) -> None:
    found = schedules.put(stack, "weekly", every_s=7 * DAY_S, router=True)
    assert (found.kind, found.subject) == ("train_router", "router")
    assert found.params == {"kind": stack.settings.routing.kind, "promote": True}


def test_a_schedule_of_the_same_name_is_changed(stack: Runtime) -> None:
    schedules.put(stack, "nightly", every_s=DAY_S, expert="alpha")
    schedules.put(stack, "nightly", every_s=60, router=True)
    assert (view(stack).kind, view(stack).every_s) == ("train_router", 60)


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        ({}, BadInput, "say what is to be done: --expert NAME, or --router"),
        ({"expert": "alpha", "router": True}, BadInput, "say what is to be done: --expert NAME, or --router"),
        ({"router": True, "min_feedback": 1}, BadInput, "--min-feedback counts feedback on one expert; it goes with"),
        ({"name": "Nightly", "router": True}, BadInput, "'Nightly' is no name of a schedule: lower-case letters"),
        ({"name": "", "router": True}, BadInput, "'' is no name of a schedule"),
        ({"expert": "tax"}, NotFound, "no expert 'tax'; there are: alpha, beta, gamma"),
        ({"expert": "beta"}, NotAllowed, "beta has learned nothing yet; `moe experts train beta --data FILE` begins"),
    ],
)
def test_what_cannot_be_done_is_not_scheduled(
    stack: Runtime, given: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    wanted: dict[str, Any] = {"name": "nightly", "every_s": DAY_S}
    with pytest.raises(error) as caught:
        schedules.put(stack, **(wanted | given))
    assert str(caught.value).startswith(complaint)
    assert schedules.listing(stack) == []


def test_a_schedule_is_held_let_go_on_and_removed(stack: Runtime) -> None:
    schedules.put(stack, "nightly", every_s=DAY_S, expert="alpha")
    assert schedules.pause(stack, "nightly", paused=True).paused_at is not None
    assert schedules.pause(stack, "nightly", paused=False).paused_at is None
    schedules.remove(stack, "nightly")
    assert schedules.listing(stack) == []


def test_an_unknown_schedule_is_told(stack: Runtime) -> None:
    schedules.put(stack, "weekly", every_s=DAY_S, router=True)
    unknown = r"^no schedule 'nightly'; there are: weekly$"
    with pytest.raises(NotFound, match=unknown):
        schedules.pause(stack, "nightly", paused=True)
    with pytest.raises(NotFound, match=unknown):
        schedules.remove(stack, "nightly")
    with pytest.raises(NotFound, match=unknown):
        schedules.run_now(stack, "nightly")


def test_a_schedule_is_done_at_once_unless_it_is_under_way(stack: Runtime, sent: Sent) -> None:
    schedules.put(stack, "nightly", every_s=DAY_S, expert="alpha", min_feedback=100)
    schedules.pause(stack, "nightly", paused=True)
    job = schedules.run_now(stack, "nightly")
    assert rows(stack.engine, "SELECT id, kind, subject, params FROM job") == [
        (job, "train_expert", "expert:alpha", {"mode": "retrain", "expert": "alpha", "schedule": "nightly"})
    ]
    assert sent.hints == [JobHint(job)]
    with pytest.raises(NotAllowed, match=rf"^job {job} \(train_expert, queued\) works on expert:alpha; "):
        schedules.run_now(stack, "nightly")
    assert len(sent.hints) == 1


# What came of it


def finished(stack: Runtime, store: Store, result: dict[str, Any], **what: Any) -> str:
    """What is said of a schedule whose job came to ``result``."""
    schedules.put(stack, "nightly", every_s=DAY_S, **what)
    job = schedules.run_now(stack, "nightly")
    store(jobs.succeed, claim_job(store, job), result)
    return schedules.outcome(view(stack)).removeprefix(f"job {job}: ")


def test_a_training_is_told_with_what_the_gate_said(stack: Runtime, store: Store) -> None:
    assert finished(stack, store, PASSED, expert="alpha") == "tax@1 went live"
    assert finished(stack, store, HELD_BACK, expert="alpha") == (
        "tax@1 stayed a candidate: not better than the base; F1 [0.1]"
    )


def test_a_router_is_told_with_its_state(stack: Runtime, store: Store) -> None:
    said = finished(stack, store, {"router_version": 4, "state": "live", "metrics": {}}, router=True)
    assert said == "router 4 live"


def test_a_schedule_that_has_no_result_yet_says_where_it_stands(stack: Runtime, store: Store) -> None:
    schedules.put(stack, "nightly", every_s=DAY_S, expert="alpha", min_feedback=3)
    assert schedules.outcome(view(stack)) == "never ran"
    job = schedules.run_now(stack, "nightly")
    assert schedules.outcome(view(stack)) == f"job {job} queued"
    store(jobs.fail, claim_job(store, job), "cannot_train", "Nothing to learn.")
    assert schedules.outcome(view(stack)) == f"job {job} failed"


def test_why_a_schedule_was_passed_over_is_told(stack: Runtime, store: Store) -> None:
    schedules.put(stack, "nightly", every_s=DAY_S, expert="alpha", min_feedback=3)
    store.sql("UPDATE schedule SET next_at = clock_timestamp() - interval '1 second'")
    assert store(fire_due) == []
    assert schedules.outcome(view(stack)) == "passed over: 0 of 3 new pieces of feedback"


def test_a_job_that_was_cancelled_is_told(stack: Runtime, store: Store) -> None:
    schedules.put(stack, "nightly", every_s=DAY_S, router=True)
    job = schedules.run_now(stack, "nightly")
    store(job_control.stop, job, "cancel")
    assert schedules.outcome(view(stack)) == f"job {job} cancelled"
