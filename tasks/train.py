"""Training jobs: what kinds there are, and how each ends."""

from collections.abc import Callable
from typing import Any

import structlog
from celery import Task, shared_task
from celery.signals import worker_init
from structlog.contextvars import bound_contextvars

from experts.errors import ExpertsError, Stopped
from experts.kinds import HASHING
from storage import job_control, jobs
from storage.errors import ArtefactDamaged, NotFound, StorageUnavailable
from storage.jobs import ClaimedJob
from storage.leases import LeaseLost
from tasks.expert_measuring import evaluate_expert
from tasks.expert_training import train_expert
from tasks.refreshing import Refresh
from tasks.routers import calibrate_router, evaluate_routers, train_router_version
from tasks.training_job import TrainingJob
from tasks.work import Work
from worker import names
from worker.heartbeat import Heartbeat
from worker.logs import describe
from worker.settings import load

log = structlog.get_logger(__name__)

_MAX_MESSAGE_CHARS = 500


@worker_init.connect
def import_encoder_before_forking(**_: object) -> None:
    """A child that takes the place of a killed one then starts at once instead of importing for seconds."""
    if load().encoder.name != HASHING:
        import experts.encoders.sentence  # noqa: F401


def _refresh(job: TrainingJob) -> dict[str, Any]:
    return Refresh(job).run()


Kind = Callable[[TrainingJob], dict[str, Any]]

KINDS: dict[str, Kind] = {
    "refresh": _refresh,
    "train_router": train_router_version,
    "evaluate_routers": evaluate_routers,
    "calibrate_router": calibrate_router,
    "train_expert": train_expert,
    "evaluate_expert": evaluate_expert,
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
        kind = KINDS.get(job.kind)
        if kind is None:
            log.error("job.unknown", kind=job.kind)
            work.transact(lambda c: jobs.fail(c, job, "unknown_job", repr(job.kind)))
        else:
            _do(work, job, kind, heartbeat)


def _do(work: Work, job: ClaimedJob, kind: Kind, heartbeat: Heartbeat) -> None:
    """Do the job and settle it. An error that another try may mend is told in the job's story and comes out."""
    try:
        result = kind(TrainingJob(work, job, heartbeat))
    except Stopped:  # as somebody asked
        asked = work.transact(lambda c: job_control.wanted(c, job.lease.id)) or "pause"
        work.transact(lambda c: job_control.settle_stopped(c, job, asked))
    except (ExpertsError, ArtefactDamaged, NotFound) as error:  # trying again would not mend any of these
        _fail(work, job, error, error.code, str(error))
    except (LeaseLost, StorageUnavailable):
        raise
    except Exception as error:
        said = f"try {job.lease.attempts} failed: {type(error).__name__}: {error}"[:_MAX_MESSAGE_CHARS]
        if not work.is_last_try(job.lease):
            work.transact(lambda c: jobs.report(c, job.lease.id, said))
            raise
        # The sweeper would end the job as well, and could not say of what.
        _fail(work, job, error, "job_failed", f"given up: {said}")
    else:
        work.transact(lambda c: jobs.succeed(c, job, result))


def _fail(work: Work, job: ClaimedJob, error: Exception, code: str, message: str) -> None:
    log.error("job.failed", **describe(error))
    work.transact(lambda c: jobs.fail(c, job, code, message))
