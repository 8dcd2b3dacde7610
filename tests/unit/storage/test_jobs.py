"""Training jobs: asked for, worked on by one worker at a time, followed by people."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from storage import job_control, jobs, leases
from storage.errors import NotAllowed, NotFound
from storage.jobs import ClaimedJob, Event
from storage.leases import LeaseLost
from tests.unit.storage.builders import OWNER, TTL_S, Store, at_once, behind, expire_leases

ALPHA = "expert:alpha"


def try_claim(store: Store, job_id: int, max_attempts: int = 3) -> ClaimedJob | None:
    return store(jobs.claim, job_id, owner=OWNER, ttl_s=TTL_S, max_attempts=max_attempts)


def claim(store: Store, job_id: int) -> ClaimedJob:
    claimed = try_claim(store, job_id)
    assert claimed is not None
    return claimed


def test_a_job_that_was_asked_for_waits(store: Store) -> None:
    job_id = store(jobs.add, "train", {"experts": ["é"]})

    view = store(jobs.view, job_id)
    assert (view.id, view.kind, view.state, view.ended) == (job_id, "train", "queued", False)
    assert (view.result, view.error_code, view.error_message, view.finished_at) == (None, None, None, None)
    assert store.rows("SELECT params, published_at IS NOT NULL FROM job") == [({"experts": ["é"]}, True)]


def test_a_job_without_parameters_has_none(store: Store) -> None:
    assert claim(store, store(jobs.add, "train")).params == {}


def test_a_job_is_claimed_by_one_worker(store: Store) -> None:
    job_id = store(jobs.add, "train", {"a": 1})

    job = claim(store, job_id)

    assert (job.kind, job.params) == ("train", {"a": 1})
    assert (job.lease.table, job.lease.id, job.lease.epoch, job.lease.attempts) == ("job", job_id, 1, 1)
    assert store(jobs.view, job_id).state == "running"
    assert try_claim(store, job_id) is None
    assert try_claim(store, 0) is None


def test_a_job_whose_worker_was_lost_is_taken_over_while_tries_are_left(store: Store) -> None:
    job_id = store(jobs.add, "train")
    late = claim(store, job_id)
    expire_leases(store)

    assert try_claim(store, job_id, max_attempts=1) is None
    current = claim(store, job_id)

    assert (current.lease.epoch, current.lease.attempts) == (2, 2)
    with pytest.raises(LeaseLost):
        store(jobs.succeed, late, {"from": "late"})
    store(jobs.succeed, current, {"from": "current"})
    assert store(jobs.view, job_id).result == {"from": "current"}


def test_a_resting_job_is_not_claimed(store: Store) -> None:
    job_id = store(jobs.add, "train")
    store(leases.give_back, claim(store, job_id).lease, 3600)

    assert try_claim(store, job_id) is None


def succeed(store: Store, job: ClaimedJob) -> None:
    store(jobs.succeed, job, {"router": 3})


def fail(store: Store, job: ClaimedJob) -> None:
    store(jobs.fail, job, "no_documents", "There are none.")


ENDS = pytest.mark.parametrize(
    ("end", "told"),
    [
        (succeed, ("succeeded", {"router": 3}, None, None)),
        (fail, ("failed", None, "no_documents", "There are none.")),
    ],
)


@ENDS
def test_an_ended_job_tells_how(store: Store, end: Callable[[Store, ClaimedJob], None], told: Any) -> None:
    job = claim(store, store(jobs.add, "train"))

    end(store, job)
    end(store, job)  # the reply to the commit was lost

    view = store(jobs.view, job.lease.id)
    assert (view.state, view.result, view.error_code, view.error_message) == told
    assert (view.ended, view.finished_at is not None) == (True, True)
    assert try_claim(store, job.lease.id) is None


@ENDS
def test_a_job_ends_once(store: Store, end: Callable[[Store, ClaimedJob], None], told: Any) -> None:
    job = claim(store, store(jobs.add, "train"))
    end(store, job)
    other = fail if end is succeed else succeed

    with pytest.raises(LeaseLost):
        other(store, job)
    assert store(jobs.view, job.lease.id).state == told[0]


def test_the_end_of_a_job_is_noted_once(store: Store) -> None:
    """A repeated settle, whose first reply was lost, must not move the time of the end."""
    job = claim(store, store(jobs.add, "train"))
    succeed(store, job)
    store.sql("UPDATE job SET finished_at = '2020-01-01'")

    succeed(store, job)

    assert store(jobs.view, job.lease.id).finished_at.year == 2020  # type: ignore[union-attr]


def test_an_unknown_job_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="no job '0'"):
        store(jobs.view, 0)


def test_a_story_is_told_in_order_and_from_where_one_was(store: Store) -> None:
    first, second = (store(jobs.add, "train") for _ in range(2))
    store(jobs.report, first, "begun")
    store(jobs.report, second, "another story")
    store(jobs.report, first, "half", {"done": 0.5})

    (begun, half) = store(jobs.events, first)

    assert (begun, half) == (
        Event(begun.id, begun.at, "begun", None),
        Event(half.id, half.at, "half", {"done": 0.5}),
    )
    assert begun.at <= half.at
    assert store(jobs.events, first, after=begun.id) == [half]
    assert store(jobs.events, first, after=half.id) == []
    assert [event.message for event in store(jobs.events, second)] == ["another story"]
    assert store(jobs.events, 0) == []


# --- what a job works on ------------------------------------------------------------------------------------------


def test_a_job_tells_what_it_works_on(store: Store) -> None:
    about, other = store(jobs.add, "train", subject=ALPHA), store(jobs.add, "train")

    assert [store(jobs.view, job_id).subject for job_id in (about, other)] == [ALPHA, None]


@pytest.mark.parametrize("state", ["queued", "running"])
def test_no_two_open_jobs_work_on_one_subject(store: Store, state: str) -> None:
    first = store(jobs.add, "train", subject=ALPHA)
    if state == "running":
        claim(store, first)

    with pytest.raises(NotAllowed) as refused:
        store(jobs.add, "evaluate", subject=ALPHA)

    assert str(refused.value) == (
        f"job {first} (train, {state}) works on {ALPHA}; wait for it, or end it with `moe jobs cancel`"
    )
    assert [view.id for view in store(jobs.views)] == [first]


def test_jobs_on_different_subjects_or_on_none_are_open_side_by_side(store: Store) -> None:
    for subject in (ALPHA, "expert:beta", None, None):
        store(jobs.add, "train", subject=subject)

    assert len(store(jobs.views, only_open=True)) == 4


@ENDS
def test_a_subject_is_free_again_once_its_job_has_ended(
    store: Store, end: Callable[[Store, ClaimedJob], None], told: Any
) -> None:
    for _ in range(2):
        end(store, claim(store, store(jobs.add, "train", subject=ALPHA)))

    assert store.values("SELECT state FROM job") == [told[0]] * 2


def try_add(connection: Connection) -> int | None:
    try:
        return jobs.add(connection, "train", subject=ALPHA)
    except NotAllowed:
        return None


def test_of_jobs_that_are_asked_for_at_once_on_one_subject_one_is_queued(store: Store) -> None:
    added = at_once(store, [try_add] * 4)

    assert [job_id for job_id in added if job_id is not None] == store.values("SELECT id FROM job")


def test_who_comes_second_learns_which_job_was_first(store: Store) -> None:
    second = behind(store, try_add, lambda connection: jobs.add(connection, "evaluate", subject=ALPHA))

    with pytest.raises(NotAllowed, match=rf"^job \d+ \(train, queued\) works on {ALPHA}; "):
        second.result()


def test_who_comes_second_is_first_where_the_other_did_not_come_about(store: Store) -> None:
    second = behind(store, try_add, try_add, commit=False)

    assert second.result() == store.value("SELECT id FROM job")


# --- how far it is ------------------------------------------------------------------------------------------------


def test_a_running_job_tells_how_far_it_is(store: Store) -> None:
    job, other = (claim(store, store(jobs.add, "train")) for _ in range(2))
    assert store(jobs.view, job.lease.id).progress is None

    for step in (1, 2):
        store(jobs.progress, job.lease, {"step": step, "loss": 0.5})

    view = store(jobs.view, job.lease.id)
    assert (view.state, view.progress) == ("running", {"step": 2, "loss": 0.5})
    assert store(jobs.view, other.lease.id).progress is None


@pytest.mark.parametrize(("kept", "attempts"), [(False, 3), (True, 2)])
def test_the_tries_of_a_job_count_anew_from_what_is_kept(store: Store, kept: bool, attempts: int) -> None:
    """A long training whose worker dies now and then gets through as long as it gets on."""
    job_id = store(jobs.add, "train")
    job = claim(store, job_id)
    expire_leases(store)
    job = claim(store, job_id)

    store(jobs.progress, job.lease, {"step": 100}, kept=kept)

    expire_leases(store)
    again = claim(store, job_id)
    assert (again.lease.epoch, again.lease.attempts) == (3, attempts)


def test_a_worker_that_lost_its_lease_notes_nothing(store: Store) -> None:
    job_id = store(jobs.add, "train")
    late = claim(store, job_id)
    expire_leases(store)
    current = claim(store, job_id)
    store(jobs.progress, current.lease, {"from": "current"})

    store(jobs.progress, late.lease, {"from": "late"}, kept=True)

    assert store(jobs.view, job_id).progress == {"from": "current"}
    assert store.value("SELECT attempts FROM job") == 2


def test_what_has_ended_gets_no_further(store: Store) -> None:
    job = claim(store, store(jobs.add, "train"))
    store(jobs.progress, job.lease, {"step": 9})
    succeed(store, job)

    store(jobs.progress, job.lease, {"step": 10}, kept=True)

    assert store(jobs.view, job.lease.id).progress == {"step": 9}


# --- looking back -------------------------------------------------------------------------------------------------


def test_jobs_come_newest_first(store: Store) -> None:
    ended, running, waiting = (store(jobs.add, "train") for _ in range(3))
    succeed(store, claim(store, ended))
    claim(store, running)

    assert [view.id for view in store(jobs.views)] == [waiting, running, ended]
    assert [view.id for view in store(jobs.views, limit=2)] == [waiting, running]
    assert [view.id for view in store(jobs.views, only_open=True)] == [waiting, running]
    assert store(jobs.views)[0] == store(jobs.view, waiting)


def test_a_paused_job_is_open_and_a_cancelled_one_is_not(store: Store) -> None:
    paused, cancelled = (store(jobs.add, "train") for _ in range(2))
    store(job_control.stop, paused, "pause")
    store(job_control.stop, cancelled, "cancel")

    assert [(view.id, view.ended) for view in store(jobs.views)] == [(cancelled, True), (paused, False)]
    assert [view.id for view in store(jobs.views, only_open=True)] == [paused]


def test_the_last_result_is_that_of_the_newest_job_that_ended_well(store: Store) -> None:
    assert store(jobs.last_result, "train") is None
    first, second, third, other = (claim(store, store(jobs.add, kind)) for kind in ("train",) * 3 + ("evaluate",))
    store(jobs.succeed, second, {"from": "second"})
    store(jobs.succeed, first, {"from": "first"})
    fail(store, third)
    store(jobs.succeed, other, {"from": "other"})
    store(jobs.add, "train")

    assert store(jobs.last_result, "train") == {"from": "second"}
