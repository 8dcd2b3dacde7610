"""Experts to train on, and training jobs as a worker would do them."""

import json
from collections.abc import Iterable
from typing import Any

from storage import catalogue, jobs, versions
from storage.catalogue import NewDocument, NewExpert
from storage.jobs import JobView
from storage.versions import RouterView
from tests.support.experts import card
from tests.unit.tasks.conftest import Bench


def put(
    bench: Bench,
    name: str,
    *,
    engine: str = "echo",
    documents: int = 0,
    exemplars: int = 3,
    keywords: Iterable[str] | None = None,
) -> None:
    """Store an expert, or bring it to this state."""
    texts = [f"question {n} about {name}" for n in range(exemplars)]
    library = [
        NewDocument(f"d{n}.md", f"Of {name} {n}", f"All that is known of {name}, part {n}.") for n in range(documents)
    ]
    about: dict[str, Any] = card(name) | {"keywords": list(keywords or [name])}
    bench.store(catalogue.put_expert, NewExpert(name, engine, about, texts, library))


def candidate(bench: Bench, name: str) -> None:
    """Store an expert with a library and exemplars, whose only version was never promoted."""
    put(bench, name, engine="extractive", documents=1)
    bench.store.sql("UPDATE expert SET live_version_id = NULL WHERE name = :name", name=name)
    bench.store.sql(
        "UPDATE expert_version SET promoted_at = NULL WHERE expert_id = (SELECT id FROM expert WHERE name = :name)",
        name=name,
    )


def train(bench: Bench, job_kind: str = "refresh", /, **params: Any) -> JobView:
    """The job, after a worker was given it."""
    job_id = bench.store(jobs.add, job_kind, params)
    bench.run("train", job_id)
    return bench.store(jobs.view, job_id)


def result(bench: Bench, job_kind: str, /, **params: Any) -> dict[str, Any]:
    """What the job came to; it must succeed."""
    job = train(bench, job_kind, **params)
    assert job.state == "succeeded", (job.error_code, job.error_message)
    assert job.result is not None
    return job.result


def failure(job: JobView) -> tuple[str, str | None, str | None]:
    return job.state, job.error_code, job.error_message


def story(bench: Bench, job: JobView) -> list[str]:
    """What the job reported, in order."""
    return [event.message for event in bench.store(jobs.events, job.id)]


def live(bench: Bench) -> RouterView:
    view = bench.store(versions.live_router)
    assert view is not None
    return view


def labelled(bench: Bench, rows: Iterable[tuple[str, str | None]]) -> str:
    """Labelled queries where workers read them; the place."""
    lines = [json.dumps({"text": text, "expert": expert}).encode() + b"\n" for text, expert in rows]
    bench.runtime.store.put_file("labelled/queries.jsonl", lines)
    return "labelled/queries.jsonl"


def configure(bench: Bench, section: str = "routing", /, **values: Any) -> None:
    """Change settings of one section under the running process."""
    settings = bench.runtime.settings
    changed = settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})
    object.__setattr__(bench.runtime, "settings", changed)


def spoil(bench: Bench, folder: str, *, missing: bool = False) -> None:
    """Damage, or remove, every stored file under a folder of the artefacts; nothing of them stays in the cache."""
    home = bench.runtime.settings.home
    for file in [file for file in (home / "artefacts" / folder).rglob("*") if file.is_file()]:
        if missing:
            file.unlink()
        else:
            file.write_bytes(b"x" + file.read_bytes())
    for copy in sorted((home / "cache").rglob("*"), reverse=True):
        copy.unlink() if copy.is_file() else copy.rmdir()
