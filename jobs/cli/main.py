"""The command ``moe``."""

import os
import sys
from typing import Annotated

import typer

from jobs import ask as asking
from jobs import demo as demonstration
from jobs.cli import batch, experts, jobs, judging, router, schedule, stack
from jobs.cli.console import JsonFlag, emit_json, printable, say, table
from jobs.cli.errors import FAILED, report
from jobs.cli.explaining import show_reply
from jobs.cli.session import runtime, settings
from jobs.doctor import examine
from worker.settings import shown

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Route batches of queries to domain experts, durably, line by line.",
)
config_app = typer.Typer(no_args_is_help=True, help="The settings.")
app.add_typer(batch.app, name="batch")
app.add_typer(experts.app, name="experts")
app.add_typer(router.app, name="router")
app.add_typer(jobs.app, name="jobs")
app.add_typer(schedule.app, name="schedule")
app.add_typer(judging.gaps_app, name="gaps")
app.add_typer(config_app, name="config")
app.add_typer(stack.database_app, name="db")
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(stack.worker)
app.command()(stack.beat)
app.command()(stack.flower)
app.command()(judging.feedback)

Question = Annotated[str, typer.Argument(metavar='"…"', help="A question.")]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, max=64, help="Experts asked.")]


@app.command()
def ask(
    question: Question,
    top_k: TopK = None,
    strategy: Annotated[str | None, typer.Option(help="How answers are combined.")] = None,
    model: Annotated[str, typer.Option(help="moe/auto, or moe/ with an expert's name.")] = "moe/auto",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = 60,
    as_json: JsonFlag = False,
) -> None:
    """Ask one question through the same queues, with its routing explained."""
    reply = asking.ask(runtime(), question, top_k=top_k, strategy=strategy, model=model, timeout_s=timeout)
    if as_json:
        emit_json(
            {
                "run": reply.run,
                "text": reply.text,
                "error": reply.line["error"],
                "seconds": round(reply.seconds, 4),
                **reply.line["moe"],
            }
        )
    else:
        show_reply(reply)
    if reply.text is None:
        raise typer.Exit(FAILED)


@config_app.command("show")
def show_config(as_json: JsonFlag = False) -> None:
    """Show every setting with its present value; secrets are masked."""
    rows = shown(settings())
    if as_json:
        emit_json({row.key: row.value for row in rows})
    else:
        table(("setting", "value", "meaning"), [(row.key, row.value, row.description) for row in rows])


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check everything a stack needs before anything fails."""
    checks = examine(settings())
    if as_json:
        emit_json([{"check": c.name, "state": c.state, "found": c.found} for c in checks])
    else:
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        for check in checks:
            say(f"[{colours[check.state]}]{check.state:>4}[/]  {check.name}: {printable(check.found)}")
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(FAILED)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running.")] = False,
    learn: Annotated[bool, typer.Option(help="Train three small experts as well, and ask them.")] = True,
) -> None:
    """Run the shipped batch through the embedded stack, let three experts learn, and show what comes out."""
    demonstration.run(settings(), keep=keep, learn=learn)


def main() -> None:
    """Run the command and exit. Errors that are expected become a message and a code; all others are bugs."""
    as_json = "--json" in sys.argv
    try:
        app()
    except BrokenPipeError:  # the reader went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # noqa: BLE001  (the table in jobs.cli.errors tells bugs from the rest)
        sys.exit(report(error, as_json=as_json))


if __name__ == "__main__":
    main()
