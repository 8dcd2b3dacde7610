"""``moe schedule``: what is done again and again."""

from typing import Annotated, Any

import typer

from jobs import schedules
from jobs.cli.console import JsonFlag, emit_json, say, table
from jobs.cli.jobs import follow
from jobs.cli.session import runtime
from jobs.training_jobs import succeeded
from storage.schedules import ScheduleView

app = typer.Typer(no_args_is_help=True, help="What is done again and again. Changes need no restart.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A schedule.")]


@app.command("list")
def list_schedules(as_json: JsonFlag = False) -> None:
    """List the schedules, when each is due next, and what came of the last time."""
    found = schedules.listing(runtime())
    if as_json:
        emit_json([_view(view) for view in found])
        return
    table(
        ("schedule", "does", "every", "feedback", "next", "last", "what came of it"),
        [
            (
                view.name,
                f"{view.kind} {view.subject or ''}".strip(),
                _every(view.every_s),
                view.min_feedback or None,
                "paused" if view.paused_at else f"{view.next_at:%Y-%m-%d %H:%M}",
                None if view.last_at is None else f"{view.last_at:%Y-%m-%d %H:%M}",
                schedules.outcome(view),
            )
            for view in found
        ],
    )


@app.command("set")
def set_schedule(
    name: Name,
    every: Annotated[str, typer.Option(metavar="TIME", help="30m, 6h, 1d, 2w.")],
    expert: Annotated[str | None, typer.Option(help="Retrain this expert.")] = None,
    router: Annotated[bool, typer.Option("--router", help="Train the router anew, and make it live.")] = False,
    min_feedback: Annotated[
        int, typer.Option(min=0, help="New pieces of feedback on the expert without which it is passed over.")
    ] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Add a schedule, or change one. The clock starts anew."""
    view = schedules.put(
        runtime(), name, every_s=schedules.every(every), expert=expert, router=router, min_feedback=min_feedback
    )
    _show(view, as_json=as_json)


@app.command("run-now")
def run_now(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Do it at once, whatever clock and feedback say."""
    client = runtime()
    job = schedules.run_now(client, name)
    if not wait:
        emit_json({"job": job}) if as_json else say(f"job {job} is queued; `moe jobs watch {job}` follows it")
        return
    found = succeeded(follow(client, job, quiet=as_json)).result or {}
    if as_json:
        emit_json({"job": job, **found})
    else:
        say(schedules.outcome(next(view for view in schedules.listing(client) if view.name == name)))


@app.command()
def pause(name: Name, as_json: JsonFlag = False) -> None:
    """Hold a schedule."""
    _show(schedules.pause(runtime(), name, paused=True), as_json=as_json)


@app.command()
def resume(name: Name, as_json: JsonFlag = False) -> None:
    """Let a held schedule go on."""
    _show(schedules.pause(runtime(), name, paused=False), as_json=as_json)


@app.command()
def remove(name: Name, as_json: JsonFlag = False) -> None:
    """Delete a schedule."""
    schedules.remove(runtime(), name)
    emit_json({"schedule": name, "removed": True}) if as_json else say(f"{name} is removed")


def _show(view: ScheduleView, *, as_json: bool) -> None:
    if as_json:
        emit_json(_view(view))
    elif view.paused_at:
        say(f"{view.name} is paused")
    else:
        what = f"{view.kind} {view.subject or ''}".strip()
        say(f"{view.name}: {what} every {_every(view.every_s)}, next {view.next_at:%Y-%m-%d %H:%M}")


def _every(seconds: float) -> str:
    for unit, size in (("w", 604_800), ("d", 86_400), ("h", 3600)):
        if seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 60:.0f}m"


def _view(view: ScheduleView) -> dict[str, Any]:
    return {
        "schedule": view.name,
        "kind": view.kind,
        "subject": view.subject,
        "every_s": view.every_s,
        "min_feedback": view.min_feedback,
        "paused": view.paused_at is not None,
        "next_at": view.next_at.isoformat(),
        "last_at": None if view.last_at is None else view.last_at.isoformat(),
        "last_job": view.last_job_id,
        "last_state": view.job_state,
        "outcome": schedules.outcome(view),
    }
