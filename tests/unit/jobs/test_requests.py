"""One line as a query. What is nasty about lines stands in test_nasty_lines; here is what is plain."""

import json
from typing import Any

import pytest

from jobs.reading.requests import AUTO, LineRules, read_request, reject_or_accept
from storage.submitting import AcceptedLine, RejectedLine
from tests.unit.jobs.lines import RULES, URL, request, short


def read(data: bytes, rules: LineRules = RULES) -> AcceptedLine | RejectedLine:
    return read_request(7, data, rules)


def chat(*messages: tuple[str, Any]) -> bytes:
    return request(messages=[{"role": role, "content": content} for role, content in messages])


def test_the_short_form_is_a_query() -> None:
    assert read(short("it", "What is alpha?")) == AcceptedLine(7, "it", "What is alpha?", None, None)


def test_further_keys_of_the_short_form_are_kept() -> None:
    line = short("it", "t", metadata={"lang": "fr"}, seed=[1, None, 2.5])
    assert read(line) == AcceptedLine(7, "it", "t", {"metadata": {"lang": "fr"}, "seed": [1, None, 2.5]}, None)


def test_a_batch_request_is_a_query() -> None:
    assert read(request("it")) == AcceptedLine(7, "it", "a question", None, None)


def test_what_a_body_asks_for_is_kept_without_the_model() -> None:
    line = request("it", model=AUTO, max_tokens=5, temperature=0.5, stop=["x"], logit_bias={"1": -100}, user=None)
    assert read(line) == AcceptedLine(
        7, "it", "a question", {"max_tokens": 5, "temperature": 0.5, "stop": ["x"], "logit_bias": {"1": -100}}, None
    )


def test_the_last_user_message_is_the_query_and_the_talk_is_kept() -> None:
    line = chat(
        ("system", "Be brief."), ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")
    )
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
    assert read(line) == AcceptedLine(7, "it", "three", {"messages": talk}, None)


def test_the_parts_of_a_message_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert read(chat(("user", parts))) == AcceptedLine(7, "it", "one\ntwo", None, None)


@pytest.mark.parametrize("form", ["short", "request"])
def test_a_named_expert_is_pinned(form: str) -> None:
    line = short(model="moe/beta") if form == "short" else request(model="moe/beta")
    found = read(line)
    assert isinstance(found, AcceptedLine)
    assert (found.pinned, found.request) == ("beta", None)


@pytest.mark.parametrize("more", [{}, {"model": AUTO}])
def test_without_a_name_no_expert_is_pinned(more: dict[str, str]) -> None:
    found = read(short(**more))
    assert isinstance(found, AcceptedLine)
    assert found.pinned is None


def test_white_space_around_a_line_does_not_matter() -> None:
    assert read(b" \t" + short("it", "t") + b" \r ") == AcceptedLine(7, "it", "t", None, None)


def test_texts_and_ids_are_taken_as_they_are() -> None:
    assert read(short(" it ", " What?\n")) == AcceptedLine(7, " it ", " What?\n", None, None)


def test_a_longer_custom_id_is_taken_where_the_setting_allows_it() -> None:
    rules = LineRules(RULES.experts, RULES.expert_names, max_custom_id_chars=3)
    assert read(short("abc"), rules) == AcceptedLine(7, "abc", "a question")
    assert read(short("abcd"), rules) == RejectedLine(
        7, "invalid_request", "id: has 4 characters; 3 are allowed", None, "id"
    )


@pytest.mark.parametrize(
    "more", [{"method": "POST"}, {"body": {}}, {"custom_id": "it"}], ids=["method", "body", "custom_id"]
)
def test_a_mixture_of_the_two_forms_is_read_as_a_request(more: dict[str, Any]) -> None:
    found = read(short("it", "t", **more))
    assert isinstance(found, RejectedLine)
    assert (found.code, found.custom_id) == ("invalid_request", "it")
    assert found.param in ("custom_id", "method", "url", "body")


def test_a_line_that_is_refused_later_still_says_its_id() -> None:
    assert read(request("it", model="moe/delta")) == RejectedLine(
        7,
        "unknown_model",
        "body.model: 'moe/delta' is neither moe/auto nor moe/ with one of alpha, beta, gamma",
        "it",
        "body.model",
    )


def test_the_url_is_named_when_it_is_not_supported() -> None:
    line = json.dumps({"custom_id": "it", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}).encode()
    found = read(line)
    assert isinstance(found, RejectedLine)
    assert (found.code, found.custom_id) == ("invalid_request", "it")
    line = json.dumps(json.loads(request()) | {"url": "/v1/embeddings"}).encode()
    assert read(line) == RejectedLine(
        7, "invalid_request", f"url: is '/v1/embeddings'; supported is {URL}", "it", "url"
    )


def test_a_row_that_was_never_json_goes_through_the_same_checks() -> None:
    assert reject_or_accept(3, {"id": "it", "text": "t", "model": "moe/alpha"}, RULES) == AcceptedLine(
        3, "it", "t", None, "alpha"
    )
    assert reject_or_accept(3, {"id": "it", "text": " "}, RULES) == RejectedLine(
        3, "invalid_request", "text: is empty", "it", "text"
    )
    assert reject_or_accept(3, {"id": 5, "text": "t"}, RULES) == RejectedLine(
        3, "invalid_request", "id: Input should be a valid string", None, "id"
    )


@pytest.mark.parametrize("row", [{"id": "it", "text": "a\x00"}, {"id": "it", "text": "t", "metadata": {"k": "\x00"}}])
def test_a_row_with_a_nul_anywhere_is_refused(row: dict[str, Any]) -> None:
    assert reject_or_accept(3, row, RULES) == RejectedLine(
        3, "invalid_character", "holds the character U+0000, which cannot be stored", "it", None
    )


def test_a_row_with_a_nul_in_its_id_is_refused_without_that_id() -> None:
    """An id that cannot be stored cannot be shown either."""
    assert reject_or_accept(3, {"id": "i\x00", "text": "t"}, RULES) == RejectedLine(
        3, "invalid_character", "holds the character U+0000, which cannot be stored", None, None
    )
