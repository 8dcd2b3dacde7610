"""One question through the same queues, and one preview of where it would go."""

import json
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from jobs.errors import BadInput, Failed
from jobs.reading.requests import AUTO, read_request
from jobs.submit import BatchOptions, Priority, line_rules, submit_lines
from storage import runs
from storage.database import transact
from storage.submitting import AcceptedLine, RejectedLine
from worker.runtime import Runtime

_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Reply:
    """The line a question ended in, as it would stand in a batch's file, and the seconds it took."""

    run: str
    line: dict[str, Any]
    seconds: float

    @property
    def text(self) -> str | None:
        """What was answered; None where the question failed."""
        response = self.line["response"]
        return None if response is None else str(response["body"]["choices"][0]["message"]["content"])


def ask(
    runtime: Runtime,
    question: str,
    *,
    top_k: int | None = None,
    strategy: str | None = None,
    model: str = AUTO,
    timeout_s: float = 60,
) -> Reply:
    """Submit one question on the interactive queues and wait for its end. Raises BadInput, Failed on a timeout."""
    started = time.perf_counter()
    options = BatchOptions(top_k=top_k, strategy=strategy, priority=Priority.INTERACTIVE, kind="ask")
    run = submit_lines(runtime, [_line(runtime, question, model)], options)

    def outcome(connection: Connection) -> Any:
        return connection.execute(
            text("SELECT line FROM outcome WHERE run_id = :run AND idx = 0"), {"run": run.id}
        ).scalar_one_or_none()

    line = _poll(
        runtime, outcome, timeout_s, f"no answer within {timeout_s:.0f} s; `moe status` shows which workers run"
    )
    return Reply(run.public_id, line, time.perf_counter() - started)


def explain(runtime: Runtime, question: str, *, top_k: int | None = None, timeout_s: float = 60) -> dict[str, Any]:
    """How the question would be routed; nothing is answered, and nothing stays stored."""
    options = BatchOptions(top_k=top_k, priority=Priority.INTERACTIVE, kind="preview")
    run = submit_lines(runtime, [_line(runtime, question, AUTO)], options)

    def decision(connection: Connection) -> Any:
        return connection.execute(
            text(
                "SELECT experts, confidence, coverage, in_scope, reason, explanation, router_version_id FROM decision"
                " WHERE run_id = :run AND idx = 0"
            ),
            {"run": run.id},
        ).one_or_none()

    try:
        row = _poll(
            runtime, decision, timeout_s, f"not routed within {timeout_s:.0f} s; `moe status` shows which workers run"
        )
    finally:
        transact(runtime.engine, lambda c: runs.remove(c, run.id))
    return {
        "text": question,
        "experts": row.experts,
        "confidence": round(row.confidence, 4),
        "coverage": round(row.coverage, 4),
        "in_scope": row.in_scope,
        "reason": row.reason,
        "router_version": row.router_version_id,
        **row.explanation,
    }


def _line(runtime: Runtime, question: str, model: str) -> AcceptedLine:
    # Checked by the same rules as a line of a file.
    data = json.dumps({"id": "question", "text": question, "model": model}).encode()
    if len(data) > runtime.settings.input.max_line_bytes:
        raise BadInput(f"the question is longer than {runtime.settings.input.max_line_bytes} bytes")
    line = read_request(1, data, line_rules(runtime))
    if isinstance(line, RejectedLine):
        raise BadInput(f"the question cannot be asked: {line.message}")
    return line


def _poll(runtime: Runtime, read: Any, timeout_s: float, complaint: str) -> Any:
    deadline = time.monotonic() + timeout_s
    pause = _PAUSE_S
    while True:
        found = transact(runtime.engine, read)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise Failed(complaint)
        time.sleep(pause)
        pause = min(pause * 1.1, _LONGEST_PAUSE_S)
