"""Training an expert: examples, adapter, proof, and only then a version."""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection

from experts.adapters.checkpoints import newest_step
from experts.adapters.data import Example, check_enough, same_prompt, split
from experts.adapters.evaluation import compare
from experts.adapters.files import adapter_files
from experts.adapters.fingerprint import take_fingerprint
from experts.adapters.following import Progress
from experts.adapters.gate import Verdict, gate
from experts.adapters.training import Trained, train_adapter
from experts.errors import ExpertsError, Stopped
from experts.language.base import Base, weights_sha256
from experts.language.prompting import USER, Turn
from storage import catalogue, expert_versions, feedback, job_control, jobs, training_sets
from storage.catalogue import NewDocument
from storage.errors import NotFound
from storage.expert_versions import Adapter, VersionView
from storage.hints import JobHint
from tasks import bases, examples
from tasks.expert_measuring import Measuring, figures, live_adapter
from tasks.training_job import TrainingJob

# Seconds between looks at what a person wants of the job, and between notes of how far it is.
_LOOK_S = 1.0
_SETTLED = "adapters"


@dataclass(frozen=True, slots=True)
class _Data:
    """What is learned from, what ends the training in time, and what proves it."""

    train: list[Example]
    validation: list[Example]
    evaluation: list[Example]


def train_expert(job: TrainingJob) -> dict[str, Any]:
    """Create an expert, or train the next version of one; ``params.mode`` is create, train or retrain.

    A job that was cut short goes on from its last checkpoint. Nothing is registered before everything is measured; then
    version, examples and exemplars are stored in one transaction, and the version goes live if it passed the gate.
    """
    return _Training(job).run()


class _Training:
    def __init__(self, job: TrainingJob) -> None:
        self._job = job
        self._name: str = job.params["expert"]
        self._base: Base = bases.base(job.settings)
        self._folder = (job.settings.training.folder or job.settings.home / "training") / f"job-{job.id}"
        self._looked = self._noted = float("-inf")
        self._told = 0
        # Going on from a checkpoint is no progress yet: tries count anew only after one that this try made.
        self._kept = newest_step(self._folder)
        self._wanted: str | None = None

    def run(self) -> dict[str, Any]:
        job = self._job
        self._tidy()
        data = self._data()
        spec = bases.lora_spec(
            job.settings,
            self._base,
            rank=job.params.get("rank"),
            complex_domain=bool(job.params.get("complex")),
        )
        job.report(
            f"{self._name}: learning from {len(data.train)} examples, validating with {len(data.validation)},"
            f" to be measured on {len(data.evaluation)}; rank {spec.rank} on {', '.join(spec.target_modules)}"
        )
        try:
            trained = train_adapter(
                self._base,
                data.train,
                data.validation,
                spec,
                folder=self._folder,
                on_progress=self._progress,
                should_stop=self._should_stop,
            )
        except ExpertsError as error:
            if not (isinstance(error, Stopped) and self._wanted == "pause"):
                shutil.rmtree(self._folder, ignore_errors=True)
            raise
        if trained.too_long:
            lines = ", ".join(map(str, trained.too_long[:20]))
            job.report(f"{len(trained.too_long)} examples were too long and are left out (lines {lines})")
        job.report(
            f"trained in {trained.seconds:.0f} s: validation loss {trained.validation_loss_before:.3f} to"
            f" {trained.validation_loss:.3f} at step {trained.best_step} of {trained.total_steps}"
        )
        metrics, verdict = self._proved(trained, data.evaluation)
        found = self._registered(trained, metrics, verdict, data)
        shutil.rmtree(self._folder, ignore_errors=True)
        return found

    def _data(self) -> _Data:
        job, store = self._job, self._job.work.runtime.store
        share, seed = job.settings.training.held_out, job.settings.training.seed
        if job.params["mode"] == "retrain":
            every, evaluation = self._gathered()
        else:
            every = examples.read(store, job.params["data"])
            given = job.params.get("validation")
            evaluation = examples.read(store, given) if given else []
        check_enough(every, job.settings.training.min_examples)
        if evaluation:
            every = self._without(every, evaluation)
            check_enough(every, job.settings.training.min_examples)
        else:
            every, evaluation = split(every, share, seed)
        train, validation = split(every, min(share, 0.1), seed + 1)
        return _Data(train, validation, evaluation)

    def _without(self, every: Sequence[Example], evaluation: Sequence[Example]) -> list[Example]:
        """The examples that nothing is measured on."""
        held = {same_prompt(example) for example in evaluation}
        kept = [example for example in every if same_prompt(example) not in held]
        if len(kept) < len(every):
            self._job.report(f"{len(every) - len(kept)} examples are left out: the expert is measured on them")
        return kept

    def _gathered(self) -> tuple[list[Example], list[Example]]:
        """What the expert learned from before and what people corrected since; and what it is always measured on."""
        job, store = self._job, self._job.work.runtime.store

        def stored(connection: Connection) -> tuple[list[training_sets.StoredSet], list[training_sets.StoredSet]]:
            return (
                training_sets.newest(connection, purpose="train", expert=self._name),
                training_sets.newest(connection, purpose="evaluation", expert=self._name),
            )

        learned, measured = job.transact(stored)
        every = [example for found in learned for example in examples.read(store, found.artefact)]
        evaluation = [example for found in measured for example in examples.read(store, found.artefact)]
        said = job.transact(lambda c: feedback.answers(c, self._name))
        corrected = [Example((Turn(USER, text),), answer, 0) for text, answer in said]
        # What was said last counts.
        merged = {example.prompt: example for example in [*every, *corrected]}
        if corrected:
            job.report(f"{len(corrected)} corrected answers are learned from as well")
        return list(merged.values()), evaluation

    def _proved(self, trained: Trained, evaluation: Sequence[Example]) -> tuple[dict[str, Any], Verdict]:
        job, base = self._job, self._base
        measuring = Measuring(job, base)
        before = live_adapter(job, base, self._name)
        candidate = measuring.of(trained.weights, evaluation)
        plain = measuring.of(None, evaluation)
        previous = None if before is None else measuring.of(before, evaluation)
        verdict = gate(candidate, plain, previous, floor=job.settings.training.floor)
        compared = compare(candidate, plain)
        unchanged = weights_sha256(base.model) == measuring.base_sha256
        metrics = {
            **figures(candidate, plain),
            "ci": [round(compared.exact.low, 4), round(compared.exact.high, 4)],
            "p": round(compared.exact.p, 6),
            "previous_exact_match": None if previous is None else round(previous.exact, 4),
            "base_unchanged": unchanged,
            # One that ran out of time may have noted none yet.
            "train_loss": None if math.isnan(trained.train_loss) else round(trained.train_loss, 4),
            "validation_loss": round(trained.validation_loss, 4),
            "validation_loss_before": round(trained.validation_loss_before, 4),
            "steps": trained.steps,
            "seconds": round(trained.seconds, 1),
            "stopped_by": trained.stopped_by,
            "trainable_parameters": trained.trainable_parameters,
            "examples": trained.examples,
            "matrix": measuring.matrix(trained.weights, but=self._name),
        }
        if not unchanged:
            verdict = Verdict(False, [*verdict.reasons, "the base was changed"])
        job.report(
            f"exact answers {plain.exact:.1%} by the base, {candidate.exact:.1%} by the new version; "
            + ("it goes live" if verdict.promote else f"it stays a candidate: {'; '.join(verdict.reasons)}")
        )
        return metrics, verdict

    def _registered(self, trained: Trained, metrics: dict[str, Any], verdict: Verdict, data: _Data) -> dict[str, Any]:
        job, name = self._job, self._name
        job.heartbeat.check()
        fingerprint = take_fingerprint(self._base, trained.weights)
        files = adapter_files(self._base, trained.weights, trained.spec, fingerprint, metrics)
        place = f"{_SETTLED}/{name}/{job.attempt}"
        tree = job.work.runtime.store.put_tree(place, files)
        sets = [
            examples.put(job.work.runtime.store, name, "train", [*data.train, *data.validation]),
            examples.put(job.work.runtime.store, name, "evaluation", data.evaluation),
        ]

        def register(connection: Connection) -> tuple[VersionView, int | None]:
            expert_id = expert_versions.ensure_expert(connection, name)
            engine, card = self._card(connection)
            number = expert_versions.add_version(
                connection,
                expert_id,
                engine=engine,
                card=card,
                adapter=Adapter(place, tree, trained.weights.sha256, self._base.sha256),
                metrics=metrics,
                verdict=asdict(verdict),
                job_id=job.id,
            )
            for new in sets:
                training_sets.add(connection, expert_id, new, job_id=job.id)
            if job.params.get("exemplars"):
                catalogue.put_exemplars(connection, expert_id, job.params["exemplars"])
            documents = [NewDocument(**document) for document in job.params.get("documents", ())]
            catalogue.put_documents(connection, expert_id, documents)
            refresh = None
            if verdict.promote:
                expert_versions.promote(connection, name, number)
                if not catalogue.expert(connection, name).serving:
                    refresh = jobs.add_refresh(connection)
            return expert_versions.version(connection, name, number), refresh

        version, refresh = job.transact(register)
        if refresh is not None:
            job.work.runtime.dispatcher.send([JobHint(refresh)])
        return {
            "expert": name,
            "version": version.number,
            "state": version.state,
            "promoted": verdict.promote,
            "reasons": verdict.reasons,
            "refresh_job": refresh,
            "metrics": metrics,
        }

    def _card(self, connection: Connection) -> tuple[str, dict[str, Any]]:
        """Engine and card of the new version: those given, else those of the live version, else of the newest."""
        if self._job.params.get("card"):
            return self._job.params["engine"], self._job.params["card"]
        every = expert_versions.versions(connection, self._name)
        before = next((view for view in every if view.state == "live"), every[0])
        return before.engine, before.card

    def _progress(self, progress: Progress) -> None:
        """Note how far it is, about once a second; measured losses go into the job's story."""
        now = time.monotonic()
        how_far = {key: value if value is None else round(value, 5) for key, value in asdict(progress).items()}
        if now - self._noted < _LOOK_S and progress.step < progress.total_steps:
            return
        self._noted = now
        job = self._job
        job.heartbeat.check()
        newest = newest_step(self._folder)
        job.transact(lambda c: jobs.progress(c, job.claimed.lease, how_far, kept=newest > self._kept))
        self._kept = max(newest, self._kept)
        if progress.validation_loss is not None and progress.step > self._told:
            self._told = progress.step
            job.transact(lambda c: jobs.report(c, job.id, _told(progress), how_far))

    def _tidy(self) -> None:
        """Remove what trainings left that ended where no worker could do it: cancelled while paused, or given up."""
        for folder in self._folder.parent.glob("job-*"):
            number = folder.name.removeprefix("job-")
            if number.isdecimal() and self._job.transact(partial(_has_ended, job_id=int(number))):
                shutil.rmtree(folder, ignore_errors=True)

    def _should_stop(self) -> bool:
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._job.heartbeat.check()
            self._wanted = self._job.transact(lambda c: job_control.wanted(c, self._job.id))
        return self._wanted is not None


def _has_ended(connection: Connection, job_id: int) -> bool:
    try:
        return jobs.view(connection, job_id).ended
    except NotFound:
        return False  # of another database; not ours to remove


def _told(progress: Progress) -> str:
    loss = "" if progress.train_loss is None else f"loss {progress.train_loss:.4f}, "
    return (
        f"step {progress.step} of {progress.total_steps}: {loss}validation loss {progress.validation_loss:.4f},"
        f" {progress.seconds_left:.0f} s left"
    )
