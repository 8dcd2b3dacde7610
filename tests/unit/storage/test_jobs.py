"""Training jobs: asked for, worked on by one worker at a time, followed by people."""

from collections.abc import Callable
from typing import Any

import pytest

from storage import jobs, leases
from storage.errors import NotFound
from storage.jobs import ClaimedJob
from storage.leases import LeaseLost
from tests.unit.storage.builders import OWNER, TTL_S, Store, expire_leases


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

    assert [message for _, message in (begun, half)] == ["begun", "half"]
    assert store(jobs.events, first, after=begun[0]) == [half]
    assert store(jobs.events, first, after=half[0]) == []
    assert store.values("SELECT data FROM job_event ORDER BY id") == [None, None, {"done": 0.5}]
