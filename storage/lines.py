"""The lines of the output file and of the error file, as the OpenAI batch format has them.

Everything of ours that the format does not know is under the one key ``moe``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

# What a run that ends early writes for its open lines.
CANCELLED = ("batch_cancelled", "The run was cancelled before this line was answered.")
EXPIRED = ("batch_expired", "The deadline of the run passed before this line was answered.")


def line_id(run: str, idx: int) -> str:
    """The same for every attempt at the line."""
    return f"{run.replace('batch_', 'batch_req_', 1)}_{idx}"


def output_line(
    *,
    run: str,
    idx: int,
    custom_id: str | None,
    created: int,
    model: str,
    text: str,
    passport: Mapping[str, Any],
    usage: tuple[int, int] = (0, 0),
    finish_reason: str = "stop",
) -> str:
    """A line of the output file: a chat completion with our passport beside it.

    ``usage`` are the tokens of all prompts and of all answers that the line took.
    """
    request_id = line_id(run, idx)
    body = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }
    line = {
        "id": request_id,
        "custom_id": custom_id,
        "response": {"status_code": 200, "request_id": request_id, "body": body},
        "error": None,
        "moe": passport,
    }
    return orjson.dumps(line).decode()


def error_line(
    *,
    run: str,
    idx: int,
    custom_id: str | None,
    line_no: int,
    code: str,
    message: str,
    param: str | None = None,
    passport: Mapping[str, Any] | None = None,
) -> str:
    """A line of the error file; names the input line by its number, also where it had no readable ``custom_id``."""
    line = {
        "id": line_id(run, idx),
        "custom_id": custom_id,
        "response": None,
        "error": {"code": code, "message": message, "param": param, "line": line_no},
        "moe": {"line": line_no, **(passport or {})},
    }
    return orjson.dumps(line).decode()


# The same error line, built by Postgres for a whole run at once. Needs `q` (query) and `r` (run) in the FROM clause and
# the parameters :code and :message.
ERROR_LINE_SQL = """json_build_object(
    'id', replace(r.public_id, 'batch_', 'batch_req_') || '_' || q.idx,
    'custom_id', q.custom_id,
    'response', NULL,
    'error', json_build_object('code', CAST(:code AS text), 'message', CAST(:message AS text),
                               'param', NULL, 'line', q.line_no),
    'moe', json_build_object('line', q.line_no)
)"""


def experts_of(decision: Sequence[Mapping[str, Any]]) -> str:
    """``finance 0.72, legal 0.28``."""
    return ", ".join(f"{expert['name']} {expert['weight']:.2f}" for expert in decision)
