"""What every kind of training job has at hand."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, text

from storage import jobs
from storage.leases import LeaseLost
from tasks import models
from tasks.models import Resident
from tasks.training_job import TrainingJob
from tasks.work import Work
from tests.unit.tasks.conftest import Bench
from worker.heartbeat import Heartbeat


def task_of(bench: Bench) -> Any:
    return SimpleNamespace(app=bench.runtime.app, request=SimpleNamespace(hostname="training@here", id="message"))


@pytest.fixture
def job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainingJob]:
    """A claimed job in a process that has loaded nothing yet."""
    monkeypatch.setattr(models, "_encoders", Resident(1))
    work = Work(task_of(bench))
    job_id = bench.store(jobs.add, "train_router", {"kind": "knn", "data": None})
    claimed = bench.store(jobs.claim, job_id, owner=work.owner, ttl_s=60, max_attempts=3)
    assert claimed is not None
    with Heartbeat(bench.runtime.engine, claimed.lease) as heartbeat:
        yield TrainingJob(work, claimed, heartbeat)


def test_it_tells_what_was_asked_for_and_how_the_process_is_set_up(job: TrainingJob, bench: Bench) -> None:
    assert job.id == bench.store.value("SELECT id FROM job")
    assert job.params == {"kind": "knn", "data": None}
    assert job.settings is bench.runtime.settings


def test_what_it_reports_is_kept_in_order_with_its_data(job: TrainingJob, bench: Bench) -> None:
    job.report("learning")
    job.report("done", accuracy=0.5, number=3)

    assert bench.store.rows("SELECT job_id, message, data FROM job_event ORDER BY id") == [
        (job.id, "learning", None),
        (job.id, "done", {"accuracy": 0.5, "number": 3}),
    ]


def test_a_lost_lease_ends_the_work_at_the_next_report(
    job: TrainingJob, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        raise LeaseLost("somebody else has it")

    monkeypatch.setattr(job.heartbeat, "check", lost)

    with pytest.raises(LeaseLost):
        job.report("learning")

    assert bench.store.rows("SELECT * FROM job_event") == []


def test_a_transaction_is_kept_as_a_whole_or_not_at_all(job: TrainingJob, bench: Bench) -> None:
    def half(connection: Connection) -> None:
        connection.execute(text("INSERT INTO exemplar (text) VALUES ('one')"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job.transact(half)

    assert bench.store.value("SELECT count(*) FROM exemplar") == 0
    assert job.transact(lambda c: c.execute(text("SELECT 7")).scalar_one()) == 7


def test_the_encoder_is_the_one_of_the_settings_and_remembers(job: TrainingJob) -> None:
    encoder = job.encoder()
    assert encoder.name == "hashing"

    encoder.embed(["one", "two"])
    job.encoder().embed(["two", "three"])

    assert job.encoder() is encoder
    assert (encoder.n_asked, encoder.n_remembered) == (4, 1)
