"""Measuring experts: what a version answers right, against the base, and on everybody else's examples."""

from collections.abc import Sequence
from typing import Any

from experts.adapters.data import Example
from experts.adapters.evaluation import Evaluation, compare, embedding_similarity, evaluate
from experts.adapters.files import check_adapter, state
from experts.adapters.fingerprint import check_fingerprint
from experts.errors import CannotTrain, ModelUnusable
from experts.kinds import HASHING
from experts.language.adapting import AdapterWeights
from experts.language.base import Base, weights_sha256
from experts.language.generating import generate
from experts.language.prompting import encode_text
from storage import expert_versions, training_sets
from storage.errors import ArtefactDamaged, NotFound
from storage.expert_versions import Adapter, VersionView
from tasks import bases, examples
from tasks.training_job import TrainingJob

# Tokens an answer may be longer than the longest expected one before it is cut off.
_MARGIN = 16


class Measuring:
    """Answers examples with the base, with or without an adapter, and scores them."""

    def __init__(self, job: TrainingJob, base: Base) -> None:
        self._job = job
        self._base = base
        # An encoder that hashes words says nothing of meaning.
        means = job.settings.encoder.name != HASHING
        self._similarity = embedding_similarity(job.encoder().encode) if means else None
        self.base_sha256 = weights_sha256(base.model)

    def of(self, adapter: AdapterWeights | None, asked: Sequence[Example]) -> Evaluation:
        """The scores of the adapter (None: of the base alone)."""
        longest = max((len(encode_text(self._base.tokenizer, example.answer)) for example in asked), default=1)
        tokens = min(longest + _MARGIN, self._job.settings.serving.max_tokens)

        def answer(part: Sequence[Example]) -> list[str]:
            found: list[str] = []
            rows = self._job.settings.serving.rows
            for start in range(0, len(part), rows):
                self._job.heartbeat.check()
                found += generate(self._base, adapter, part[start : start + rows], tokens)
            return found

        return evaluate(answer, asked, self._similarity)

    def matrix(self, adapter: AdapterWeights, *, but: str) -> dict[str, dict[str, Any]]:
        """What the adapter answers of every other expert's evaluation set, beside what the base does.

        A set that cannot be used is left out and told in the job's story: it is not this expert's fault.
        """
        job = self._job
        most = job.settings.training.max_measured
        found: dict[str, dict[str, Any]] = {}
        for stored in job.transact(lambda c: training_sets.newest(c, purpose="evaluation")):
            if stored.expert == but:
                continue
            try:
                asked = examples.read(job.work.runtime.store, stored.artefact)[:most]
                ours, base = self.of(adapter, asked), self.of(None, asked)
            except (ArtefactDamaged, CannotTrain, ModelUnusable) as error:
                job.report(f"{stored.expert}: its evaluation set cannot be used and is left out ({error})")
                continue
            found[stored.expert] = {
                "n": len(asked),
                "exact_match": round(ours.exact, 4),
                "base_exact_match": round(base.exact, 4),
            }
        return found


def loaded(job: TrainingJob, base: Base, adapter: Adapter) -> AdapterWeights:
    """A stored adapter, checked byte by byte and asked what it was asked when it was trained. Raises ModelUnusable."""
    folder = job.work.runtime.store.fetch_tree(adapter.artefact, adapter.tree_sha256)
    info = check_adapter(folder, base)
    weights = state(folder)
    check_fingerprint(base, weights, info.fingerprint)
    return weights


def live_adapter(job: TrainingJob, base: Base, expert: str) -> AdapterWeights | None:
    """The adapter of the live version; None where there is none, or where it belongs to another base.

    One that is damaged is told in the job's story and counts as none: a new version is how it is replaced.
    """
    try:
        live = job.transact(lambda c: expert_versions.version(c, expert, None))
    except NotFound:
        return None
    if live.adapter is None or live.adapter.base_sha256 != base.sha256:
        return None
    try:
        return loaded(job, base, live.adapter)
    except (ArtefactDamaged, ModelUnusable) as error:
        job.report(f"version {live.number} of {expert} cannot be used and is not compared with ({error})")
        return None


def evaluate_expert(job: TrainingJob) -> dict[str, Any]:
    """Measure a version against the base, on given examples or on the expert's own evaluation set."""
    base = bases.base(job.settings)
    name, number = job.params["expert"], job.params.get("version")
    version: VersionView = job.transact(lambda c: expert_versions.version(c, name, number))
    if version.adapter is None:
        raise CannotTrain(
            f"version {version.number} of {name} has no adapter: there is nothing to compare with the base"
        )
    adapter = loaded(job, base, version.adapter)
    place = job.params.get("data") or _own_set(job, name)
    asked = examples.read(job.work.runtime.store, place)
    job.report(f"{name}@{version.number}: asking {len(asked)} examples, and the base the same")
    measuring = Measuring(job, base)
    ours, plain = measuring.of(adapter, asked), measuring.of(None, asked)
    compared = compare(ours, plain)
    return {
        "expert": name,
        "version": version.number,
        **figures(ours, plain),
        "ci": [round(compared.exact.low, 4), round(compared.exact.high, 4)],
        "p": round(compared.exact.p, 6),
        "base_unchanged": weights_sha256(base.model) == measuring.base_sha256,
        "wrong": [
            {"line": score.line, "expected": score.expected[:500], "answer": score.answer[:500]}
            for score in ours.scores
            if not score.exact
        ][:20],
    }


def _own_set(job: TrainingJob, name: str) -> str:
    found = job.transact(lambda c: training_sets.newest(c, purpose="evaluation", expert=name))
    if not found:
        raise CannotTrain(f"{name} has no evaluation set; give --data FILE")
    return found[0].artefact


def figures(candidate: Evaluation, base: Evaluation) -> dict[str, Any]:
    """What a version and its base answered right, as shares."""
    found = {
        "n": len(candidate.scores),
        "exact_match": round(candidate.exact, 4),
        "base_exact_match": round(base.exact, 4),
        "token_f1": round(candidate.f1, 4),
        "base_token_f1": round(base.f1, 4),
    }
    if candidate.similarity is not None and base.similarity is not None:
        found |= {"similarity": round(candidate.similarity, 4), "base_similarity": round(base.similarity, 4)}
    return found
