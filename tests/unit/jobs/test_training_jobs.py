"""Training jobs from outside: lists, stories, waiting for the end, stopping and going on."""

import threading
from dataclasses import replace

import pytest

from jobs import training_jobs
from jobs.errors import Failed
from jobs.training_jobs import Listener
from storage import job_control, jobs
from storage.errors import NotAllowed, NotFound
from storage.hints import JobHint
from storage.jobs import JobView
from tests.unit.jobs.trainer import Sent
from tests.unit.storage.builders import Store, claim_job
from worker.runtime import Runtime


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def stack(bare_client: Runtime, sent: Sent) -> Runtime:
    return replace(bare_client, dispatcher=sent)  # type: ignore[arg-type]


@pytest.fixture
def store(stack: Runtime) -> Store:
    return Store(stack.engine)


@pytest.fixture
def job(store: Store) -> int:
    """A job that waits."""
    return store(jobs.add, "train_expert", {"mode": "train"}, subject="expert:alpha")


def test_jobs_are_listed_newest_first(stack: Runtime, store: Store, job: int) -> None:
    refresh = store(jobs.add_refresh)
    assert [(view.id, view.kind, view.subject) for view in training_jobs.listing(stack)] == [
        (refresh, "refresh", None),
        (job, "train_expert", "expert:alpha"),
    ]
    store(jobs.succeed, claim_job(store, refresh), {})
    assert [view.id for view in training_jobs.listing(stack, only_open=True)] == [job]
    assert [view.id for view in training_jobs.listing(stack, limit=1)] == [refresh]


def test_a_job_is_shown_with_its_story(stack: Runtime, store: Store, job: int) -> None:
    store(jobs.report, job, "learning")
    store(jobs.report, job, "step 1", {"train_loss": 0.5})
    view, events = training_jobs.show(stack, job)
    assert (view.id, view.state, view.ended) == (job, "queued", False)
    assert [(event.message, event.data) for event in events] == [("learning", None), ("step 1", {"train_loss": 0.5})]


def test_an_unknown_job_is_told(stack: Runtime) -> None:
    unknown = r"^no job '12345'$"
    with pytest.raises(NotFound, match=unknown):
        training_jobs.show(stack, 12345)
    with pytest.raises(NotFound, match=unknown):
        training_jobs.watch(stack, 12345)
    with pytest.raises(NotFound, match=unknown):
        training_jobs.stop(stack, 12345, "cancel")
    with pytest.raises(NotFound, match=unknown):
        training_jobs.resume(stack, 12345)


# Stopping and going on


def test_a_job_that_waits_is_stopped_at_once(stack: Runtime, job: int) -> None:
    assert training_jobs.stop(stack, job, "pause").state == "paused"
    cancelled = training_jobs.stop(stack, job, "cancel")
    assert (cancelled.state, cancelled.ended) == ("cancelled", True)
    with pytest.raises(NotAllowed, match=rf"^job {job} is cancelled; only paused jobs can be resumed$"):
        training_jobs.resume(stack, job)


def test_the_worker_of_a_job_is_asked_to_stop(stack: Runtime, store: Store, job: int) -> None:
    claim_job(store, job)
    view = training_jobs.stop(stack, job, "cancel")
    assert (view.state, view.wanted) == ("running", "cancel")


def test_a_paused_job_goes_on_with_a_message(stack: Runtime, sent: Sent, job: int) -> None:
    training_jobs.stop(stack, job, "pause")
    assert training_jobs.resume(stack, job).state == "queued"
    assert sent.hints == [JobHint(job)]


# Waiting


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.views: list[JobView] = []

    @property
    def listener(self) -> Listener:
        return Listener(self.messages.append, self.views.append)


def test_a_watched_job_is_told_as_it_moves(stack: Runtime, store: Store, job: int) -> None:
    """Each line once, in order, the last also where it was written just before the end."""
    heard, started = Heard(), threading.Event()

    def hear(view: JobView) -> None:
        heard.views.append(view)
        started.set()

    def work() -> None:
        started.wait(10)
        claimed = claim_job(store, job)
        store(jobs.report, job, "one")
        store(jobs.progress, claimed.lease, {"step": 1, "total_steps": 2})
        store(jobs.report, job, "two")
        store(jobs.succeed, claimed, {"version": 2})

    worker = threading.Thread(target=work)
    worker.start()
    view = training_jobs.watch(stack, job, Listener(heard.messages.append, hear), timeout_s=30)
    worker.join()

    assert (view.state, view.result, heard.messages) == ("succeeded", {"version": 2}, ["one", "two"])
    assert heard.views[0].state == "queued"
    assert heard.views[-1] == view
    assert len(heard.views) == len({repr(view) for view in heard.views})


def test_what_was_heard_before_is_not_told_again(stack: Runtime, store: Store, job: int) -> None:
    store(jobs.report, job, "one")
    store(jobs.report, job, "two")
    store(job_control.stop, job, "cancel")
    first, second = training_jobs.show(stack, job)[1]
    heard = Heard()
    training_jobs.watch(stack, job, heard.listener, after=first.id)
    assert heard.messages == [second.message] == ["two"]


@pytest.mark.parametrize(("wanted", "state"), [("cancel", "cancelled"), ("pause", "paused")])
def test_watching_ends_with_a_job_that_is_stopped(
    stack: Runtime, job: int, wanted: job_control.Wanted, state: str
) -> None:
    training_jobs.stop(stack, job, wanted)
    view = training_jobs.watch(stack, job)
    assert view.state == state
    with pytest.raises(Failed, match=rf"^job {job} was {state}; `moe jobs show {job}` tells how far it came$"):
        training_jobs.succeeded(view)


def test_watching_ends_in_time(stack: Runtime, job: int) -> None:
    with pytest.raises(TimeoutError, match=rf"^job {job} did not end within 0 s; it is queued$"):
        training_jobs.watch(stack, job, timeout_s=0)


def test_only_a_job_that_ended_well_is_a_success(stack: Runtime, store: Store, job: int) -> None:
    claimed = claim_job(store, job)
    store(jobs.fail, claimed, "cannot_train", "Nothing to learn.")
    with pytest.raises(Failed, match=rf"^job {job} failed \(cannot_train\): Nothing to learn\.$"):
        training_jobs.wait_for_job(stack, job)

    other = store(jobs.add, "train_expert")
    store(jobs.succeed, claim_job(store, other), {"version": 3})
    view = training_jobs.wait_for_job(stack, other, timeout_s=0)
    assert training_jobs.succeeded(view) is view
    assert view.result == {"version": 3}
