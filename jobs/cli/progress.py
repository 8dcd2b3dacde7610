"""Following a run on the screen: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jobs.cli.console import note
from jobs.follow import state_of, wait_until_ended
from storage import runs
from storage.database import transact
from storage.runs import RunView
from worker.runtime import Runtime

_PLAIN_EVERY_S = 2.0


def follow(client: Runtime, run_id: int) -> RunView:
    """Show the run's progress until it has ended."""
    try:
        return _with_bar(client, run_id) if sys.stderr.isatty() else _with_lines(client, run_id)
    except KeyboardInterrupt:
        run = transact(client.engine, lambda c: runs.view(c, run_id)).public_id
        note(f"\nrun {run} goes on; `moe batch watch {run}` follows it, `moe batch cancel {run}` ends it")
        raise


def _with_bar(client: Runtime, run_id: int) -> RunView:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("waiting", total=None, failed="")

        def show(run: RunView) -> None:
            failed = f"[red]{run.n_error} failed[/]" if run.n_error else ""
            bar.update(
                task, description=state_of(run), total=run.n_total, completed=run.n_ok + run.n_error, failed=failed
            )

        return wait_until_ended(client, run_id, on_change=show, pause_s=0.1)


def _with_lines(client: Runtime, run_id: int) -> RunView:
    last = 0.0
    state = ""

    def show(run: RunView) -> None:
        nonlocal last, state
        if state_of(run) != state or time.monotonic() - last > _PLAIN_EVERY_S or run.ended:
            note(f"{state_of(run)}: {run.n_ok + run.n_error:,} of {run.n_total:,} lines, {run.n_error:,} failed")
            last, state = time.monotonic(), state_of(run)

    return wait_until_ended(client, run_id, on_change=show)
