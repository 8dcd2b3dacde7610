"""Whole runs through real workers."""

from tests.acceptance.conftest import ROLES, StackMaker
from tests.acceptance.harness import errors, finish, outputs, submit, write_batch
from tests.support.experts import NAMES

TEXTS = [f"question {n} about {NAMES[n % 3]}" for n in range(300)]


def test_every_line_of_a_batch_is_answered_by_its_expert(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)
    client = stack.client()
    run = finish(client, submit(client, write_batch(stack.home / "batch.jsonl", TEXTS), name="first", top_k=1))
    answered = outputs(client, run)
    assert run.state == "completed"
    assert list(answered) == [f"q{n}" for n in range(300)]
    for n, text in enumerate(TEXTS):
        line = answered[f"q{n}"]
        assert line["response"]["body"]["choices"][0]["message"]["content"] == text
        assert [expert["name"] for expert in line["moe"]["experts"]] == [NAMES[n % 3]]
        assert line["moe"]["experts"][0]["version"] == 1
        assert line["moe"]["in_scope"] is True
    assert errors(client, run) == {}
