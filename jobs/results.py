"""A run's files: fetching them, and proving that they account for every line."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from sqlalchemy import Connection, text

from jobs.errors import BadInput
from jobs.follow import state_of
from jobs.writing import complete_file
from storage import invariants
from storage.artefacts import sha256_of
from storage.errors import ArtefactDamaged
from storage.runs import RunView
from worker.runtime import Runtime

STDOUT = "-"


def fetch(runtime: Runtime, run: RunView, *, output: str | None, errors: str | None) -> None:
    """Copy the run's files to the given places (``-``: standard output). Raises BadInput before it has ended."""
    if run.output is None or run.errors is None:
        raise BadInput(f"run {run.public_id} is {state_of(run)}; its files are there when it has ended")
    if output is not None and errors is not None and STDOUT not in (output, errors) and _same(output, errors):
        raise BadInput(f"{output} cannot take the output and the errors; name two files")
    for target, stored in ((output, run.output), (errors, run.errors)):
        if target is None:
            continue
        with runtime.store.open(stored["path"]) as source, _target(target) as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


@contextmanager
def _target(path: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears when it is complete."""
    if path == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with suppress(OSError):  # a name that cannot even be looked up is told of when it is written to
        if Path(path).is_dir():
            raise BadInput(f"{path} is a folder; name a file")
    with complete_file(Path(path)) as sink:
        yield sink


def _same(one: str, other: str) -> bool:
    try:
        return Path(one).resolve() == Path(other).resolve()
    except (OSError, ValueError, RuntimeError):
        return one == other


def verify(runtime: Runtime, run: RunView) -> dict[str, Any]:
    """Compare the run's files with the database and with themselves; what was found, ``ok`` when nothing is wrong.

    Every line of the input must stand exactly once in one of the two files, each of which must have the bytes that were
    recorded; and the stored rows must keep their invariants.
    """
    problems: list[str] = []
    counts = {"output": 0, "errors": 0}
    with runtime.engine.begin() as connection:
        problems += [f"{breach.invariant}: {breach.rows[0]}" for breach in invariants.breaches(connection, run.id)]
    if run.output is not None and run.errors is not None:
        for kind, stored in (("output", run.output), ("errors", run.errors)):
            counts[kind] = _verify_file(runtime, run, kind, stored, problems)
        if counts["output"] + counts["errors"] != run.n_total:
            problems.append(
                f"{counts['output']} output and {counts['errors']} error lines for {run.n_total} input lines"
            )
    elif run.ended:
        problems.append("the run has ended without files")
    return {
        "run": run.public_id,
        "state": run.state,
        "ok": not problems,
        "lines_total": run.n_total,
        "output_lines": counts["output"],
        "error_lines": counts["errors"],
        "problems": problems,
    }


def _verify_file(runtime: Runtime, run: RunView, kind: str, stored: dict[str, Any], problems: list[str]) -> int:
    try:
        with runtime.store.open(stored["path"]) as file:
            if sha256_of(file) != stored["sha256"]:
                problems.append(
                    f"{kind} file {runtime.store.locate(stored['path'])} is not the one that was recorded (sha256)"
                )
        with runtime.store.open(stored["path"]) as file, runtime.engine.connect() as connection:
            return _compare(connection, run, kind, file, problems)
    except ArtefactDamaged as error:
        problems.append(str(error))
        return 0


def _compare(connection: Connection, run: RunView, kind: str, file: BinaryIO, problems: list[str]) -> int:
    """Read file and outcomes side by side, in the same order; both as streams."""
    expected = connection.execution_options(stream_results=True, max_row_buffer=2000).execute(
        text(
            "SELECT q.idx, q.custom_id, q.line_no FROM outcome o JOIN query q ON q.run_id = o.run_id AND q.idx = o.idx"
            " WHERE o.run_id = :run AND o.ok = :ok ORDER BY o.idx"
        ),
        {"run": run.id, "ok": kind == "output"},
    )
    rows = iter(expected)
    count = 0
    for raw in file:
        count += 1
        row = next(rows, None)
        try:
            line = orjson.loads(raw)
            fits = row is not None and line["custom_id"] == row.custom_id and line["moe"]["line"] == row.line_no
            right = (line["error"] is None) == (kind == "output") and (line["response"] is None) == (kind == "errors")
        except (orjson.JSONDecodeError, KeyError, TypeError):
            fits = right = False
        if not (fits and right) and len(problems) < 20:
            problems.append(f"{kind} file line {count} is not the outcome that was recorded")
    missing = sum(1 for _ in rows)
    if missing:
        problems.append(f"{kind} file lacks {missing} recorded lines")
    return count
