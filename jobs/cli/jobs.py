"""``moe jobs``: training jobs, followed and stopped."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobs import training_jobs
from jobs.cli.console import JsonFlag, emit_json, note, printable, say, table
from jobs.cli.session import runtime
from jobs.training_jobs import Listener
from storage.jobs import Event, JobView
from worker.runtime import Runtime

app = typer.Typer(no_args_is_help=True, help="Training jobs: list, follow and stop them.")

Job = Annotated[int, typer.Argument(metavar="JOB", min=1, help="As `moe jobs list` numbers them.")]
_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE = 40


@app.command("list")
def list_jobs(
    only_open: Annotated[bool, typer.Option("--open", help="Only those that are not over.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest.")] = 30,
    as_json: JsonFlag = False,
) -> None:
    """List the jobs, the newest first."""
    found = training_jobs.listing(runtime(), only_open=only_open, limit=limit)
    if as_json:
        emit_json([_view(view) for view in found])
        return
    table(
        ("job", "kind", "of", "state", "how far", "asked for", "error"),
        [
            (
                view.id,
                view.kind,
                view.subject,
                _state(view),
                _how_far(view),
                f"{view.created_at:%Y-%m-%d %H:%M}",
                view.error_message and view.error_message[:80],
            )
            for view in found
        ],
    )


@app.command()
def show(job: Job, as_json: JsonFlag = False) -> None:
    """Show a job: its state, its story, its losses, its result."""
    view, events = training_jobs.show(runtime(), job)
    if as_json:
        emit_json(_view(view) | {"result": view.result, "events": [_event(event) for event in events]})
        return
    say(f"[bold]job {view.id}[/]: {view.kind} {printable(view.subject or '')}, {_state(view)} {_how_far(view) or ''}")
    for event in events:
        say(f"{event.at:%H:%M:%S}  {printable(event.message)}")
    for name, key in (("loss", "train_loss"), ("validation loss", "validation_loss")):
        losses = [event.data[key] for event in events if event.data and event.data.get(key) is not None]
        if len(losses) > 1:
            say(f"{name:>16} {losses[0]:.3f} {curve(losses)} {losses[-1]:.3f}")
    if view.error_message:
        say(f"[red]{printable(view.error_code or '')}[/]: {printable(view.error_message)}")


@app.command()
def watch(job: Job, as_json: JsonFlag = False) -> None:
    """Follow a job until it has ended or is paused."""
    view = follow(runtime(), job, quiet=as_json)
    if as_json:
        emit_json(_view(view) | {"result": view.result})
    else:
        say(f"job {view.id} {view.state}{f': {printable(view.error_message)}' if view.error_message else ''}")


@app.command()
def cancel(job: Job, as_json: JsonFlag = False) -> None:
    """End a job. One that runs stops at its next step; nothing of it is registered."""
    _moved(training_jobs.stop(runtime(), job, "cancel"), as_json=as_json)


@app.command()
def pause(job: Job, as_json: JsonFlag = False) -> None:
    """Hold a job. A training stops after its next step, with a checkpoint."""
    _moved(training_jobs.stop(runtime(), job, "pause"), as_json=as_json)


@app.command()
def resume(job: Job, as_json: JsonFlag = False) -> None:
    """Let a paused job go on where it was."""
    _moved(training_jobs.resume(runtime(), job), as_json=as_json)


def follow(client: Runtime, job: int, *, quiet: bool = False) -> JobView:
    """Show the job's progress until it has ended or is paused: a bar on a terminal, its story elsewhere."""
    try:
        if quiet:
            return training_jobs.watch(client, job)
        return _with_bar(client, job) if sys.stderr.isatty() else training_jobs.watch(client, job, Listener(note))
    except KeyboardInterrupt:
        note(f"\njob {job} goes on; `moe jobs watch {job}` follows it, `moe jobs cancel {job}` ends it")
        raise


def curve(losses: Sequence[float]) -> str:
    """Losses as a line of blocks, lowest to highest."""
    step = max(1, len(losses) / _CURVE)
    shown = [losses[int(place * step)] for place in range(min(len(losses), _CURVE))]
    low, high = min(shown), max(shown)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0
    return "".join(_BLOCKS[round((loss - low) * scale)] for loss in shown)


def _with_bar(client: Runtime, job: int) -> JobView:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("waiting", total=None, said="")

        def show_view(view: JobView) -> None:
            far = view.progress or {}
            bar.update(
                task,
                description=_state(view),
                completed=far.get("step", 0),
                total=far.get("total_steps"),
                said=_losses(far),
            )

        return training_jobs.watch(
            client, job, Listener(lambda message: bar.console.print(printable(message)), show_view)
        )


def _moved(view: JobView, *, as_json: bool) -> None:
    if as_json:
        emit_json(_view(view))
    elif view.wanted is not None:
        say(f"job {view.id} was asked to {view.wanted}; its worker stops at the next step")
    else:
        say(f"job {view.id} is {view.state}")


def _state(view: JobView) -> str:
    return {"cancel": "cancelling", "pause": "pausing"}[view.wanted] if view.wanted else view.state


def _how_far(view: JobView) -> str | None:
    far = view.progress
    return None if not far else f"{far.get('step')}/{far.get('total_steps')} {_losses(far)}".strip()


def _losses(far: dict[str, Any]) -> str:
    loss, left = far.get("validation_loss"), far.get("seconds_left")
    parts = ["" if loss is None else f"loss {loss:.3f}", "" if not left else f"{left:.0f} s left"]
    return ", ".join(part for part in parts if part)


def _view(view: JobView) -> dict[str, Any]:
    return {
        "job": view.id,
        "kind": view.kind,
        "subject": view.subject,
        "state": view.state,
        "wanted": view.wanted,
        "progress": view.progress,
        "error": None if view.error_code is None else {"code": view.error_code, "message": view.error_message},
        "created_at": view.created_at.isoformat(),
        "finished_at": None if view.finished_at is None else view.finished_at.isoformat(),
    }


def _event(event: Event) -> dict[str, Any]:
    return {"at": event.at.isoformat(), "message": event.message, "data": event.data}
