"""Lines of batches, good ones and their stored form."""

import json
from typing import Any

from sqlalchemy import Engine, text

from jobs.reading.requests import LineRules
from storage.submitting import AcceptedLine
from tests.support.experts import NAMES

RULES = LineRules(frozenset(NAMES), ", ".join(NAMES))
URL = "/v1/chat/completions"


def short(custom_id: str = "it", /, text: Any = "a question", **more: Any) -> bytes:
    """A line in the short form."""
    return json.dumps({"id": custom_id, "text": text} | more).encode()


def request(custom_id: Any = "it", /, **body: Any) -> bytes:
    """A line in the form of OpenAI's batches, these keys in its body."""
    messages = {"messages": [{"role": "user", "content": "a question"}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": URL, "body": messages | body}).encode()


def joined(*lines: bytes) -> bytes:
    """A file of these lines."""
    return b"".join(line + b"\n" for line in lines)


def good(number: int, custom_id: str, question: str = "a question") -> AcceptedLine:
    """What a plain short line is read as."""
    return AcceptedLine(number, custom_id, question)


def rows(engine: Engine, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def stored_lines(engine: Engine, run_id: int) -> list[tuple[Any, ...]]:
    """(line number, custom_id, text, request, pinned, error code, error message) of a run's lines, in order."""
    return rows(
        engine,
        "SELECT q.line_no, q.custom_id, q.text, q.request, q.pinned, o.error_code, o.error_message FROM query q"
        " LEFT JOIN outcome o ON o.run_id = q.run_id AND o.idx = q.idx WHERE q.run_id = :run ORDER BY q.idx",
        run=run_id,
    )


def nothing_stored(engine: Engine) -> bool:
    """Whether there is neither a run nor a line."""
    return rows(engine, "SELECT (SELECT count(*) FROM run), (SELECT count(*) FROM query)") == [(0, 0)]
