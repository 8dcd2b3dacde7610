"""What a request asks of a model, read from whatever it holds."""

from typing import Any

import pytest

from experts.engines.base import EngineQuery
from experts.engines.requests import read_wish
from experts.language.prompting import ASSISTANT, SYSTEM, USER, Turn
from experts.serving.parameters import Sampling


@pytest.mark.parametrize(
    ("request_", "max_tokens"),
    [
        (None, 99),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 0}, 99),
        ({"max_tokens": True}, 99),
        ({"max_tokens": "7"}, 99),
    ],
)
def test_max_tokens_is_a_whole_number_or_the_default(request_: dict[str, Any] | None, max_tokens: int) -> None:
    assert read_wish(EngineQuery("x", request_), 99).max_tokens == max_tokens


@pytest.mark.parametrize(
    ("request_", "sampling"),
    [
        ({}, Sampling()),
        ({"temperature": 0, "seed": 3}, Sampling()),
        ({"temperature": 1e-9}, Sampling()),
        ({"temperature": 0.7, "top_p": 0.9, "seed": 3}, Sampling(0.7, 0.9, 3)),
        ({"temperature": 0.7, "top_p": 0, "seed": 3}, Sampling(0.7, 1e-6, 3)),
        ({"temperature": float("nan"), "seed": 3}, Sampling()),
        ({"temperature": "hot"}, Sampling()),
    ],
)
def test_sampling_is_greedy_unless_a_temperature_says_otherwise(request_: dict[str, Any], sampling: Sampling) -> None:
    assert read_wish(EngineQuery("x", request_), 9).sampling == sampling


def test_without_a_seed_the_draws_depend_on_the_text() -> None:
    seeds = [read_wish(EngineQuery(text, {"temperature": 1.0}), 9).sampling.seed for text in ("a", "a", "b", "\ud800")]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("stop", "found"),
    [("\n", ("\n",)), (["a", "", 3, "b"], ("a", "b")), (None, ()), ({"a": 1}, ())],
)
def test_stop_is_a_string_or_a_list_of_them(stop: Any, found: tuple[str, ...]) -> None:
    assert read_wish(EngineQuery("x", {"stop": stop}), 9).stop == found


def test_messages_are_the_turns_up_to_the_last_of_the_user() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        "nonsense",
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "Left out"},
    ]
    assert read_wish(EngineQuery("x", {"messages": messages}), 9).turns == [
        Turn(SYSTEM, "Be brief."),
        Turn(USER, "Hello"),
        Turn(ASSISTANT, "Yes?"),
        Turn(USER, "one\ntwo"),
    ]


@pytest.mark.parametrize("messages", [None, [], "Hello", [{"role": "assistant", "content": "Hello"}]])
def test_without_a_turn_of_the_user_the_text_is_asked(messages: Any) -> None:
    assert read_wish(EngineQuery("x", {"messages": messages}), 9).turns == [Turn(USER, "x")]
