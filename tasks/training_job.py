"""What every kind of training job has at hand."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from experts.encoders.remembering import RememberingEncoder
from experts.knowledge import KnowledgeBase
from storage import jobs
from storage.catalogue import ExpertView
from storage.jobs import ClaimedJob
from tasks import models
from tasks.work import Work
from worker.heartbeat import Heartbeat
from worker.settings import Settings

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A claimed job, whose lease the heartbeat keeps."""

    work: Work
    claimed: ClaimedJob
    heartbeat: Heartbeat

    @property
    def id(self) -> int:
        return self.claimed.lease.id

    @property
    def attempt(self) -> str:
        """Names this try of this job, for what it stores: a try before it may be half done, or still at work."""
        return f"{self.claimed.lease.id}-{self.claimed.lease.epoch}"

    @property
    def params(self) -> dict[str, Any]:
        return self.claimed.params

    @property
    def settings(self) -> Settings:
        return self.work.runtime.settings

    def transact(self, do: Callable[[Connection], T]) -> T:
        """Run ``do`` in one transaction."""
        return self.work.transact(do)

    def report(self, message: str, **data: Any) -> None:
        """Add a line to the job's story. Raises LeaseLost when the job is somebody else's by now."""
        self.heartbeat.check()
        log.info("job.progress", message=message)
        self.transact(lambda c: jobs.report(c, self.id, message, data or None))

    def encoder(self) -> RememberingEncoder:
        """The encoder. A catalogue is embedded as a whole while somebody waits, so it may use every core."""
        return models.encoder(self.settings, threads=os.cpu_count())

    def knowledge(self, expert: ExpertView) -> KnowledgeBase | None:
        """The expert's library as it was built last; None where it has none.

        Raises ArtefactDamaged, and ModelUnusable where it cannot be read or is of another encoder.
        """
        if expert.artefact is None or expert.artefact_sha256 is None:
            return None
        folder = self.work.runtime.store.fetch_tree(expert.artefact, expert.artefact_sha256)
        return KnowledgeBase.load(folder, self.settings.encoder.name)
