"""The lines of the two files, as the OpenAI batch format has them."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from storage import finalizing, runs
from storage.lines import error_line, experts_of, line_id, output_line
from storage.submitting import AcceptedLine
from tests.unit.storage.builders import Store, submit

RUN = "batch_00ff"
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@pytest.mark.parametrize(
    ("run", "idx", "name"), [(RUN, 0, "batch_req_00ff_0"), ("batch_batch_1", 12, "batch_req_batch_1_12")]
)
def test_a_line_is_named_after_its_run_and_place(run: str, idx: int, name: str) -> None:
    assert line_id(run, idx) == name


def test_an_output_line_is_a_chat_completion_with_a_passport() -> None:
    line = output_line(
        run=RUN, idx=3, custom_id="é", created=1700000000, model="moe", text="a\n\u2028b", passport={"line": 4}
    )

    assert "\n" not in line
    assert orjson.loads(line) == {
        "id": "batch_req_00ff_3",
        "custom_id": "é",
        "response": {
            "status_code": 200,
            "request_id": "batch_req_00ff_3",
            "body": {
                "id": "chatcmpl-batch_req_00ff_3",
                "object": "chat.completion",
                "created": 1700000000,
                "model": "moe",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": "a\n\u2028b", "refusal": None},
                        "logprobs": None,
                    }
                ],
                "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            },
        },
        "error": None,
        "moe": {"line": 4},
    }


@pytest.mark.parametrize(("usage", "total"), [((0, 0), 0), ((812, 64), 876)])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_an_output_line_counts_its_tokens_and_says_why_it_ended(
    usage: tuple[int, int], total: int, reason: str
) -> None:
    line = output_line(
        run=RUN,
        idx=0,
        custom_id="a",
        created=0,
        model="moe",
        text="yes",
        passport={},
        usage=usage,
        finish_reason=reason,
    )

    body = orjson.loads(line)["response"]["body"]
    assert body["usage"] == {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": total}
    assert [choice["finish_reason"] for choice in body["choices"]] == [reason]


@pytest.mark.parametrize(
    ("passport", "moe"), [(None, {"line": 9}), ({"reason": "r"}, {"line": 9, "reason": "r"}), ({}, {"line": 9})]
)
def test_an_error_line_names_the_input_line(passport: dict[str, str] | None, moe: dict[str, object]) -> None:
    line = error_line(
        run=RUN, idx=3, custom_id=None, line_no=9, code="c", message="m", param="body.x", passport=passport
    )

    assert orjson.loads(line) == {
        "id": "batch_req_00ff_3",
        "custom_id": None,
        "response": None,
        "error": {"code": "c", "message": "m", "param": "body.x", "line": 9},
        "moe": moe,
    }


@settings(deadline=None, max_examples=100, derandomize=True, database=None)
@given(custom_id=st.none() | texts, message=texts, text=texts)
def test_every_text_fits_on_one_line_and_comes_back(custom_id: str | None, message: str, text: str) -> None:
    error = error_line(run=RUN, idx=0, custom_id=custom_id, line_no=1, code="c", message=message)
    output = output_line(run=RUN, idx=0, custom_id=custom_id, created=0, model="moe", text=text, passport={})

    assert b"\n" not in error.encode() + output.encode()
    assert orjson.loads(error)["error"]["message"] == message
    assert orjson.loads(output)["response"]["body"]["choices"][0]["message"]["content"] == text
    assert orjson.loads(error)["custom_id"] == orjson.loads(output)["custom_id"] == custom_id


@settings(deadline=None, max_examples=50, derandomize=True, database=None)
@given(custom_id=texts, line_no=st.integers(1, 2**40))
def test_the_line_that_postgres_builds_is_the_same(storage_engine: Engine, custom_id: str, line_no: int) -> None:
    store = Store(storage_engine)
    run = submit(store, [AcceptedLine(line_no, custom_id, "text")])
    store(runs.cancel, run)
    store(finalizing.close_open_lines, run.id)

    built = store.value("SELECT line::text FROM outcome WHERE run_id = :run", run=run.id)

    ours = error_line(
        run=run.public_id,
        idx=0,
        custom_id=custom_id,
        line_no=line_no,
        code="batch_cancelled",
        message="The run was cancelled before this line was answered.",
    )
    assert "\n" not in built
    assert orjson.loads(built) == orjson.loads(ours)


@pytest.mark.parametrize(
    ("experts", "told"),
    [
        ([], ""),
        ([{"name": "finance", "weight": 0.716}, {"name": "legal", "weight": 0.284}], "finance 0.72, legal 0.28"),
        ([{"name": "law", "weight": 1}], "law 1.00"),
    ],
)
def test_the_experts_of_a_decision_are_told_in_words(experts: list[dict[str, object]], told: str) -> None:
    assert experts_of(experts) == told
