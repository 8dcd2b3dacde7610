"""Schedules: each fires when its time has come, once, whoever sweeps; and says why when it does not."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from storage import job_control, jobs, schedules
from storage.errors import NotAllowed, NotFound
from storage.schedules import NewSchedule, ScheduleView
from tests.unit.storage.builders import Store, at_once, claim_job, submit

DAY_S = 86_400.0
ALPHA = "expert:alpha"


def new(name: str = "nightly", **changes: Any) -> NewSchedule:
    given: dict[str, Any] = {"kind": "train", "params": {"epochs": 2}, "subject": ALPHA, "every_s": DAY_S}
    return NewSchedule(name, **(given | changes))


def put(store: Store, name: str = "nightly", **changes: Any) -> ScheduleView:
    return store(schedules.put, new(name, **changes))


def make_due(store: Store, name: str = "nightly", *, for_s: float = 1.0) -> None:
    """The clock of these tests: the schedule has been due for so long."""
    store.sql(
        "UPDATE schedule SET next_at = clock_timestamp() - make_interval(secs => :s) WHERE name = :name",
        s=for_s,
        name=name,
    )


def due_schedule(store: Store, name: str = "nightly", **changes: Any) -> ScheduleView:
    put(store, name, **changes)
    make_due(store, name)
    return store(schedules.view, name)


def fire(store: Store) -> list[int]:
    return store(schedules.fire_due)


def view(store: Store, name: str = "nightly") -> ScheduleView:
    return store(schedules.view, name)


def next_in_s(store: Store, name: str = "nightly") -> float:
    """Seconds until the schedule is due, to the nearest minute."""
    query = "SELECT extract(epoch FROM next_at - clock_timestamp()) FROM schedule WHERE name = :name"
    return float(round(float(store.value(query, name=name)) / 60) * 60)


def say(store: Store, expert: str, correct: str | None = None, n: int = 1) -> None:
    """Feedback on answers of ``expert``; with ``correct`` somebody said who should have answered."""
    run = submit(store, 1)
    for _ in range(n):
        store.sql(
            "INSERT INTO feedback (run_id, idx, expert, positive, correct_expert)"
            " VALUES (:run, 0, :expert, false, :correct)",
            run=run.id,
            expert=expert,
            correct=correct,
        )


# --- keeping them -------------------------------------------------------------------------------------------------


def test_a_schedule_is_stored_with_all_it_was_given_and_waits_for_its_time(store: Store) -> None:
    given = put(store, min_feedback=5)

    assert given == view(store)
    assert given == ScheduleView(
        id=given.id,
        name="nightly",
        kind="train",
        params={"epochs": 2},
        subject=ALPHA,
        every_s=DAY_S,
        min_feedback=5,
        paused_at=None,
        next_at=given.next_at,
        last_at=None,
        last_job_id=None,
        last_said=None,
        job_state=None,
        job_result=None,
    )
    assert next_in_s(store) == DAY_S
    assert fire(store) == []


def test_a_schedule_of_the_same_name_is_changed_and_its_clock_starts_anew(store: Store) -> None:
    before = due_schedule(store)
    (job_id,) = fire(store)
    make_due(store)

    after = put(store, kind="evaluate", params={}, subject=None, every_s=3600, min_feedback=1)

    assert (after.id, after.kind, after.params, after.subject) == (before.id, "evaluate", {}, None)
    assert (after.every_s, after.min_feedback, next_in_s(store)) == (3600, 1, 3600)
    assert after.last_job_id == job_id
    assert fire(store) == []


def test_schedules_that_are_put_at_once_are_one(store: Store) -> None:
    views = at_once(store, [partial(schedules.put, new=new(every_s=every_s)) for every_s in (60, 120, 180)])

    assert {found.id for found in views} == {view(store).id}
    assert store(schedules.views) == [view(store)]


def test_a_schedule_that_is_put_again_goes_on(store: Store) -> None:
    put(store)
    store(schedules.pause, "nightly", paused=True)

    assert put(store).paused_at is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"every_s": 59.9}, "at_most_each_minute"), ({"min_feedback": -1}, "feedback_is_counted")],
)
def test_a_schedule_that_cannot_be_kept_is_refused(store: Store, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        put(store, **changes)

    assert store(schedules.views) == []


def test_schedules_come_by_name(store: Store) -> None:
    for name in ("weekly", "hourly"):
        put(store, name)

    assert [found.name for found in store(schedules.views)] == ["hourly", "weekly"]


@pytest.mark.parametrize(
    "call",
    [
        schedules.view,
        schedules.remove,
        schedules.run_now,
        partial(schedules.pause, paused=True),
        partial(schedules.pause, paused=False),
    ],
)
def test_an_unknown_schedule_is_named_with_those_there_are(store: Store, call: Callable[..., Any]) -> None:
    for name in ("weekly", "hourly"):
        put(store, name)

    with pytest.raises(NotFound, match=r"^no schedule 'daily'; there are: hourly, weekly$"):
        store(call, name="daily")


def test_a_removed_schedule_leaves_its_jobs_and_the_others(store: Store) -> None:
    due_schedule(store)
    put(store, "weekly")
    (job_id,) = fire(store)

    store(schedules.remove, "nightly")

    assert [found.name for found in store(schedules.views)] == ["weekly"]
    assert store(jobs.view, job_id).state == "queued"


# --- firing -------------------------------------------------------------------------------------------------------


def test_a_due_schedule_queues_its_job_and_waits_for_its_next_time(store: Store) -> None:
    due_schedule(store)

    (job_id,) = fire(store)

    job = claim_job(store, job_id)
    assert (job.kind, job.params) == ("train", {"epochs": 2, "schedule": "nightly"})
    assert store(jobs.view, job_id).subject == ALPHA
    now = view(store)
    assert (now.last_job_id, now.last_said, now.job_state, next_in_s(store)) == (job_id, None, "running", DAY_S)
    assert now.params == {"epochs": 2}
    assert now.last_at is not None
    assert now.next_at - now.last_at < timedelta(seconds=DAY_S + 60)
    assert fire(store) == []


def test_times_that_were_missed_are_made_up_for_once(store: Store) -> None:
    """Nobody swept for a month: that is one job, not thirty."""
    put(store)
    make_due(store, for_s=30 * DAY_S)

    assert len(fire(store)) == 1

    assert fire(store) == []
    assert next_in_s(store) == DAY_S


def test_a_sweep_queues_no_more_than_its_limit_and_the_longest_due_first(store: Store) -> None:
    for age, name in enumerate(("c", "a", "b")):
        put(store, name, subject=None)
        make_due(store, name, for_s=60.0 * (age + 1))

    def fired(limit: int) -> list[str]:
        return [claim_job(store, job_id).params["schedule"] for job_id in store(schedules.fire_due, limit=limit)]

    assert [fired(2), fired(2), fired(2)] == [["b", "a"], ["c"], []]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (partial(jobs.succeed, result={"version": 3}), ("succeeded", {"version": 3})),
        (partial(jobs.fail, code="no_examples", message="There are none."), ("failed", None)),
        (partial(job_control.settle_stopped, asked="cancel"), ("cancelled", None)),
    ],
)
def test_a_schedule_tells_what_came_of_its_last_job(store: Store, end: Callable[..., None], told: Any) -> None:
    due_schedule(store)
    (job_id,) = fire(store)

    store(end, job=claim_job(store, job_id))

    assert (view(store).job_state, view(store).job_result) == told
    make_due(store)
    assert len(fire(store)) == 1
    assert view(store).job_state == "queued"


def leave(store: Store, job_id: int) -> None:
    """The job waits."""


def run(store: Store, job_id: int) -> None:
    claim_job(store, job_id)


def pause(store: Store, job_id: int) -> None:
    store(job_control.stop, job_id, "pause")


@pytest.mark.parametrize(("bring", "state"), [(leave, "queued"), (run, "running"), (pause, "paused")])
def test_while_the_last_job_is_open_the_schedule_waits_for_its_next_time(
    store: Store, bring: Callable[[Store, int], None], state: str
) -> None:
    due_schedule(store)
    (job_id,) = fire(store)
    before = view(store)
    bring(store, job_id)
    make_due(store)

    assert fire(store) == []

    now = view(store)
    assert now.last_said == (
        f"passed over: job {job_id} (train, {state}) works on {ALPHA}; wait for it, or end it with `moe jobs cancel`"
    )
    assert (now.last_job_id, now.last_at, next_in_s(store)) == (job_id, before.last_at, DAY_S)


@pytest.mark.parametrize("bring", [leave, run, pause])
def test_a_schedule_that_works_on_nothing_in_particular_waits_for_its_last_job_too(
    store: Store, bring: Callable[[Store, int], None]
) -> None:
    due_schedule(store, subject=None)
    (job_id,) = fire(store)
    bring(store, job_id)
    make_due(store)

    assert fire(store) == []

    assert view(store).last_job_id == job_id
    assert str(view(store).last_said).startswith("passed over: ")


def test_a_schedule_waits_for_a_job_that_a_person_asked_for(store: Store) -> None:
    other = store(jobs.add, "evaluate", subject=ALPHA)
    due_schedule(store)

    assert fire(store) == []

    now = view(store)
    assert (now.last_job_id, now.last_at) == (None, None)
    assert str(now.last_said).startswith(f"passed over: job {other} (evaluate, queued) works on {ALPHA}")
    store(job_control.stop, other, "cancel")
    make_due(store)
    assert len(fire(store)) == 1
    assert view(store).last_said is None


def test_of_two_schedules_for_one_subject_the_longest_due_fires(store: Store) -> None:
    for name in ("first", "second"):
        due_schedule(store, name)
    make_due(store, "second", for_s=60)
    due_schedule(store, "another", subject="expert:beta")

    fired = [claim_job(store, job_id).params["schedule"] for job_id in fire(store)]

    assert fired == ["second", "another"]
    assert str(view(store, "first").last_said).startswith("passed over: job ")


# --- feedback -----------------------------------------------------------------------------------------------------


def test_a_schedule_waits_until_enough_feedback_has_gathered(store: Store) -> None:
    due_schedule(store, min_feedback=3)
    say(store, "alpha", n=2)
    say(store, "beta", n=9)

    assert fire(store) == []

    now = view(store)
    assert (now.last_said, now.last_job_id) == ("passed over: 2 of 3 new pieces of feedback", None)
    assert (now.last_at, next_in_s(store)) == (None, DAY_S)
    say(store, "beta", correct="alpha")
    make_due(store)
    assert len(fire(store)) == 1


def test_feedback_counts_once(store: Store) -> None:
    """What had been said when the last job was queued is what that job learns from."""
    say(store, "alpha", n=3)
    due_schedule(store, min_feedback=3)
    (job_id,) = fire(store)
    store(jobs.succeed, claim_job(store, job_id), {})
    say(store, "alpha", correct="alpha")
    make_due(store)

    assert fire(store) == []

    assert view(store).last_said == "passed over: 1 of 3 new pieces of feedback"


def test_feedback_that_was_passed_over_is_not_forgotten(store: Store) -> None:
    due_schedule(store, min_feedback=2)
    for fires in (0, 1):
        say(store, "alpha")
        make_due(store)
        assert len(fire(store)) == fires


# --- holding, and asking out of turn ------------------------------------------------------------------------------


def test_a_paused_schedule_fires_only_once_it_goes_on(store: Store) -> None:
    due_schedule(store)
    held = store(schedules.pause, "nightly", paused=True)
    assert held.paused_at is not None
    make_due(store)
    assert fire(store) == []
    assert store(schedules.pause, "nightly", paused=True).paused_at == held.paused_at

    assert store(schedules.pause, "nightly", paused=False).paused_at is None

    assert len(fire(store)) == 1
    assert fire(store) == []


def test_a_pause_that_ends_before_the_time_has_come_changes_nothing(store: Store) -> None:
    before = put(store)

    for paused in (True, False):
        store(schedules.pause, "nightly", paused=paused)

    assert view(store) == before


@pytest.mark.parametrize("paused", [False, True])
def test_a_schedule_can_be_run_whatever_the_clock_and_the_feedback_say(store: Store, paused: bool) -> None:
    put(store, min_feedback=5)
    store(schedules.pause, "nightly", paused=paused)
    store.sql("UPDATE schedule SET next_at = clock_timestamp() + interval '1 hour'")

    job_id = store(schedules.run_now, "nightly")

    assert claim_job(store, job_id).params == {"epochs": 2, "schedule": "nightly"}
    now = view(store)
    assert (now.last_job_id, now.last_said, now.last_at is not None) == (job_id, None, True)
    assert (next_in_s(store), now.paused_at is not None) == (DAY_S, paused)


def test_a_schedule_is_not_run_beside_another_job_on_its_subject(store: Store) -> None:
    put(store)
    other = store(jobs.add, "evaluate", subject=ALPHA)
    before = view(store)

    with pytest.raises(NotAllowed, match=rf"^job {other} \(evaluate, queued\) works on {ALPHA}; wait for it, or end "):
        store(schedules.run_now, "nightly")

    assert view(store) == before
    assert store.value("SELECT count(*) FROM job") == 1


# --- many sweepers at once ----------------------------------------------------------------------------------------


def test_sweepers_at_once_queue_each_job_once(store: Store) -> None:
    names = [f"s{n}" for n in range(6)]
    for name in names:
        due_schedule(store, name, subject=None)

    fired = at_once(store, [partial(schedules.fire_due, limit=4)] * 3)
    fired.append(fire(store))

    job_ids = sorted(job_id for part in fired for job_id in part)
    assert job_ids == store.values("SELECT id FROM job ORDER BY id")
    assert sorted(claim_job(store, job_id).params["schedule"] for job_id in job_ids) == names


def test_a_sweeper_passes_over_what_another_has_in_hand(store: Store) -> None:
    due_schedule(store)

    with store.engine.begin() as other:
        assert len(schedules.fire_due(other)) == 1
        assert fire(store) == []

    assert store.value("SELECT count(*) FROM job") == 1


def test_a_person_and_a_sweeper_at_once_queue_one_job(store: Store) -> None:
    due_schedule(store)

    def run_now(connection: Any) -> list[int]:
        try:
            return [schedules.run_now(connection, "nightly")]
        except NotAllowed:
            return []

    fired = at_once(store, [run_now, schedules.fire_due])

    assert [job_id for part in fired for job_id in part] == store.values("SELECT id FROM job")
    assert view(store).last_job_id == store.value("SELECT id FROM job")
