"""``moe demo``: the shipped batch, from the first server to the last line, and what came of it in figures."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from jobs import catalogue, learned, results
from jobs.cli import progress
from jobs.cli.console import note, printable, say, table
from jobs.cli.explaining import one_line, show_passages
from jobs.errors import Failed
from jobs.submit import BatchOptions, submit_batch
from jobs.training_jobs import wait_for_job
from storage import catalogue as stored
from storage import versions
from storage.database import transact
from storage.runs import RunView
from worker.embedded import stack
from worker.runtime import Runtime, make_runtime
from worker.settings import Settings

QUESTIONS = Path(__file__).parent.parent / "experts" / "demo" / "questions.jsonl"
_OUTSIDE = "outside"
_SAMPLES = 3
_GAPS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Expected:
    """What a question of the batch should come to."""

    text: str
    domain: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A question with the output line it ended in; None where it ended in the error file."""

    expected: Expected
    output: dict[str, Any] | None

    @property
    def passport(self) -> dict[str, Any]:
        return dict(self.output["moe"]) if self.output else {}

    @property
    def answer(self) -> str:
        return str(self.output["response"]["body"]["choices"][0]["message"]["content"]) if self.output else ""

    @property
    def expert(self) -> str | None:
        experts = self.passport.get("experts") or []
        return str(experts[0]["name"]) if experts else None

    @property
    def hit(self) -> bool:
        """Whether the answer holds what was expected."""
        said = " ".join(self.answer.lower().split())
        return bool(self.passport.get("answered")) and any(answer.lower() in said for answer in self.expected.answers)


def run(settings: Settings, *, keep: bool, learn: bool = True) -> None:
    """Start what does not run, load what is not loaded, run the batch, show it, and stop what was started.

    With ``learn`` three experts are trained on the bundled base as well, and asked.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    # The first of two in one home would stop the stack under the second.
    with stack.only_one(
        settings.home / "demo.lock", otherwise=Failed(f"another demonstration is running in {settings.home}")
    ):
        _run(settings, keep=keep, learn=learn)


def _run(settings: Settings, *, keep: bool, learn: bool) -> None:
    started = time.monotonic()
    already = stack.running(settings)
    noted = already or stack.start_detached(settings)
    note(f"the stack {'was running' if already else 'is up'} in {settings.home} ({time.monotonic() - started:.1f} s)")
    try:
        client = make_runtime(settings)
        _load(client)
        note(f"experts serve ({time.monotonic() - started:.1f} s)")
        submitted = submit_batch(client, str(QUESTIONS), BatchOptions(name="demo"))
        view = progress.follow(client, submitted.id)
        _report(client, view, _read(client, view))
        if learn:
            learned.show(client)
        _say_flower(noted, keep or already is not None)
    finally:
        if already is None and not keep:
            stack.stop(settings)
            note(f"stopped everything that was started; what was stored stays in {settings.home}")
    note(f"done in {time.monotonic() - started:.1f} s")


def _load(client: Runtime) -> None:
    """Load the shipped catalogue where an expert of it is missing; what people changed in it since stays."""
    if catalogue.shipped_names() - set(transact(client.engine, stored.names)):
        catalogue.load(client, catalogue.SHIPPED)
    elif transact(client.engine, versions.live_router) is not None:
        return
    wait_for_job(client, catalogue.refresh(client), on_event=note)


def expectations() -> dict[str, Expected]:
    """The batch's questions by id."""
    with QUESTIONS.open("rb") as lines:
        return {
            row["id"]: Expected(row["text"], row["metadata"]["domain"], tuple(row["metadata"].get("answers", ())))
            for row in map(orjson.loads, lines)
        }


def _read(client: Runtime, view: RunView) -> list[Line]:
    outputs: dict[str, dict[str, Any]] = {}
    if view.output is not None:
        with client.store.open(view.output["path"]) as file:
            for raw in file:
                line = orjson.loads(raw)
                outputs[line["custom_id"]] = line
    return [Line(expected, outputs.get(key)) for key, expected in expectations().items()]


def figures(lines: list[Line]) -> dict[str, float]:
    """Shares in [0, 1]: routing accuracy (first choice, among those asked), answer hits, gaps found, false gaps."""
    inside = [line for line in lines if line.expected.domain != _OUTSIDE]
    outside = [line for line in lines if line.expected.domain == _OUTSIDE]
    answerable = [line for line in inside if line.expected.answers]
    unanswerable = [line for line in inside if not line.expected.answers]
    return {
        "routing accuracy": _share(line.expert == line.expected.domain for line in inside),
        "right expert among those asked": _share(
            line.expected.domain in [e["name"] for e in line.passport.get("experts", [])] for line in inside
        ),
        "answer hit rate": _share(line.hit for line in answerable),
        "said 'no answer' where the documents hold none": _share(
            not line.passport.get("answered", False) for line in unanswerable
        ),
        "outside questions recognised": _share(not line.passport.get("in_scope", True) for line in outside),
        "covered questions taken for outside": _share(not line.passport.get("in_scope", True) for line in inside),
    }


def _share(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _report(client: Runtime, view: RunView, lines: list[Line]) -> None:
    say("")
    spread = Counter(line.expert or "none" for line in lines)
    right = Counter(line.expert for line in lines if line.expert == line.expected.domain)
    table(
        ("expert", "lines", "of its domain"),
        [(name, n, right[name]) for name, n in spread.most_common()],
        title="How the queries spread over the experts",
    )
    say("")
    table(("measured on this batch", "share"), [(name, f"{value:.1%}") for name, value in figures(lines).items()])
    _show_samples(lines)
    _show_gaps(lines)
    say("")
    if view.started_at and view.finished_at:
        seconds = (view.finished_at - view.started_at).total_seconds()
        say(f"{view.n_total} lines in = {view.n_ok} output + {view.n_error} error, in {seconds:.1f} s")
    checked = results.verify(client, view)
    say(f"files against database: {'all accounted for' if checked['ok'] else checked['problems']}")
    for label, file in (("output", view.output), ("errors", view.errors)):
        if file is not None:
            say(f"{label}: {printable(client.store.locate(file['path']))}")


def _show_samples(lines: list[Line]) -> None:
    answered = [line for line in lines if line.hit]
    step = max(1, len(answered) // _SAMPLES)
    for line in answered[::step][:_SAMPLES]:
        passport = line.passport
        say("")
        say(f"[bold]Q[/] {printable(line.expected.text)}")
        say(f"[bold]A[/] {printable(line.answer)}")
        show_passages(passport["passages"])
        say(f"  {one_line(passport)}")
        say(f"  why: {printable(passport['reason'])}")


def _show_gaps(lines: list[Line]) -> None:
    gaps = sorted(
        (line for line in lines if not line.passport.get("in_scope", True)),
        key=lambda line: float(line.passport["coverage"]),
    )
    say("")
    say(f"[bold]Gaps[/]: {len(gaps)} questions that no expert covers, for example")
    for line in gaps[:_GAPS_SHOWN]:
        say(f"  {line.passport['coverage']:.2f}  {printable(line.expected.text)} [dim](nearest: {line.expert})[/]")


def _say_flower(noted: dict[str, Any], stays: bool) -> None:
    flower = noted["flower"]
    login = f"user {flower['user']}, password {flower['password']}"
    if stays:
        say(f"Flower: {flower['url']} ({login})")
    else:
        say(f"Flower shows queues, workers and tasks while a stack runs: `moe up`, then {flower['url']} ({login})")
