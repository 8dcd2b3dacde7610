"""Experts answered by a server: a real one, which fails in all the ways servers do."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from experts.documents import Document
from experts.encoders.hashing import HashingEncoder
from experts.engines.base import (
    AdapterReference,
    AnswerError,
    Engine,
    EngineAnswer,
    EngineBatch,
    EngineQuery,
    EngineSpec,
    RemoteSpec,
    Usage,
    make_engine,
)
from experts.engines.rate_limit import shared_limiter
from experts.engines.remote import PATIENCE, UNKNOWN_CONFIDENCE
from experts.errors import EngineUnavailable, ModelUnusable
from experts.knowledge import KnowledgeBase, build
from tests.support.openai_server import OpenAIServer, openai_server

ENCODER = HashingEncoder()
LIBRARY = build([Document("ash", "Ash", "Ash stops planes. Basalt is dark.")], ENCODER)[0]


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with openai_server("base", "loans-lora") as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer) -> OpenAIServer:
    """The server, which has seen nothing yet."""
    running.seen()
    return running


def engine_on(server: OpenAIServer, **changes: Any) -> Engine:
    spec = RemoteSpec(server.url, model="base", timeout_seconds=20, retries=2, concurrency=4)
    return make_engine("openai", EngineSpec(2, remote=replace(spec, **changes)))


def batch(*texts: str, card: dict[str, Any] | None = None) -> EngineBatch:
    return EngineBatch("loans", card or {}, [EngineQuery(text) for text in texts], None, None)


def ask(server: OpenAIServer, *texts: str, card: dict[str, Any] | None = None, **changes: Any) -> list[EngineAnswer]:
    return engine_on(server, **changes).answer(batch(*texts, card=card))


def error(answer: EngineAnswer) -> AnswerError:
    assert answer.error is not None
    assert (answer.text, answer.answered, answer.confidence) == ("", False, 0)
    return answer.error


def test_an_expert_is_answered_by_the_model_its_card_names(server: OpenAIServer) -> None:
    assert [answer.text for answer in ask(server, "why?", "how?")] == ["base: why?", "base: how?"]
    assert [answer.text for answer in ask(server, "why?", card={"model": "loans-lora"})] == ["loans-lora: why?"]


def test_an_expert_without_a_model_is_refused(server: OpenAIServer) -> None:
    with pytest.raises(ModelUnusable, match="no model is named for loans"):
        ask(server, "why?", model=None)
    assert server.seen() == []


def test_an_adapter_the_server_was_not_told_of_is_never_answered_by_the_base_alone(server: OpenAIServer) -> None:
    with pytest.raises(ModelUnusable, match="loans is an adapter"):
        ask(server, "why?", card={"adapter": True})
    with pytest.raises(ModelUnusable, match="loans is an adapter"):
        engine_on(server).answer(replace(batch("why?"), adapter=AdapterReference("a", "b", "c")))
    [answer] = ask(server, "why?", card={"adapter": True, "model": "loans-lora"})
    assert answer.text == "loans-lora: why?"


def test_without_a_server_there_is_no_engine() -> None:
    with pytest.raises(ModelUnusable, match="needs a server"):
        make_engine("openai", EngineSpec())


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    for name in ("chat", "remote"):
        monkeypatch.delitem(sys.modules, f"experts.engines.{name}")
    with pytest.raises(ModelUnusable, match=r"needs adaptive-moe\[openai\]"):
        make_engine("openai", EngineSpec(remote=RemoteSpec("http://host/v1", model="base")))


def test_turns_and_parameters_of_a_request_are_sent(server: OpenAIServer) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "why?\ud800"},
    ]
    request = {"messages": messages, "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": "\n"}
    queries = [EngineQuery("why?", request), EngineQuery("how?")]
    engine_on(server, concurrency=1, max_tokens=50).answer(EngineBatch("loans", {}, queries, None, None))
    given, plain = (seen["body"] for seen in server.seen())
    assert given == {
        "model": "base",
        "messages": [*messages[:3], {"role": "user", "content": "why??"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["\n"],
    }
    assert plain == {
        "model": "base",
        "messages": [{"role": "user", "content": "how?"}],
        "max_tokens": 50,
        "temperature": 0,
    }


def test_what_the_server_says_of_its_answer_is_kept(server: OpenAIServer) -> None:
    whole, cut = ask(server, "why is it so?", "!cut")
    assert (whole.usage, whole.finish_reason, whole.confidence) == (Usage(4, 5), "stop", UNKNOWN_CONFIDENCE)
    assert (cut.text, cut.usage, cut.finish_reason) == ("and so", Usage(1, 2), "length")


def test_confidence_is_the_mean_probability_of_the_tokens_where_it_is_asked_for(server: OpenAIServer) -> None:
    [answer] = ask(server, "why?", logprobs=True)
    assert answer.confidence == pytest.approx((1 + 0.36788) / 2, abs=1e-4)


def test_a_model_that_declines_or_says_nothing_has_not_answered(server: OpenAIServer) -> None:
    declined, silent = ask(server, "!decline", "!silent")
    assert (declined.text, declined.answered, declined.confidence) == ("I would rather not.", False, 0)
    assert (silent.answered, silent.error) == (False, None)


def test_passages_stand_in_the_prompt_and_are_cited_where_the_card_says_so(server: OpenAIServer) -> None:
    def asked(text: str, card: dict[str, Any], knowledge: KnowledgeBase | None = LIBRARY) -> EngineAnswer:
        query = EngineBatch("loans", card, [EngineQuery(text)], ENCODER.encode([text]), knowledge)
        [answer] = engine_on(server).answer(query)
        return answer

    found = asked("ash?", {"retrieval": True})
    assert found.text == "base: Passages:\n[1] Ash stops planes. Basalt is dark.\n\nash?"
    assert [passage.document for passage in found.passages] == ["ash"]
    assert asked("ash?", {}).text == "base: ash?"
    assert asked("ash?", {"retrieval": True}, None).text == "base: ash?"
    crowded = asked("!short", {"retrieval": True})
    assert (crowded.text, list(crowded.passages)) == ("base: !short", [])


def test_passages_need_the_queries_embeddings(server: OpenAIServer) -> None:
    with pytest.raises(ModelUnusable, match="embeddings"):
        engine_on(server).answer(replace(batch("x", card={"retrieval": True}), knowledge=LIBRARY))


@pytest.mark.parametrize("trouble", ["!busy 2", "!broken 2", "!hangup 1"])
def test_a_server_in_trouble_is_asked_again(server: OpenAIServer, trouble: str) -> None:
    [answer] = ask(server, f"{trouble} again")
    assert answer.text == f"base: {trouble} again"
    assert [seen["headers"]["x-stainless-retry-count"] for seen in server.seen()] == ["0", "1", "2"][
        : int(trouble[-1]) + 1
    ]


def test_a_server_is_left_alone_for_as_long_as_it_asks(server: OpenAIServer) -> None:
    [answer] = ask(server, "!later 0.8")  # the first pause would be half a second at most by itself
    assert answer.text == "base: !later 0.8"
    first, second = server.seen()
    assert second["at"] - first["at"] >= 0.8


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("!status 400", "engine_refused"),
        ("!status 422", "engine_refused"),
        ("!page 413", "context_too_long"),
        ("!long", "context_too_long"),
        ("!filtered", "content_filter"),
        ("!status 403", "engine_unavailable"),
        ("!broken 9", "engine_unavailable"),
        ("!page 200", "engine_unavailable"),
        ('!send {"choices": [', "engine_unavailable"),
        ('!send {"choices": []}', "engine_unavailable"),
        ('!send {"choices": [{"message": {"content": [7]}}]}', "engine_unavailable"),
    ],
)
def test_a_query_that_fails_harms_no_neighbour(server: OpenAIServer, bad: str, code: str) -> None:
    first, failed, last = ask(server, "why?", bad, "how?", retries=1)
    assert [first.text, last.text] == ["base: why?", "base: how?"]
    assert error(failed).code == code
    assert bad not in error(failed).message
    assert server.url in error(failed).message


def test_a_reply_with_little_in_it_is_an_answer(server: OpenAIServer) -> None:
    [answer] = ask(server, '!send {"choices": [{"message": {"content": " yes "}, "finish_reason": "eos_token"}]}')
    assert answer == EngineAnswer("yes", True, UNKNOWN_CONFIDENCE, [])


@pytest.mark.parametrize("slow", ["!delay 30", "!trickle"])
def test_a_reply_that_takes_too_long_is_given_up(server: OpenAIServer, slow: str) -> None:
    quick, late = ask(server, "why?", slow, timeout_seconds=0.6, retries=0)
    assert quick.text == "base: why?"
    assert "took longer than 0.6 seconds" in error(late).message


def test_as_many_requests_are_under_way_as_allowed_and_no_more() -> None:
    with openai_server("base") as own:
        answers = ask(own, *(f"!meet 3 {n}" for n in range(9)), concurrency=3)
        assert all(answer.answered for answer in answers)
        assert max(seen["under_way"] for seen in own.seen()) == 3


def test_every_attempt_counts_against_the_rate(server: OpenAIServer) -> None:
    limiter = shared_limiter(server.url, 60_000)
    before = limiter.granted
    ask(server, "why?", "!busy 2 for the rate", requests_per_minute=60_000)
    assert limiter.granted - before == len(server.seen()) == 4


def test_a_server_that_is_away_fails_the_batch_after_a_few_queries() -> None:
    with openai_server("base") as gone:
        pass
    with pytest.raises(EngineUnavailable, match=r"loans: http://127\.0\.0\.1:\d+/v1 cannot be reached: ConnectError"):
        ask(gone, *"abcdefgh", retries=0)


def test_a_server_that_only_fails_is_soon_left_alone(server: OpenAIServer) -> None:
    with pytest.raises(EngineUnavailable, match="status 500: Come again"):
        ask(server, *(f"!broken 9 {n}" for n in range(20)), retries=0, concurrency=1)
    assert len(server.seen()) == PATIENCE


def test_what_was_answered_before_the_server_failed_is_kept(server: OpenAIServer) -> None:
    texts = ["why?", *(f"!status 503 {n}" for n in range(9)), "how?"]
    answers = ask(server, *texts, retries=0, concurrency=1)
    assert answers[0].text == "base: why?"
    assert {error(answer).code for answer in answers[1:]} == {"engine_unavailable"}
    assert len(server.seen()) == 1 + PATIENCE


def test_failures_with_answers_between_them_do_not_end_a_batch(server: OpenAIServer) -> None:
    texts = [text for n in range(PATIENCE + 1) for text in (f"!status 503 {n}", f"why {n}?")]
    answers = ask(server, *texts, retries=0, concurrency=1)
    assert [answer.answered for answer in answers] == [False, True] * (PATIENCE + 1)


def test_a_batch_of_refused_queries_is_not_the_servers_fault(server: OpenAIServer) -> None:
    answers = ask(server, "!long", "!filtered")
    assert [error(answer).code for answer in answers] == ["context_too_long", "content_filter"]


def test_a_model_the_server_does_not_know_is_asked_for_once(server: OpenAIServer) -> None:
    with pytest.raises(EngineUnavailable, match="serves no model 'gone'"):
        ask(server, *"abcdefgh", card={"model": "gone"}, concurrency=1)
    assert len(server.seen()) == 1


@pytest.mark.parametrize(
    ("authorization", "user", "key"), [("Bearer sk-right", "", "sk-right\n"), ("Basic bmU6cGFzcw==", "ne:pass@", None)]
)
def test_the_key_opens_the_server(authorization: str, user: str, key: str | None) -> None:
    with openai_server("base", key=authorization) as locked:
        url = locked.url.replace("127", f"{user}127")
        assert ask(locked, "why?", base_url=url, api_key=key)[0].text == "base: why?"
        with pytest.raises(EngineUnavailable, match="does not accept the key"):
            ask(locked, *"abc", api_key=None)


def test_nothing_secret_is_shown(server: OpenAIServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = server.url.replace("127", "hidden-name:hidden-word@127")
    secrets: list[dict[str, Any]] = [{"api_key": "sk-hidden"}, {"base_url": url}]
    for secret in secrets:
        spec = RemoteSpec(**{"base_url": server.url} | secret)
        assert "hidden" not in repr(EngineSpec(remote=spec))
        good, refused = ask(server, "why?", "!status 400 hidden-question", **secret)
        assert good.answered
        assert "hidden" not in error(refused).message
        assert "said" in error(refused).message
        with pytest.raises(EngineUnavailable) as caught:
            ask(server, "!status 403 hidden-question", **secret)
        assert "hidden" not in str(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert caplog.messages
    assert "hidden" not in caplog.text


def test_nothing_is_taken_from_the_environment(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "foreign")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: foreign\nX-Other: foreign")
    monkeypatch.setenv("HTTP_PROXY", "http://foreign:1")
    assert ask(server, "why?")[0].answered
    [seen] = server.seen()
    assert "authorization" not in seen["headers"]
    assert "foreign" not in str(seen)


def test_batches_may_be_answered_in_several_threads(server: OpenAIServer) -> None:
    engine = engine_on(server)

    async def both() -> list[list[EngineAnswer]]:
        return await asyncio.gather(*(asyncio.to_thread(engine.answer, batch(f"!meet 2 {name}")) for name in "ab"))

    assert [[answer.text] for [answer] in asyncio.run(both())] == [["base: !meet 2 a"], ["base: !meet 2 b"]]
