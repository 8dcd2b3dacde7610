"""Training jobs as people see them: lists, stories, waiting, stopping."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jobs.errors import Failed
from storage import job_control, jobs
from storage.database import transact
from storage.hints import JobHint
from storage.job_control import Wanted
from storage.jobs import Event, JobView
from worker.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a job: each new line of its story, and how it stands whenever that changed."""

    on_event: Callable[[str], None] = lambda message: None
    on_view: Callable[[JobView], None] = lambda view: None


def listing(runtime: Runtime, *, only_open: bool = False, limit: int = 50) -> list[JobView]:
    """The newest jobs, the newest first."""
    return transact(runtime.engine, lambda c: jobs.views(c, only_open=only_open, limit=limit))


def show(runtime: Runtime, job_id: int) -> tuple[JobView, list[Event]]:
    """A job and its story. Raises NotFound."""
    return transact(runtime.engine, lambda c: (jobs.view(c, job_id), jobs.events(c, job_id)))


def stop(runtime: Runtime, job_id: int, wanted: Wanted) -> JobView:
    """Cancel or pause a job, or ask its worker to. Raises NotFound, NotAllowed."""
    return transact(runtime.engine, lambda c: job_control.stop(c, job_id, wanted))


def resume(runtime: Runtime, job_id: int) -> JobView:
    """Let a paused job go on. Raises NotFound, NotAllowed."""
    view = transact(runtime.engine, lambda c: job_control.resume(c, job_id))
    runtime.dispatcher.send([JobHint(job_id)])
    return view


def watch(
    runtime: Runtime, job_id: int, listener: Listener | None = None, *, timeout_s: float | None = None, after: int = 0
) -> JobView:
    """The job once it has ended or was paused. Raises NotFound, TimeoutError."""
    heard = listener or Listener()
    seen, before = after, None
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        view = transact(runtime.engine, lambda c: jobs.view(c, job_id))
        for event in transact(runtime.engine, partial(jobs.events, job_id=job_id, after=seen)):
            seen = event.id
            heard.on_event(event.message)
        if view != before:
            heard.on_view(view)
            before = view
        if view.ended or view.state == "paused":
            return view
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"job {job_id} did not end within {timeout_s:.0f} s; it is {view.state}")
        time.sleep(0.2)


def wait_for_job(
    runtime: Runtime, job_id: int, *, on_event: Callable[[str], None] = lambda message: None, timeout_s: float = 600
) -> JobView:
    """The job once it has ended well; ``on_event`` hears what it reports. Raises Failed."""
    try:
        job = watch(runtime, job_id, Listener(on_event), timeout_s=timeout_s)
    except TimeoutError as error:
        raise Failed(f"{error}. Does a training worker run?") from None
    return succeeded(job)


def succeeded(job: JobView) -> JobView:
    """The job, if it ended well. Raises Failed."""
    if job.state == "failed":
        raise Failed(f"job {job.id} failed ({job.error_code}): {job.error_message}")
    if job.state != "succeeded":
        raise Failed(f"job {job.id} was {job.state}; `moe jobs show {job.id}` tells how far it came")
    return job
