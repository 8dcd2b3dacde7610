from typing import Any

import pytest

from storage import jobs
from storage.errors import StorageUnavailable
from storage.leases import Lease, LeaseLost
from tasks.work import Work, owner
from tests.unit.tasks.conftest import Bench


class Request:
    hostname = "expert-1@host"
    id = "abc"


class Task:
    """What a bound task is to `Work`: an application and a request."""

    request = Request()

    def __init__(self, app: Any) -> None:
        self.app = app


@pytest.fixture
def work(bench: Bench) -> Work:
    return Work(Task(bench.runtime.app))


def claimed(bench: Bench, attempts: int = 1) -> Lease:
    """A job, tried this often."""
    job_id = bench.store(jobs.add, "refresh")
    bench.store.sql("UPDATE job SET attempts = :tries", tries=attempts - 1)
    job = bench.store(jobs.claim, job_id, owner="me", ttl_s=60, max_attempts=9)
    assert job is not None
    return job.lease


def fail(error: BaseException) -> None:
    raise error


def state(bench: Bench) -> tuple[str, bool]:
    """The job's state, and whether anybody holds it."""
    row = bench.store.row("SELECT state, lease_until IS NOT NULL AS held FROM job")
    return row.state, row.held


def test_an_execution_is_named_after_its_worker_and_its_message(work: Work) -> None:
    assert work.owner == owner("expert-1@host", "abc") == "expert-1@host/abc"


def test_a_block_that_goes_well_leaves_settling_to_itself(bench: Bench, work: Work) -> None:
    with work.holding(claimed(bench)) as heartbeat:
        heartbeat.check()
    assert state(bench) == ("running", True)


@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError(), RuntimeError("CUDA error")])
def test_any_error_gives_the_lease_back_for_another_try_and_the_worker_lives(
    bench: Bench, work: Work, error: Exception
) -> None:
    with work.holding(claimed(bench)):
        fail(error)
    assert state(bench) == ("queued", False)
    assert bench.store.value("SELECT published_at IS NULL FROM job") is True


@pytest.mark.parametrize("error", [LeaseLost("taken"), StorageUnavailable("away")])
def test_a_lost_lease_or_database_ends_the_block_quietly(bench: Bench, work: Work, error: Exception) -> None:
    with work.holding(claimed(bench)):
        fail(error)
    assert state(bench) == ("running", True)


def test_after_the_last_try_the_lease_is_left_to_the_sweeper(bench: Bench, work: Work) -> None:
    with work.holding(claimed(bench, attempts=3)):
        fail(ValueError("broken"))
    assert state(bench) == ("running", True)


def test_what_ends_the_process_comes_out(bench: Bench, work: Work) -> None:
    with pytest.raises(KeyboardInterrupt), work.holding(claimed(bench)):
        fail(KeyboardInterrupt())


@pytest.mark.parametrize(("attempts", "last", "rest_s"), [(1, False, 0.001), (2, False, 0.002), (3, True, 0.004)])
def test_pauses_double_until_the_last_try(work: Work, attempts: int, last: bool, rest_s: float) -> None:
    lease = Lease("job", 1, attempts, attempts, 60)
    assert work.is_last_try(lease) is last
    assert work.rest_s(lease) == pytest.approx(rest_s)


def test_the_text_of_an_error_is_not_logged(bench: Bench, work: Work, capsys: pytest.CaptureFixture[str]) -> None:
    with work.holding(claimed(bench)):
        fail(ValueError("the words of a query"))
    said = capsys.readouterr().out
    assert "work.failed" in said
    assert "the words of a query" not in said
