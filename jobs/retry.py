"""Sending failed lines round again, as they are or corrected."""

from collections.abc import Sequence
from pathlib import Path

import orjson
from sqlalchemy import Connection

from jobs.errors import BadInput
from jobs.reading.lines import split_lines
from jobs.reading.requests import LineRules, read_request
from jobs.reading.sources import open_source
from jobs.submit import line_rules
from storage import retrying, windows
from storage.database import transact
from storage.hints import Hint
from storage.rates import shard_size
from storage.runs import RunView
from storage.submitting import AcceptedLine, RejectedLine
from worker.runtime import Runtime


def retry_failed(runtime: Runtime, run: RunView, *, codes: Sequence[str], edits: Path | None) -> int:
    """Open the run again for its failed lines; how many there are. Raises BadInput and NotAllowed."""
    rules = line_rules(runtime)
    corrected = _read_edits(runtime, edits, rules) if edits is not None else []
    pipeline = runtime.settings.pipeline

    def again(connection: Connection) -> tuple[int, list[Hint]]:
        size = shard_size(
            connection,
            seconds=pipeline.shard_seconds,
            least=pipeline.shard_size_min,
            most=pipeline.shard_size_max,
        )
        n = retrying.retry_failed(connection, run, codes=codes, edits=corrected, shard_size=size)
        return n, [*windows.fill(connection, window=pipeline.window_shards)]

    n, hints = transact(runtime.engine, again)
    runtime.dispatcher.send(hints)
    return n


def _read_edits(runtime: Runtime, path: Path, rules: LineRules) -> list[AcceptedLine]:
    """``{"line": 17, "id": …, "text": …}`` or a whole batch request with "line" beside it. Raises BadInput."""
    edits: dict[int, AcceptedLine] = {}
    with open_source(str(path)) as stream:
        for raw in split_lines(stream, runtime.settings.input.max_line_bytes):
            try:
                value = orjson.loads(raw.data or b"")
                number = value.pop("line")
            except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
                raise BadInput(
                    f'{path} line {raw.number}: an edit is an object with "line" and the corrected line'
                ) from None
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number < 1 << 31:
                raise BadInput(f"{path} line {raw.number}: line must be the number of an input line, not {number!r}")
            try:
                line = read_request(number, orjson.dumps(value), rules)
            except TypeError as error:  # nested deeper than can be written
                raise BadInput(f"{path} line {raw.number}: {error}") from None
            if isinstance(line, RejectedLine):
                raise BadInput(f"{path} line {raw.number}: {line.message}")
            if number in edits:
                raise BadInput(f"{path} line {raw.number}: line {number} is edited twice")
            edits[number] = line
    if not edits:
        raise BadInput(f"{path} holds no edits")
    return list(edits.values())
