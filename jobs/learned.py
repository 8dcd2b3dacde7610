"""The learned experts of the demonstration: what the base cannot answer, they learn in a minute."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from jobs import catalogue
from jobs.cli.console import note, printable, say, table
from jobs.follow import wait_until_ended
from jobs.submit import BatchOptions, submit_batch
from jobs.training_jobs import wait_for_job
from storage import expert_versions
from storage.database import transact
from storage.expert_versions import VersionView
from worker.runtime import Runtime

FOLDER = Path(__file__).parent.parent / "experts" / "learned"
# Questions of each expert's test that are sent through the whole system.
_ASKED = 40


@dataclass(frozen=True, slots=True)
class Answered:
    """A question of a test, with what the system made of it."""

    expert: str
    text: str
    expected: str
    passport: dict[str, Any]
    answer: str

    @property
    def routed(self) -> bool:
        return bool(self.passport["experts"]) and self.passport["experts"][0]["name"] == self.expert

    @property
    def right(self) -> bool:
        return self.answer.split() == self.expected.split()


def show(client: Runtime) -> None:
    """Load the folder of experts that learn, wait until they have, and send questions of their tests through."""
    say("")
    say("[bold]Experts that learn[/]: adapters on one frozen base model, measured on questions they have not seen")
    loaded = catalogue.load(client, FOLDER)
    refreshes: dict[int | None, None] = {}
    for job in loaded.jobs:
        found = wait_for_job(client, job, on_event=note).result or {}
        refreshes[found.get("refresh_job")] = None
    for refresh in refreshes:
        if refresh is not None:
            wait_for_job(client, refresh, on_event=note)
    live = [version for name in loaded.experts if (version := _live(client, name)) is not None]
    answered = list(_answered(client, [version.expert for version in live]))
    table(
        (
            "expert",
            "questions",
            "right: base",
            "right: expert",
            "trained in s",
            "base unchanged",
            "routed to it",
            "and right",
        ),
        [_row(version, [one for one in answered if one.expert == version.expert]) for version in live],
    )
    for version in live:
        _show_one(next(one for one in answered if one.expert == version.expert))


def _live(client: Runtime, name: str) -> VersionView | None:
    """The live version; None, and a word why, where none has passed."""
    for version in transact(client.engine, lambda c: expert_versions.versions(c, name)):
        if version.state == "live":
            return version
        note(f"{name}@{version.number} stays a candidate: {'; '.join((version.verdict or {}).get('reasons', []))}")
    return None


def _answered(client: Runtime, experts: list[str]) -> Iterator[Answered]:
    """Questions of all tests as one batch, that nobody told the router apart."""
    asked = {f"{name}-{n}": (name, row) for name in experts for n, row in enumerate(_test(name)[:_ASKED])}
    if not asked:
        return
    with tempfile.TemporaryDirectory() as folder:
        batch = Path(folder) / "learned.jsonl"
        batch.write_bytes(
            b"".join(orjson.dumps({"id": key, "text": row["instruction"]}) + b"\n" for key, (_, row) in asked.items())
        )
        view = wait_until_ended(client, submit_batch(client, str(batch), BatchOptions(name="learned", top_k=1)).id)
    if view.output is None:
        return
    with client.store.open(view.output["path"]) as lines:
        for line in map(orjson.loads, lines):
            name, row = asked[line["custom_id"]]
            said = line["response"]["body"]["choices"][0]["message"]["content"]
            yield Answered(name, row["instruction"], row["output"], line["moe"], said)


def _test(name: str) -> list[dict[str, str]]:
    with (FOLDER / name / "test.jsonl").open("rb") as lines:
        return [orjson.loads(line) for line in lines]


def _row(version: VersionView, answered: list[Answered]) -> tuple[object, ...]:
    metrics: dict[str, Any] = version.metrics or {}
    n = max(len(answered), 1)
    return (
        version.expert,
        metrics.get("n"),
        f"{metrics.get('base_exact_match', 0):.1%}",
        f"{metrics.get('exact_match', 0):.1%}",
        metrics.get("seconds"),
        metrics.get("base_unchanged"),
        f"{sum(one.routed for one in answered) / n:.1%}",
        f"{sum(one.routed and one.right for one in answered) / n:.1%}",
    )


def _show_one(one: Answered) -> None:
    first = one.passport["experts"][0]
    adapter = f", adapter {first['adapter'][:12]}" if first.get("adapter") else ""
    say("")
    say(f"[bold]Q[/] {printable(one.text)}")
    say(f"[bold]A[/] {printable(one.answer)} [dim](expected: {printable(one.expected)})[/]")
    say(f"  {first['name']}@{first['version']} {first['weight']:.2f}{adapter}")
