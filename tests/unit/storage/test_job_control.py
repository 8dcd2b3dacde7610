"""Stopping jobs: what waits is moved at once, what runs is asked, and nothing is ever half of each."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import pytest
from sqlalchemy import Connection

from storage import job_control, jobs, leases
from storage.errors import NotAllowed, NotFound
from storage.job_control import Wanted
from storage.jobs import ClaimedJob, JobView
from storage.leases import LeaseLost
from tests.unit.storage.builders import (
    OWNER,
    TTL_S,
    Store,
    at_once,
    behind,
    claim_job,
    end_rests,
    expire_leases,
    running_job,
    state_of,
)

BECOMES = pytest.mark.parametrize(("wanted", "becomes"), [("cancel", "cancelled"), ("pause", "paused")])
EITHER = pytest.mark.parametrize("wanted", ["cancel", "pause"])


def stop(store: Store, job_id: int, wanted: Wanted) -> JobView:
    return store(job_control.stop, job_id, wanted)


def try_claim(connection: Connection, job_id: int) -> ClaimedJob | None:
    return jobs.claim(connection, job_id, owner=OWNER, ttl_s=TTL_S, max_attempts=3)


def try_stop(connection: Connection, job_id: int, wanted: Wanted) -> JobView | None:
    """None where it was refused."""
    try:
        return job_control.stop(connection, job_id, wanted)
    except NotAllowed:
        return None


def succeed(store: Store, job: ClaimedJob) -> None:
    store(jobs.succeed, job, {"version": 2})


def fail(store: Store, job: ClaimedJob) -> None:
    store(jobs.fail, job, "no_examples", "There are none.")


def cancel(store: Store, job: ClaimedJob) -> None:
    store(job_control.settle_stopped, job, "cancel")


ENDS = pytest.mark.parametrize(
    ("end", "state"),
    [(succeed, "succeeded"), (fail, "failed"), (cancel, "cancelled")],
    ids=["succeeded", "failed", "cancelled"],
)


def paused_job(store: Store, subject: str | None = None) -> int:
    job_id = store(jobs.add, "train", subject=subject)
    stop(store, job_id, "pause")
    return job_id


# --- a job that waits ---------------------------------------------------------------------------------------------


@BECOMES
def test_a_waiting_job_is_stopped_at_once(store: Store, wanted: Wanted, becomes: str) -> None:
    job_id, other = (store(jobs.add, "train") for _ in range(2))

    view = stop(store, job_id, wanted)

    assert view == store(jobs.view, job_id)
    assert (view.state, view.wanted) == (becomes, None)
    assert (view.ended, view.finished_at is not None) == ((True, True) if wanted == "cancel" else (False, False))
    assert store(try_claim, job_id) is None
    assert store(jobs.view, other).state == "queued"


def test_a_paused_job_can_still_be_cancelled(store: Store) -> None:
    view = stop(store, paused_job(store), "cancel")

    assert (view.state, view.ended, view.finished_at is not None) == ("cancelled", True, True)


@EITHER
def test_stopping_a_stopped_job_again_changes_nothing(store: Store, wanted: Wanted) -> None:
    job_id = store(jobs.add, "train")
    before = stop(store, job_id, wanted)

    assert stop(store, job_id, wanted) == before


@EITHER
def test_a_job_that_rests_between_two_tries_is_stopped_at_once(store: Store, wanted: Wanted) -> None:
    job = running_job(store)
    store(leases.give_back, job.lease, 3600)

    assert stop(store, job.lease.id, wanted).state in ("cancelled", "paused")
    end_rests(store)
    assert store(try_claim, job.lease.id) is None


# --- a job that runs ----------------------------------------------------------------------------------------------


@EITHER
def test_a_running_job_is_asked_and_goes_on_until_its_worker_looks(store: Store, wanted: Wanted) -> None:
    job, other = running_job(store), running_job(store)
    assert store(job_control.wanted, job.lease.id) is None

    view = stop(store, job.lease.id, wanted)

    assert (view.state, view.wanted, view.ended, view.finished_at) == ("running", wanted, False, None)
    assert store(job_control.wanted, job.lease.id) == wanted
    assert store(job_control.wanted, other.lease.id) is None
    assert store(leases.renew, job.lease) is True


@EITHER
def test_asking_a_running_job_again_changes_nothing(store: Store, wanted: Wanted) -> None:
    job = running_job(store)
    before = stop(store, job.lease.id, wanted)

    assert stop(store, job.lease.id, wanted) == before


@pytest.mark.parametrize("order", [("pause", "cancel"), ("cancel", "pause")])
def test_a_job_that_was_asked_to_pause_and_to_cancel_is_cancelled(store: Store, order: tuple[Wanted, Wanted]) -> None:
    job = running_job(store)
    for wanted in order:
        view = stop(store, job.lease.id, wanted)

    assert (view.state, view.wanted) == ("running", "cancel")


@BECOMES
def test_a_worker_that_stopped_ends_or_pauses_the_job(store: Store, wanted: Wanted, becomes: str) -> None:
    job = running_job(store)
    stop(store, job.lease.id, wanted)

    store(job_control.settle_stopped, job, wanted)

    view = store(jobs.view, job.lease.id)
    assert (view.state, view.wanted, view.error_code, view.result) == (becomes, None, None, None)
    assert (view.finished_at is not None) == (wanted == "cancel")
    assert store.rows("SELECT lease_until, owner FROM job") == [(None, None)]
    assert store(try_claim, job.lease.id) is None
    with pytest.raises(LeaseLost):
        succeed(store, job)


@BECOMES
def test_a_repeated_settle_of_a_stopped_job_changes_nothing(store: Store, wanted: Wanted, becomes: str) -> None:
    """The reply to the first commit was lost."""
    job = running_job(store)
    stop(store, job.lease.id, wanted)
    store(job_control.settle_stopped, job, wanted)
    store.sql("UPDATE job SET finished_at = '2020-01-01' WHERE finished_at IS NOT NULL")
    before = store(jobs.view, job.lease.id)

    store(job_control.settle_stopped, job, wanted)

    assert store(jobs.view, job.lease.id) == before


@EITHER
def test_a_worker_that_lost_its_lease_stops_nothing(store: Store, wanted: Wanted) -> None:
    late = running_job(store)
    stop(store, late.lease.id, wanted)
    expire_leases(store)
    current = claim_job(store, late.lease.id)

    with pytest.raises(LeaseLost):
        store(job_control.settle_stopped, late, wanted)

    assert (state_of(store, current.lease), store(job_control.wanted, current.lease.id)) == ("running", wanted)
    store(job_control.settle_stopped, current, wanted)


@ENDS
@EITHER
def test_a_worker_that_had_ended_the_job_cannot_stop_it(
    store: Store, wanted: Wanted, end: Callable[[Store, ClaimedJob], None], state: str
) -> None:
    job = running_job(store)
    end(store, job)
    if (state, wanted) == ("cancelled", "cancel"):
        return  # the same settle again, which changes nothing

    with pytest.raises(LeaseLost):
        store(job_control.settle_stopped, job, wanted)

    assert state_of(store, job.lease) == state


# --- going on -----------------------------------------------------------------------------------------------------


def test_a_resumed_job_goes_on_where_it_was_with_all_its_tries(store: Store) -> None:
    job = running_job(store)
    for _ in range(2):
        expire_leases(store)
        job = claim_job(store, job.lease.id)
    store(jobs.progress, job.lease, {"step": 70})
    stop(store, job.lease.id, "pause")
    store(job_control.settle_stopped, job, "pause")

    view = store(job_control.resume, job.lease.id)

    assert (view.state, view.wanted, view.progress) == ("queued", None, {"step": 70})
    again = claim_job(store, job.lease.id)
    assert (again.lease.epoch, again.lease.attempts) == (4, 1)


def test_a_job_that_was_paused_while_it_rested_is_due_at_once(store: Store) -> None:
    job = running_job(store)
    store(leases.give_back, job.lease, 3600)
    stop(store, job.lease.id, "pause")

    store(job_control.resume, job.lease.id)

    assert store.value("SELECT published_at IS NOT NULL FROM job") is True
    assert claim_job(store, job.lease.id).lease.epoch == 2


def test_a_pause_that_was_asked_for_is_taken_back(store: Store) -> None:
    job = running_job(store)
    stop(store, job.lease.id, "pause")

    view = store(job_control.resume, job.lease.id)

    assert (view.state, view.wanted, store(job_control.wanted, job.lease.id)) == ("running", None, None)
    succeed(store, job)


def test_resuming_a_job_that_waits_changes_nothing(store: Store) -> None:
    job_id = paused_job(store)
    store(job_control.resume, job_id)
    before = store.rows("SELECT * FROM job")

    assert store(job_control.resume, job_id).state == "queued"

    assert store.rows("SELECT * FROM job") == before


def test_resuming_a_job_touches_no_other(store: Store) -> None:
    job_id, other = paused_job(store), paused_job(store)
    asked = running_job(store)
    stop(store, asked.lease.id, "pause")

    store(job_control.resume, job_id)

    assert store(jobs.view, other).state == "paused"
    assert store(job_control.wanted, asked.lease.id) == "pause"


# --- what is refused ----------------------------------------------------------------------------------------------


@ENDS
@EITHER
def test_a_job_that_has_ended_cannot_be_stopped(
    store: Store, wanted: Wanted, end: Callable[[Store, ClaimedJob], None], state: str
) -> None:
    job = running_job(store)
    end(store, job)
    before = store(jobs.view, job.lease.id)

    if (state, wanted) == ("cancelled", "cancel"):
        assert stop(store, job.lease.id, wanted) == before
    else:
        with pytest.raises(NotAllowed, match=rf"^job {job.lease.id} is {state}; only open jobs can be stopped$"):
            stop(store, job.lease.id, wanted)

    assert store(jobs.view, job.lease.id) == before


@ENDS
def test_a_job_that_has_ended_cannot_be_resumed(
    store: Store, end: Callable[[Store, ClaimedJob], None], state: str
) -> None:
    job = running_job(store)
    end(store, job)

    with pytest.raises(NotAllowed, match=rf"^job {job.lease.id} is {state}; only paused jobs can be resumed$"):
        store(job_control.resume, job.lease.id)


@pytest.mark.parametrize("asked", [None, "cancel"])
def test_a_running_job_that_nobody_asked_to_pause_cannot_be_resumed(store: Store, asked: Wanted | None) -> None:
    job = running_job(store)
    if asked is not None:
        stop(store, job.lease.id, asked)

    with pytest.raises(NotAllowed, match=rf"^job {job.lease.id} is running; only paused jobs can be resumed$"):
        store(job_control.resume, job.lease.id)

    assert store(job_control.wanted, job.lease.id) == asked


@pytest.mark.parametrize(
    "call",
    [partial(job_control.stop, wanted="cancel"), partial(job_control.stop, wanted="pause"), job_control.resume],
)
def test_an_unknown_job_is_not_found(store: Store, call: Callable[..., Any]) -> None:
    with pytest.raises(NotFound, match=r"^no job '0'"):
        store(call, job_id=0)
    assert store(job_control.wanted, 0) is None


@pytest.mark.parametrize("wanted", ["", "stop"])
def test_nothing_else_can_be_wanted_of_a_job(store: Store, wanted: str) -> None:
    running_job(store)

    with pytest.raises(Exception, match="wanted_is_known"):
        store.sql("UPDATE job SET wanted = :wanted", wanted=wanted)


# --- what it works on ---------------------------------------------------------------------------------------------


def test_a_paused_job_keeps_what_it_works_on_and_a_cancelled_one_frees_it(store: Store) -> None:
    job_id = paused_job(store, "expert:alpha")
    with pytest.raises(NotAllowed, match=rf"^job {job_id} \(train, paused\) works on expert:alpha; "):
        store(jobs.add, "train", subject="expert:alpha")

    stop(store, job_id, "cancel")

    assert store(jobs.add, "train", subject="expert:alpha") > job_id


# --- at the same moment -------------------------------------------------------------------------------------------


@BECOMES
def test_a_job_that_is_claimed_while_it_is_stopped_is_one_or_the_other(
    store: Store, wanted: Wanted, becomes: str
) -> None:
    for _ in range(5):
        job_id = store(jobs.add, "train")

        works: list[Callable[[Connection], ClaimedJob | JobView | None]] = [
            partial(try_claim, job_id=job_id),
            partial(job_control.stop, job_id=job_id, wanted=wanted),
        ]

        claimed, view = at_once(store, works)

        now = store(jobs.view, job_id)
        assert now == view
        assert (now.state, now.wanted) == ((becomes, None) if claimed is None else ("running", wanted))


@EITHER
def test_a_job_that_is_claimed_first_is_asked_to_stop(store: Store, wanted: Wanted) -> None:
    job_id = store(jobs.add, "train")

    stopped = behind(store, partial(try_claim, job_id=job_id), partial(job_control.stop, job_id=job_id, wanted=wanted))

    assert (stopped.result().state, stopped.result().wanted) == ("running", wanted)


@EITHER
def test_a_job_that_is_stopped_first_is_claimed_by_nobody(store: Store, wanted: Wanted) -> None:
    job_id = store(jobs.add, "train")

    claimed = behind(store, partial(job_control.stop, job_id=job_id, wanted=wanted), partial(try_claim, job_id=job_id))

    assert claimed.result() is None


@EITHER
def test_a_job_that_ends_while_it_is_asked_to_stop_has_ended(store: Store, wanted: Wanted) -> None:
    job = running_job(store)

    stopped = behind(
        store,
        partial(jobs.succeed, job=job, result={}),
        partial(job_control.stop, job_id=job.lease.id, wanted=wanted),
    )

    with pytest.raises(NotAllowed, match=rf"^job {job.lease.id} is succeeded; only open jobs can be stopped$"):
        stopped.result()
    view = store(jobs.view, job.lease.id)
    assert (view.state, view.wanted, view.result) == ("succeeded", None, {})


def test_a_job_that_is_cancelled_and_paused_at_once_is_cancelled(store: Store) -> None:
    for _ in range(5):
        waiting, running = store(jobs.add, "train"), running_job(store).lease.id
        for job_id in (waiting, running):
            at_once(store, [partial(try_stop, job_id=job_id, wanted=wanted) for wanted in get_args(Wanted)])

        assert store(jobs.view, waiting).state == "cancelled"
        assert store(job_control.wanted, running) == "cancel"


def test_a_job_that_is_resumed_while_it_is_cancelled_is_cancelled(store: Store) -> None:
    job_id = paused_job(store)

    cancelled = behind(
        store, partial(job_control.resume, job_id=job_id), partial(job_control.stop, job_id=job_id, wanted="cancel")
    )

    assert cancelled.result().state == "cancelled"


@ENDS
def test_a_job_that_ends_in_spite_of_what_was_asked_is_asked_nothing_more(
    store: Store, end: Callable[[Store, ClaimedJob], None], state: str
) -> None:
    """Its worker was done before it looked; what was asked has come to nothing, and asking again is refused."""
    job = running_job(store)
    stop(store, job.lease.id, "pause")

    end(store, job)

    view = store(jobs.view, job.lease.id)
    assert (view.state, view.wanted) == (state, None)
    with pytest.raises(NotAllowed, match=r"only open jobs can be stopped$"):
        stop(store, job.lease.id, "pause")


@BECOMES
def test_a_job_that_goes_back_to_waiting_while_it_is_stopped_is_stopped(
    store: Store, wanted: Wanted, becomes: str
) -> None:
    job = running_job(store)

    stopped = behind(
        store,
        partial(leases.give_back, lease=job.lease, delay_s=0),
        partial(job_control.stop, job_id=job.lease.id, wanted=wanted),
    )

    assert stopped.result().state == becomes


def test_a_job_that_is_cancelled_while_its_worker_pauses_it_is_cancelled(store: Store) -> None:
    """The worker saw that a pause was wanted, and keeps what it has; the person asks for more meanwhile."""
    job = running_job(store)
    stop(store, job.lease.id, "pause")
    seen = store(job_control.wanted, job.lease.id)
    assert seen is not None
    stop(store, job.lease.id, "cancel")

    store(job_control.settle_stopped, job, seen)

    view = store(jobs.view, job.lease.id)
    assert (view.state, view.wanted, view.finished_at is not None) == ("cancelled", None, True)


def test_a_job_whose_pause_is_taken_back_while_its_worker_pauses_it_goes_on(store: Store) -> None:
    job = running_job(store)
    stop(store, job.lease.id, "pause")
    seen = store(job_control.wanted, job.lease.id)
    assert seen is not None
    store(job_control.resume, job.lease.id)

    store(job_control.settle_stopped, job, seen)

    assert store(jobs.view, job.lease.id).state == "queued"
    assert claim_job(store, job.lease.id).lease.attempts == 1


def test_a_job_that_is_paused_while_it_is_resumed_goes_on(store: Store) -> None:
    job = running_job(store)
    stop(store, job.lease.id, "pause")

    resumed = behind(
        store,
        partial(job_control.settle_stopped, job=job, asked="pause"),
        partial(job_control.resume, job_id=job.lease.id),
    )

    assert resumed.result().state == "queued"


def test_a_pause_is_taken_back_although_the_worker_gave_the_job_back(store: Store) -> None:
    job = running_job(store)
    stop(store, job.lease.id, "pause")
    store(leases.give_back, job.lease, 0)

    view = store(job_control.resume, job.lease.id)

    assert (view.state, view.wanted) == ("queued", None)


def test_a_cancel_is_not_forgotten_when_the_worker_gives_the_job_back(store: Store) -> None:
    job = running_job(store)
    stop(store, job.lease.id, "cancel")
    store(leases.give_back, job.lease, 0)

    store(try_stop, job.lease.id, "pause")

    view = store(jobs.view, job.lease.id)
    assert "cancel" in (view.wanted, view.state.removesuffix("led"))
