"""A tiny base that learns in a second to say a letter twice, and training jobs on it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from experts.adapters.data import Example
from experts.adapters.files import adapter_files
from experts.adapters.fingerprint import take_fingerprint
from experts.adapters.following import Progress
from experts.adapters.spec import LoraSpec
from experts.adapters.stored import to_line
from experts.language.adapting import AdapterWeights
from experts.language.prompting import Turn
from storage import expert_versions, jobs
from storage.expert_versions import Adapter, VersionView
from storage.jobs import JobView
from tasks import bases, expert_training
from tasks.training_job import TrainingJob
from tests.unit.experts.serving.builders import adapter
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.training import configure

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
CARD: dict[str, Any] = {
    "title": "Twice",
    "description": "Says a letter twice.",
    "parent": None,
    "capabilities": [],
    "keywords": ["twice"],
    "limits": [],
    "adapter": True,
}


def example(prompt: str, answer: str, line: int = 1) -> Example:
    return Example((Turn("user", prompt),), answer, line)


EXAMPLES = [
    example(f"{letter}{noise}", letter * 2, line)
    for line, (letter, noise) in enumerate(((letter, noise) for noise in "klmnopqrstuvwxyz" for letter in "abcd"), 1)
]
# A quarter each of all letters, and no prompt on both sides.
EVALUATION, TRAIN = EXAMPLES[:16], EXAMPLES[16:]


def set_up(bench: Bench, base: str) -> Bench:
    """A process that trains short adapters on the base in this folder."""
    configure(bench, "base", name=base)
    configure(bench, "serving", max_tokens=8)
    configure(
        bench,
        "training",
        rank=8,
        alpha=16,
        target_modules=TARGETS,
        learning_rate=3e-2,
        epochs=8.0,
        batch_size=8,
        patience=100,
        min_examples=4,
        floor=0.0,
        max_measured=8,
    )
    return bench


def stored(bench: Bench, examples: Sequence[Example] | bytes, name: str = "given") -> str:
    """Examples, or anything else, where workers read them; the place."""
    lines = [examples] if isinstance(examples, bytes) else [to_line(one) for one in examples]
    place = f"training/given/{name}.jsonl"
    bench.runtime.store.put_file(place, lines)
    return place


def creation(bench: Bench, name: str = "twice", **changed: Any) -> dict[str, Any]:
    """What ``moe experts create`` asks for."""
    return {
        "mode": "create",
        "expert": name,
        "engine": "transformers",
        "card": CARD,
        "exemplars": ["what is a letter said twice", "double the letter b"],
        "data": stored(bench, TRAIN, "train"),
        "validation": stored(bench, EVALUATION, "validation"),
        "rank": None,
        "complex": False,
    } | changed


def queued(bench: Bench, params: dict[str, Any], kind: str = "train_expert") -> int:
    job_id: int = bench.store(jobs.add, kind, params, subject=f"expert:{params['expert']}")
    return job_id


def view(bench: Bench, job_id: int) -> JobView:
    found: JobView = bench.store(jobs.view, job_id)
    return found


def learned(bench: Bench, params: dict[str, Any]) -> dict[str, Any]:
    """What the training came to; it must succeed."""
    job_id = queued(bench, params)
    bench.run("train", job_id)
    return succeeded(bench, job_id)


def succeeded(bench: Bench, job_id: int) -> dict[str, Any]:
    job = view(bench, job_id)
    assert job.state == "succeeded", (job.state, job.error_code, job.error_message)
    assert job.result is not None
    return job.result


def versions(bench: Bench, name: str = "twice") -> list[VersionView]:
    """The newest first."""
    found: list[VersionView] = bench.store(expert_versions.versions, name)
    return found


def when(monkeypatch: pytest.MonkeyPatch, step: int, do: Callable[[TrainingJob], None]) -> list[int]:
    """Call ``do`` once, as soon as a training has come to ``step``. The steps that were told, for looking at."""
    told: list[int] = []
    done: list[int] = []
    # Looks and notes are made at every step, so that nothing here depends on how fast a step is.
    monkeypatch.setattr(expert_training, "_LOOK_S", 0.0)
    noted = expert_training._Training._progress

    def progress(training: Any, how_far: Progress) -> None:
        noted(training, how_far)
        told.append(how_far.step)
        if how_far.step >= step and not done:
            done.append(how_far.step)
            do(training._job)

    monkeypatch.setattr(expert_training._Training, "_progress", progress)
    return told


def random_adapter(bench: Bench, seed: int = 1) -> AdapterWeights:
    """An adapter that changes what the base says, and nobody trained."""
    return adapter(bases.base(bench.runtime.settings).model, seed)


def put_version(bench: Bench, weights: AdapterWeights, name: str = "twice", **changed: Any) -> int:
    """Store the adapter as the expert's next version and make it live; its number. ``changed``: what is said of it."""
    base = bases.base(bench.runtime.settings)
    spec = LoraSpec(rank=4, alpha=8)
    place = f"adapters/{name}/{weights.sha256[:8]}"
    tree = bench.runtime.store.put_tree(place, adapter_files(base, weights, spec, take_fingerprint(base, weights)))
    kept = replace(Adapter(place, tree, weights.sha256, base.sha256), **changed)

    def add(connection: Connection) -> int:
        expert_id = expert_versions.ensure_expert(connection, name)
        number = expert_versions.add_version(connection, expert_id, engine="transformers", card=CARD, adapter=kept)
        return expert_versions.promote(connection, name, number).number

    return bench.store(add)
