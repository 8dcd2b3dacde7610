"""Answers by any server that speaks OpenAI's protocol (vLLM, LoRAX, Ollama, …); experts are names of models there.

Where the expert's card says ``retrieval: true`` and it has a knowledge base, the passages nearest to the query stand in
its prompt and are cited.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from experts.engines.base import AnswerError, EngineAnswer, EngineBatch, EngineSpec
from experts.engines.requests import Wish, read_wish
from experts.engines.retrieval import Found, retrieve
from experts.errors import EngineUnavailable, ModelUnusable
from experts.language.prompting import arrange

try:
    from experts.engines.chat import ChatServer, Hopeless, Refused, Reply, Session
except ModuleNotFoundError as missing:
    raise ModelUnusable(f"the openai engine needs adaptive-moe[openai]: {missing}") from None

# The confidence of an answer whose model does not say how sure it is: neither for it nor against it.
UNKNOWN_CONFIDENCE = 0.5
# So many queries in a row that fail by the server's fault, each after all its retries, and the rest are not sent.
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query as the server is asked it."""

    wish: Wish
    found: Sequence[Found]


class _Patience:
    """How long a batch goes on with a server that fails. ``lost`` is why it does not, once it does not."""

    def __init__(self) -> None:
        self.lost: EngineUnavailable | None = None
        self._in_a_row = 0

    def answered(self) -> None:
        self._in_a_row = 0

    def failed(self, error: EngineUnavailable) -> None:
        self._in_a_row += 1
        if isinstance(error, Hopeless) or self._in_a_row >= PATIENCE:
            self.lost = self.lost or error


class RemoteEngine:
    """Asks ``server``. An expert's answers come from the model its card names, else from the settings' own."""

    def __init__(self, server: ChatServer, spec: EngineSpec) -> None:
        self._server, self._passages = server, spec.passages

    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        """One answer per query; a query that has none holds its own error. Not to be called in an event loop.

        Raises EngineUnavailable if not one query got as far as an answer or a refusal; ModelUnusable if no model is
        named, or if the expert needs an adapter that the server was not told of.
        """
        model = self._model(batch)
        passages = retrieve(batch, self._passages)
        asked = [
            _Asked(read_wish(query, self._server.spec.max_tokens), found)
            for query, found in zip(batch.queries, passages, strict=True)
        ]
        results = asyncio.run(self._answer_all(model, asked)) if asked else []
        failures = [result for result in results if isinstance(result, EngineUnavailable)]
        if failures and len(failures) == len(results):
            raise EngineUnavailable(f"{batch.expert}: {failures[0]}")
        return [_unavailable(result) if isinstance(result, EngineUnavailable) else result for result in results]

    def _model(self, batch: EngineBatch) -> str:
        own = batch.card.get("model")
        if (batch.adapter is not None or batch.card.get("adapter")) and not own:
            raise ModelUnusable(
                f"{batch.expert} is an adapter; its card has to say under `model` what the server calls that adapter"
            )
        model = own or self._server.spec.model
        if not model:
            raise ModelUnusable(
                f"no model is named for {batch.expert}: its card needs `model`, or the settings a default"
            )
        return str(model)

    async def _answer_all(self, model: str, queries: Sequence[_Asked]) -> list[EngineAnswer | EngineUnavailable]:
        slots, patience = asyncio.Semaphore(self._server.spec.concurrency), _Patience()
        async with self._server.open() as session:

            async def answer(query: _Asked) -> EngineAnswer | EngineUnavailable:
                async with slots:
                    if patience.lost is not None:
                        return patience.lost
                    try:
                        found = await _answer(session, model, query)
                    except EngineUnavailable as error:
                        patience.failed(error)
                        return error
                    patience.answered()
                    return found

            return await asyncio.gather(*(answer(query) for query in queries))


async def _answer(session: Session, model: str, query: _Asked) -> EngineAnswer:
    """With its passages, or without them where they leave no room. Raises EngineUnavailable."""
    try:
        try:
            return await _ask(session, model, query)
        except Refused as refusal:
            if refusal.code != "context_too_long" or not query.found:
                raise
            return await _ask(session, model, _Asked(query.wish, ()))
    except Refused as refusal:
        return _failed(refusal.code, str(refusal))


async def _ask(session: Session, model: str, query: _Asked) -> EngineAnswer:
    turns = arrange(query.wish.turns, [found.text for found in query.found])
    reply = await session.ask(model, turns, query.wish)
    return _as_answer(reply, query.found)


def _as_answer(reply: Reply, found: Sequence[Found]) -> EngineAnswer:
    if not reply.text or reply.declined:
        text = reply.text or "The expert had nothing to say."
        return EngineAnswer(text, False, 0.0, (), reply.usage, reply.finish_reason)
    confidence = UNKNOWN_CONFIDENCE if reply.confidence is None else round(reply.confidence, 4)
    cited = [passage.cited for passage in found]
    return EngineAnswer(reply.text, True, confidence, cited, reply.usage, reply.finish_reason)


def _unavailable(error: EngineUnavailable) -> EngineAnswer:
    return _failed(EngineUnavailable.code, str(error))


def _failed(code: str, message: str) -> EngineAnswer:
    return EngineAnswer("", False, 0.0, error=AnswerError(code, message))


def make(spec: EngineSpec) -> RemoteEngine:
    """The engine on the server that ``spec.remote`` names. Raises ModelUnusable."""
    if spec.remote is None:
        raise ModelUnusable("the openai engine needs a server; the settings name none")
    return RemoteEngine(ChatServer(spec.remote), spec)
