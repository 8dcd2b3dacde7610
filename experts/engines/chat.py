"""One chat completion from a server that speaks OpenAI's protocol; the library does the retries.

https://platform.openai.com/docs/api-reference/chat
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, Omit, omit
from pydantic import BaseModel, Field, ValidationError

from experts.engines.address import read_address
from experts.engines.base import RemoteSpec, Usage
from experts.engines.rate_limit import RateLimiter, shared_limiter
from experts.engines.requests import Wish
from experts.errors import EngineUnavailable
from experts.language.prompting import Turn, as_messages

# What a server says of one query: it would say so again, and nothing of any other.
_OF_THE_QUERY = (400, 413, 422)
_MAX_QUOTED, _SHORTEST_QUOTED = 300, 4


class Refused(Exception):
    """The server answers, but not this query. ``code`` is stable."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Hopeless(EngineUnavailable):
    """Every other request for this model would fail in the same way."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said. ``confidence`` is the mean of the probabilities it gave its tokens, None if not told.

    ``declined`` says that the text is the model's reason for not answering.
    """

    text: str
    finish_reason: str
    usage: Usage | None
    confidence: float | None
    declined: bool


class _Transport(httpx2.AsyncHTTPTransport):
    """Every attempt waits its turn at the limiter, and ends within ``seconds``, its last byte included.

    The library's own timeout counts from byte to byte, so a server could hold on for ever with a byte now and then.
    """

    def __init__(self, verify: Any, connections: int, seconds: float, limiter: RateLimiter | None) -> None:
        super().__init__(verify=verify, trust_env=False, limits=httpx2.Limits(max_connections=connections))
        self._seconds, self._limiter = seconds, limiter

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._limiter is not None:
            await asyncio.sleep(self._limiter.reserve())
        try:
            async with asyncio.timeout(self._seconds):
                response = await super().handle_async_request(request)
                await response.aread()
        except TimeoutError:
            raise httpx2.ReadTimeout("the reply was not there in time", request=request) from None
        return response


class Session:
    """A server while it is being asked; made by ``ChatServer.open``."""

    def __init__(self, server: "ChatServer", client: AsyncOpenAI) -> None:
        self._server, self._client = server, client

    async def ask(self, model: str, turns: Sequence[Turn], wish: Wish) -> Reply:
        """Raises Refused for this query alone, and EngineUnavailable when the retries are used up."""
        try:
            reply = await self._create(model, turns, wish)
        except APIStatusError as error:
            failure = self._server.explain_status(error, model, turns)
        except APIConnectionError as error:
            failure = self._server.explain_connection(error)
        else:
            return self._server.read(reply)
        raise failure  # out here, so that no trace leads to the request and its headers

    async def _create(self, model: str, turns: Sequence[Turn], wish: Wish) -> bytes:
        sampled = wish.sampling.temperature > 0
        reply = await self._client.chat.completions.with_raw_response.create(
            model=model,
            messages=_sendable(turns),
            max_tokens=wish.max_tokens,
            temperature=wish.sampling.temperature,
            top_p=wish.sampling.top_p if sampled else omit,
            seed=wish.sampling.seed if sampled else omit,
            stop=list(wish.stop) or omit,
            logprobs=self._server.spec.logprobs or omit,
            extra_headers={"Authorization": self._server.address.authorization or omit},
        )
        return reply.http_response.content


class _Client(AsyncOpenAI):
    """Sends the headers it is told to; the library adds those that variables of the environment name."""

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        return {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "adaptive-moe"}


class ChatServer:
    """The server ``spec`` names. Raises ModelUnusable if the address or the key cannot be used; nothing is sent yet."""

    def __init__(self, spec: RemoteSpec) -> None:
        self.spec, self.address = spec, read_address(spec.base_url, spec.api_key)
        per_minute = spec.requests_per_minute
        self.limiter = shared_limiter(self.address.url, per_minute) if per_minute else None
        # Made once: reading the certificates takes longer than opening a connection.
        secure = self.address.url.startswith("https:")
        self._verify = httpx2.create_ssl_context(trust_env=False) if secure else False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """Connections that belong to the running event loop. Nothing is taken from the environment."""
        spec = self.spec
        transport = _Transport(self._verify, spec.concurrency, spec.timeout_seconds, self.limiter)
        async with _Client(
            base_url=self.address.url,
            # Not sent: each request has its own header. A None would be looked up in the environment.
            api_key="unused",
            timeout=spec.timeout_seconds,
            max_retries=spec.retries,
            http_client=httpx2.AsyncClient(transport=transport, trust_env=False),
        ) as client:
            yield Session(self, client)

    def explain_status(self, error: APIStatusError, model: str, turns: Sequence[Turn]) -> Exception:
        """A reply with an error status as the query's fault or the server's."""
        status, said = error.status_code, self._quote(_message(error.body), turns)
        if status in _OF_THE_QUERY:
            return Refused(_refusal_code(error, said), f"{self.address.url} refused the query ({status}){said}")
        if status == 401:
            return Hopeless(f"{self.address.url} does not accept the key")
        if status == 404:
            return Hopeless(f"{self.address.url} serves no model {model!r}, or its address should end otherwise (/v1?)")
        return EngineUnavailable(f"{self.address.url} answered with status {status}{said}")

    def explain_connection(self, error: APIConnectionError) -> EngineUnavailable:
        """A connection that failed, in words."""
        if isinstance(error, APITimeoutError):
            return EngineUnavailable(f"{self.address.url} took longer than {self.spec.timeout_seconds:g} seconds")
        kind = type(error.__cause__).__name__
        return EngineUnavailable(f"{self.address.url} cannot be reached: {kind}{self._quote(str(error.__cause__))}")

    def read(self, content: bytes) -> Reply:
        """The reply in a body. Raises Refused where a filter stopped it, EngineUnavailable if it is none."""
        try:
            found = _Completion.model_validate_json(content)
        except ValidationError:
            raise EngineUnavailable(f"what {self.address.url} sent is no chat completion") from None
        choice = found.choices[0]
        if choice.finish_reason == "content_filter":
            raise Refused("content_filter", f"the content filter of {self.address.url} stopped the answer")
        usage = Usage(found.usage.prompt_tokens, found.usage.completion_tokens) if found.usage else None
        finish_reason = "length" if choice.finish_reason in ("length", "max_tokens") else "stop"
        text, refusal = (choice.message.content or "").strip(), (choice.message.refusal or "").strip()
        return Reply(text or refusal, finish_reason, usage, _confidence(choice), not text and bool(refusal))

    def _quote(self, said: str, turns: Sequence[Turn] = ()) -> str:
        """What somebody else said, to be added to our own words: no secret, no turn of the query, not endless."""
        for secret in self.address.secrets:
            said = said.replace(secret, "***")
        for text in sorted({turn.content for turn in turns}, key=len, reverse=True):
            for form in (text, repr(text)[1:-1], json.dumps(text)[1:-1]):
                said = said.replace(form, "…") if len(form) >= _SHORTEST_QUOTED else said
        said = " ".join(said.split())[:_MAX_QUOTED]
        return f": {said}" if said else ""


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Token(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    """The parts of a chat completion that are used. Servers differ in the rest, and in their reasons to stop."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


def _sendable(turns: Sequence[Turn]) -> Any:
    """Messages without lone surrogates, which cannot be sent."""
    return as_messages([Turn(turn.role, turn.content.encode("utf-8", "replace").decode("utf-8")) for turn in turns])


def _confidence(choice: _Choice) -> float | None:
    tokens = choice.logprobs.content if choice.logprobs is not None else None
    if not tokens:
        return None
    return sum(math.exp(min(token.logprob, 0.0)) for token in tokens) / len(tokens)


def _message(body: object) -> str:
    """What the body of an error says, in the forms that servers have for it."""
    found = body.get("message", "") if isinstance(body, dict) else body
    return found if isinstance(found, str) else ""


def _refusal_code(error: APIStatusError, said: str) -> str:
    code = error.code or ""
    if error.status_code == 413 or code == "context_length_exceeded" or "context length" in said.lower():
        return "context_too_long"
    return "content_filter" if code.startswith("content_") else "engine_refused"
