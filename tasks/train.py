"""Training jobs: what kinds there are, and how each ends."""

from collections.abc import Callable
from typing import Any

import structlog
from celery import Task, shared_task
from celery.signals import worker_init
from structlog.contextvars import bound_contextvars

from experts.errors import ExpertsError
from experts.kinds import HASHING
from storage import jobs
from storage.errors import ArtefactDamaged, NotFound
from tasks.refreshing import Refresh
from tasks.routers import calibrate_router, evaluate_routers, train_router_version
from tasks.training_job import TrainingJob
from tasks.work import Work
from worker import names
from worker.logs import describe
from worker.settings import load

log = structlog.get_logger(__name__)


@worker_init.connect
def import_encoder_before_forking(**_: object) -> None:
    """A child that takes the place of a killed one then starts at once instead of importing for seconds."""
    if load().encoder.name != HASHING:
        import experts.encoders.sentence  # noqa: F401


def _refresh(job: TrainingJob) -> dict[str, Any]:
    return Refresh(job).run()


KINDS: dict[str, Callable[[TrainingJob], dict[str, Any]]] = {
    "refresh": _refresh,
    "train_router": train_router_version,
    "evaluate_routers": evaluate_routers,
    "calibrate_router": calibrate_router,
}


@shared_task(name=names.TRAIN, bind=True)
def train(self: Task, job_id: int) -> None:
    """Safe to run twice: only who holds the job's lease ends it, and what is built already is not built again."""
    work = Work(self)
    pipeline = work.runtime.settings.pipeline
    job = work.transact(
        lambda c: jobs.claim(
            c, job_id, owner=work.owner, ttl_s=pipeline.lease_seconds, max_attempts=pipeline.max_attempts
        )
    )
    if job is None:
        return
    with bound_contextvars(job=job_id), work.holding(job.lease) as heartbeat:
        try:
            result = KINDS[job.kind](TrainingJob(work, job, heartbeat))
        # Trying again would not mend any of these.
        except (ExpertsError, ArtefactDamaged, NotFound, KeyError) as error:
            log.error("job.failed", **describe(error))
            code, message = getattr(error, "code", "unknown_job"), str(error)
            work.transact(lambda c: jobs.fail(c, job, code, message))
        else:
            work.transact(lambda c: jobs.succeed(c, job, result))
