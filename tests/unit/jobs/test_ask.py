"""Single questions, with what workers would do done at once in the same process."""

from dataclasses import replace

import pytest

from jobs.ask import ask, explain
from jobs.errors import BadInput, Failed
from tests.unit.jobs.endings import Workers
from tests.unit.jobs.lines import nothing_stored, rows
from worker.runtime import Runtime
from worker.settings import Input


@pytest.fixture
def stack(client: Runtime) -> Runtime:
    return replace(client, dispatcher=Workers(client))  # type: ignore[arg-type]


def test_a_question_is_answered(stack: Runtime) -> None:
    reply = ask(stack, "What is alpha?", top_k=1)
    assert reply.line["custom_id"] == "question"
    assert reply.text == "yes"
    assert reply.seconds >= 0
    assert rows(stack.engine, "SELECT public_id, kind, priority, n_total FROM run") == [(reply.run, "ask", 8, 1)]


def test_a_preview_of_a_question_leaves_nothing(stack: Runtime) -> None:
    found = explain(stack, "What is alpha?", top_k=1)
    assert found == {
        "text": "What is alpha?",
        "experts": [{"name": "alpha", "version": 1, "weight": 1.0}],
        "confidence": 0.75,
        "coverage": 0.5,
        "in_scope": True,
        "reason": "By a test.",
        "router_version": 1,
    }
    assert nothing_stored(stack.engine)


@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        ("", "the question cannot be asked: text: is empty"),
        (" \n\u3000", "the question cannot be asked: text: is empty"),
        ("a\x00b", "the question cannot be asked: holds the character U\\+0000"),
        ("\udcff", "the question cannot be asked: is not JSON"),
    ],
)
def test_what_is_no_question_is_refused(stack: Runtime, question: str, complaint: str) -> None:
    for asked in (ask, explain):
        with pytest.raises(BadInput, match=f"^{complaint}"):
            asked(stack, question)
    assert nothing_stored(stack.engine)


def test_a_question_longer_than_a_line_is_refused(stack: Runtime) -> None:
    small = replace(stack, settings=stack.settings.model_copy(update={"input": Input(max_line_bytes=100)}))
    with pytest.raises(BadInput, match=r"^the question is longer than 100 bytes$"):
        ask(small, "x" * 100)
    assert nothing_stored(stack.engine)


def test_a_question_to_nobody_is_refused(stack: Runtime) -> None:
    with pytest.raises(BadInput, match=r"^the question cannot be asked: model: 'moe/nobody' is neither moe/auto nor"):
        ask(stack, "What?", model="moe/nobody")


def test_a_question_nobody_answers_fails(client: Runtime) -> None:
    with pytest.raises(Failed, match=r"^no answer within 0 s; `moe status` shows which workers run$"):
        ask(client, "What?", timeout_s=0)


def test_a_preview_nobody_routes_fails_and_leaves_nothing(client: Runtime) -> None:
    with pytest.raises(Failed, match=r"^not routed within 0 s; `moe status` shows which workers run$"):
        explain(client, "What?", timeout_s=0)
    assert nothing_stored(client.engine)
