"""The sweeper fires schedules; what else it does is tested with the storage it asks, and with killed workers."""

import pytest

from storage import jobs, schedules
from storage.hints import JobHint
from storage.schedules import NewSchedule
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.training import put


@pytest.fixture
def nightly(bench: Bench) -> Bench:
    bench.store(schedules.put, NewSchedule("nightly", "train_router", {"kind": "random"}, "router", 3600))
    return bench


def come(bench: Bench) -> None:
    """The time of every schedule."""
    bench.store.sql("UPDATE schedule SET next_at = clock_timestamp()")


def test_a_schedule_whose_time_has_come_queues_its_job_once(nightly: Bench) -> None:
    nightly.run("sweep")
    assert nightly.store(jobs.views) == []
    come(nightly)

    for _ in range(2):
        nightly.run("sweep")

    (job,) = nightly.store(jobs.views)
    assert (job.kind, job.subject, job.state) == ("train_router", "router", "queued")
    assert nightly.dispatcher.sent == [JobHint(job.id)]
    view = nightly.store(schedules.view, "nightly")
    assert (view.last_job_id, view.last_said) == (job.id, None)


def test_a_schedule_that_is_due_while_its_job_is_open_is_passed_over(nightly: Bench) -> None:
    for _ in range(2):
        come(nightly)
        nightly.run("sweep")

    (job,) = nightly.store(jobs.views)
    assert nightly.dispatcher.sent == [JobHint(job.id)]
    said = nightly.store(schedules.view, "nightly").last_said
    assert said is not None
    assert said.startswith(f"passed over: job {job.id} (train_router, queued) works on router")


def test_a_paused_schedule_queues_nothing(nightly: Bench) -> None:
    nightly.store(schedules.pause, "nightly", paused=True)
    come(nightly)

    nightly.run("sweep")

    assert nightly.store(jobs.views) == []


def test_the_job_of_a_schedule_can_be_done_by_a_worker(nightly: Bench) -> None:
    for name in ("alpha", "beta"):
        put(nightly, name, exemplars=20)
    come(nightly)
    nightly.run("sweep")
    (job,) = nightly.store(jobs.views)

    nightly.run("train", job.id)

    assert nightly.store(jobs.view, job.id).state == "succeeded"
    assert nightly.store(schedules.view, "nightly").job_state == "succeeded"
