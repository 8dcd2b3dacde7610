"""``moe batch``: submit batches, follow them, steer them, fetch and check their results."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import results
from jobs.cli import progress
from jobs.cli.console import JsonFlag, emit_json, note, printable, say, table
from jobs.cli.errors import FAILED
from jobs.cli.session import runtime
from jobs.errors import BadInput
from jobs.follow import details, state_of, summary, wait_until_ended
from jobs.preview import dry_run
from jobs.prune import prune
from jobs.reading.sources import as_text
from jobs.retry import retry_failed
from jobs.run_routing import routing_of
from jobs.submit import BatchOptions, Priority, duration_s, parse_deadline, submit_batch
from storage import runs
from storage.database import transact
from storage.hints import FinalizeHint
from storage.runs import RunView
from worker.runtime import Runtime

app = typer.Typer(no_args_is_help=True, help="Submit batches, follow them, fetch their results.")


class Form(StrEnum):
    """A file format, as said on the command line."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


RunKey = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, the beginning of one, or a run's name.")]


def _find(key: str) -> tuple[Runtime, RunView]:
    client = runtime()
    return client, transact(client.engine, lambda c: runs.find(c, as_text(key.replace("\x00", ""))))


@app.command()
def submit(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSONL, CSV or Parquet, plain or gzip; - for standard input.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, with progress.")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Only tell where the lines would go; nothing is stored.")
    ] = False,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, max=64, help="Experts asked per query.")] = None,
    strategy: Annotated[str | None, typer.Option(help="How answers are combined.")] = None,
    priority: Annotated[Priority, typer.Option(help="Share of the workers.")] = Priority.NORMAL,
    deadline: Annotated[
        str | None, typer.Option(help="When open lines expire: 90s, 30m, 2h, 1d, or an ISO time.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name to find the run by.")] = None,
    form: Annotated[
        Form | None, typer.Option("--format", help="Format, where the file's name does not say it.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Submitting again with this key returns the same run.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a batch of queries."""
    client = runtime()
    options = BatchOptions(
        form=form.value if form else None,
        name=name,
        top_k=top_k,
        strategy=strategy,
        priority=priority,
        deadline=parse_deadline(deadline) if deadline is not None else None,
        idempotency_key=idempotency_key,
        kind="preview" if dry else "batch",
    )
    if dry:
        _show_dry_run(dry_run(client, file, options), as_json)
        return
    run = submit_batch(client, file, options)
    if not as_json:
        known = "" if run.created else " (submitted before with this key)"
        rejected = f", {run.n_rejected:,} of them rejected" if run.n_rejected else ""
        say(f"run [bold]{run.public_id}[/]: {run.n_total:,} lines{rejected}{known}")
    view = progress.follow(client, run.id) if wait and not as_json else None
    if wait:
        view = view or wait_until_ended(client, run.id)
    view = view or transact(client.engine, lambda c: runs.view(c, run.id))
    if as_json:
        emit_json(summary(client, view))
    elif wait:
        _show(client, view)
    if wait and view.state != "completed":
        raise typer.Exit(FAILED)


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    questions: Annotated[bool, typer.Option("--questions", help="Single questions (`moe ask`) too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the newest runs."""
    client = runtime()
    found = transact(client.engine, lambda c: runs.recent(c, limit=limit, include_asks=questions))
    if as_json:
        emit_json([summary(client, run) for run in found])
        return
    table(
        ("run", "name", "state", "lines", "completed", "failed", "created"),
        (
            (r.public_id, r.name, state_of(r), r.n_total, r.n_ok, r.n_error, f"{r.created_at:%Y-%m-%d %H:%M:%S}")
            for r in found
        ),
    )


@app.command()
def status(run: RunKey, as_json: JsonFlag = False) -> None:
    """Show how a run stands: lines in = output lines + error lines, experts, causes of failures."""
    client, view = _find(run)
    if as_json:
        emit_json(summary(client, view) | transact(client.engine, lambda c: details(c, view)))
    else:
        _show(client, view)


@app.command()
def watch(run: RunKey, as_json: JsonFlag = False) -> None:
    """Follow a run until it ends."""
    client, view = _find(run)
    ended = wait_until_ended(client, view.id) if as_json else progress.follow(client, view.id)
    if as_json:
        emit_json(summary(client, ended))
    else:
        _show(client, ended)


@app.command()
def cancel(run: RunKey, as_json: JsonFlag = False) -> None:
    """Cancel a run. Finished lines are kept; open ones become error lines."""
    client, view = _find(run)
    changed = transact(client.engine, lambda c: runs.cancel(c, view))
    if changed:
        client.dispatcher.send([FinalizeHint(view.id)])
    _tell(client, view, changed, "cancelling", "has ended or is ending already", as_json)


@app.command()
def pause(run: RunKey, as_json: JsonFlag = False) -> None:
    """Stop handing out a run's work. What workers hold is finished."""
    client, view = _find(run)
    changed = transact(client.engine, lambda c: runs.pause(c, view, paused=True))
    _tell(client, view, changed, "paused", "is paused already", as_json)


@app.command()
def resume(run: RunKey, as_json: JsonFlag = False) -> None:
    """Go on with a paused run."""
    client, view = _find(run)
    changed = transact(client.engine, lambda c: runs.pause(c, view, paused=False))
    _tell(client, view, changed, "goes on", "is not paused", as_json)


@app.command("retry-failed")
def retry(
    run: RunKey,
    cause: Annotated[
        list[str] | None, typer.Option("--cause", help="Only lines with this error code; may be repeated.")
    ] = None,
    edits: Annotated[
        Path | None,
        typer.Option(help='JSONL of corrected lines: {"line": number, …} with a whole new line beside the number.'),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, with progress.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Answer the failed lines of an ended run again, into the same run. Rejected lines need an edit."""
    client, view = _find(run)
    n = retry_failed(client, view, codes=cause or [], edits=edits)
    if not as_json:
        say(f"run [bold]{view.public_id}[/]: {n:,} failed lines go round again")
    if wait:
        view = wait_until_ended(client, view.id) if as_json else progress.follow(client, view.id)
    else:
        view = transact(client.engine, lambda c: runs.view(c, view.id))
    if as_json:
        emit_json(summary(client, view) | {"retried": n})
    elif wait:
        _show(client, view)


@app.command("results")
def fetch_results(
    run: RunKey,
    out: Annotated[
        str | None, typer.Option(help="Where the output lines go; - (the default) is standard output.")
    ] = None,
    errors: Annotated[str | None, typer.Option(help="Where the error lines go; - is standard output.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Fetch the files of an ended run."""
    client, view = _find(run)
    if out is None and errors is None and not as_json:
        out = results.STDOUT
    results.fetch(client, view, output=out, errors=errors)
    if as_json:
        emit_json(summary(client, view))
        return
    for target, stored in ((out, view.output), (errors, view.errors)):
        if target not in (None, results.STDOUT) and stored is not None:
            note(f"{stored['lines']:,} lines in {target}")


@app.command()
def failures(run: RunKey, as_json: JsonFlag = False) -> None:
    """Show a run's failed lines, grouped by cause."""
    client, view = _find(run)
    causes = transact(client.engine, lambda c: details(c, view))["causes"]
    if as_json:
        emit_json(causes)
    else:
        _show_causes(causes)


@app.command("prune")
def prune_runs(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="How long ago they ended: 12h, 30d.")],
    as_json: JsonFlag = False,
) -> None:
    """Delete runs that ended long ago, with their lines and files. Questions (`moe ask`) too."""
    age = duration_s(older_than)
    if age is None:
        raise BadInput(f"--older-than {older_than!r} is no duration such as 12h or 30d")
    n = prune(runtime(), older_than_s=min(age, 1e10))
    if as_json:
        emit_json({"deleted": n})
    else:
        say(f"{n:,} runs deleted")


@app.command()
def routing(run: RunKey, as_json: JsonFlag = False) -> None:
    """Show how a run was routed, and how often rightly where the right expert is known."""
    client, view = _find(run)
    found = routing_of(client, view)
    if as_json:
        emit_json(found)
        return
    table(
        ("expert", "first choice", "asked"),
        [(name, found["first_choices"].get(name, 0), n) for name, n in found["asked"].items()],
    )
    plain = {key: value for key, value in found.items() if not isinstance(value, dict) and key != "run"}
    shown = {key: "–".join(map(str, v)) if isinstance(v, list) else v for key, v in plain.items()}
    table(("measured", "value"), [(key.replace("_", " "), value) for key, value in shown.items()])


@app.command()
def verify(run: RunKey, as_json: JsonFlag = False) -> None:
    """Check a run's files against the database: every line accounted for, once, unchanged."""
    client, view = _find(run)
    found = results.verify(client, view)
    if as_json:
        emit_json(found)
    else:
        say(
            f"run [bold]{view.public_id}[/] ({view.state}): {found['lines_total']:,} lines in ="
            f" {found['output_lines']:,} output + {found['error_lines']:,} error"
        )
        for problem in found["problems"]:
            say(f"  [red]{printable(problem)}[/]")
        say("[green]everything is accounted for[/]" if found["ok"] else "[red]something is wrong[/]")
    if not found["ok"]:
        raise typer.Exit(FAILED)


def _tell(client: Runtime, run: RunView, changed: bool, now: str, otherwise: str, as_json: bool) -> None:
    if as_json:
        view = transact(client.engine, lambda c: runs.view(c, run.id))
        emit_json(summary(client, view) | {"changed": changed})
    else:
        say(f"run [bold]{run.public_id}[/] {now if changed else otherwise}")


def _show(client: Runtime, run: RunView) -> None:
    more = transact(client.engine, lambda c: details(c, run))
    facts = summary(client, run)
    name = f" ({printable(run.name)})" if run.name else ""
    say(f"run [bold]{run.public_id}[/]{name} is [bold]{facts['state']}[/]")
    open_lines = run.n_total - run.n_ok - run.n_error
    still = f" + {open_lines:,} open" if open_lines else ""
    say(f"lines: {run.n_total:,} in = {run.n_ok:,} output + {run.n_error:,} error{still}")
    if run.started_at and run.finished_at:
        seconds = (run.finished_at - run.started_at).total_seconds()
        say(f"time: {seconds:,.1f} s, {run.n_total / max(seconds, 0.001):,.0f} lines/s")
    if more["experts"]:
        table(
            ("expert", "lines", "mean weight"),
            [(e["name"], e["lines"], e["mean_weight"]) for e in more["experts"]],
        )
    if more["outside"]:
        say(f"{more['outside']:,} lines are outside every expert's domain")
    _show_causes(more["causes"])
    for label, path in (("output", facts["output_file"]), ("errors", facts["error_file"])):
        if path:
            say(f"{label}: {printable(path)}")


def _show_causes(causes: list[dict[str, Any]]) -> None:
    if causes:
        table(
            ("failed", "code", "message", "lines"),
            [(c["lines"], c["code"], c["message"][:100], ", ".join(map(str, c["sample_lines"]))) for c in causes],
        )


def _show_dry_run(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(found)
        return
    say(f"{found['lines_total']:,} lines, {found['lines_invalid']:,} invalid; nothing was stored")
    for line in found["invalid"]:
        say(f"  line {line['line']}: {line['code']}: {printable(line['message'])}")
    if found["lines_invalid"] > len(found["invalid"]):
        say(f"  … and {found['lines_invalid'] - len(found['invalid']):,} more")
    table(("expert", "lines", "asked"), [(e["name"], e["lines"], e["asked"]) for e in found["experts"]])
    say(f"outside every domain: {found['outside']:,} ({found['outside_share']:.1%})")
    total = found["estimated_seconds"]["total"]
    missing = found["estimated_seconds"]["not_measured"]
    if total is not None:
        say(f"estimated time: {total:,.1f} s")
    else:
        say("estimated time: unknown, nothing was measured yet" + (f" of {', '.join(missing)}" if missing else ""))
