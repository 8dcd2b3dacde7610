"""The learned experts of the demonstration: what the base cannot answer, they learn in a minute."""

from pathlib import Path
from typing import Any

import orjson

from jobs import ask, catalogue
from jobs.cli.console import note, printable, say, table
from jobs.training_jobs import wait_for_job
from storage import expert_versions
from storage.database import transact
from storage.expert_versions import VersionView
from worker.runtime import Runtime

FOLDER = Path(__file__).parent.parent / "experts" / "learned"


def show(client: Runtime) -> None:
    """Load the folder of experts that learn, wait until they have, and ask each a question of its test."""
    say("")
    say("[bold]Experts that learn[/]: adapters on one frozen base model, measured on questions they have not seen")
    loaded = catalogue.load(client, FOLDER)
    for job in loaded.jobs:
        found = wait_for_job(client, job, on_event=note).result or {}
        if found.get("refresh_job") is not None:
            wait_for_job(client, found["refresh_job"], on_event=note)
    live = [version for name in loaded.experts if (version := _live(client, name)) is not None]
    table(
        ("expert", "questions", "right: base", "right: expert", "trained in s", "base unchanged"),
        [_row(version) for version in live],
    )
    for version in live:
        _ask(client, version)


def _live(client: Runtime, name: str) -> VersionView | None:
    """The live version; None, and a word why, where none has passed."""
    for version in transact(client.engine, lambda c: expert_versions.versions(c, name)):
        if version.state == "live":
            return version
        note(f"{name}@{version.number} stays a candidate: {'; '.join((version.verdict or {}).get('reasons', []))}")
    return None


def _row(version: VersionView) -> tuple[object, ...]:
    metrics: dict[str, Any] = version.metrics or {}
    return (
        version.expert,
        metrics.get("n"),
        f"{metrics.get('base_exact_match', 0):.1%}",
        f"{metrics.get('exact_match', 0):.1%}",
        metrics.get("seconds"),
        metrics.get("base_unchanged"),
    )


def _ask(client: Runtime, version: VersionView) -> None:
    """Ask what the router is to find by itself."""
    with (FOLDER / version.expert / "test.jsonl").open("rb") as lines:
        example = orjson.loads(next(lines))
    reply = ask.ask(client, example["instruction"])
    first = reply.line["moe"]["experts"][0]
    say("")
    say(f"[bold]Q[/] {printable(example['instruction'])}")
    say(f"[bold]A[/] {printable(reply.text or '')} [dim](expected: {printable(example['output'])})[/]")
    adapter = f", adapter {first['adapter'][:12]}" if first.get("adapter") else ""
    say(f"  {first['name']}@{first['version']} {first['weight']:.2f}{adapter}; {reply.seconds:.2f} s")
