"""What an engine is: it answers queries as one expert. And which engines there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from experts.encoders.base import Vectors
from experts.kinds import ENGINES, find
from experts.knowledge import KnowledgeBase


@dataclass(frozen=True, slots=True)
class GenerativeSpec:
    """The base model of engines that generate, and how they run it.

    ``base`` is a folder or a hub id, held as ``experts.language.base.BaseSpec`` says. ``max_tokens`` are made where a
    request does not say. ``adapters`` lie in memory at once, of at most ``adapter_bytes``; at most ``rows`` queries run
    at once, with ``tokens`` of prompts and answers together, ``prompt_tokens`` of them joining in one step.
    """

    base: str
    dtype: str = "auto"
    device: str = "cpu"
    load_in_8bit: bool = False
    threads: int | None = None
    max_tokens: int = 256
    adapters: int = 5
    adapter_bytes: int | None = None
    rows: int = 64
    tokens: int = 16384
    prompt_tokens: int = 512


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """A server that speaks OpenAI's protocol, and how it is asked.

    ``base_url`` ends before ``/chat/completions``, as in ``http://127.0.0.1:8000/v1``; a name and password in it are
    sent as such. ``model`` is asked where an expert's card names none. An attempt may take ``timeout_seconds``, and a
    request has ``retries`` more of them. ``concurrency`` requests of a batch are under way at once; all batches of a
    process together start at most ``requests_per_minute``, and None sets no limit. ``max_tokens`` are made where a
    request does not say. ``logprobs`` asks for the probabilities that an answer's confidence is taken from.
    """

    base_url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    timeout_seconds: float = 60.0
    retries: int = 3
    concurrency: int = 8
    requests_per_minute: int | None = None
    max_tokens: int = 256
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How engines answer; see the settings of the same names.

    ``generative`` is for engines that have a base model, ``remote`` for those that ask a server.
    """

    passages: int = 4
    answer_threshold: float = 0.33
    generative: GenerativeSpec | None = None
    remote: RemoteSpec | None = None


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """Where an expert's adapter lies, the sha256 of its weights, and that of the base it was trained on."""

    folder: str
    sha256: str
    base_sha256: str


@dataclass(frozen=True, slots=True)
class EngineQuery:
    """One query: its text and what its request held besides (system prompt, earlier turns, parameters)."""

    text: str
    request: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class EngineBatch:
    """Queries for one expert. ``vectors`` float32[n, d] are their embeddings, None where no encoder is in use.

    ``adapter`` is what makes a base model this expert; None for experts that have none.
    """

    expert: str
    card: Mapping[str, Any]
    queries: Sequence[EngineQuery]
    vectors: Vectors | None
    knowledge: KnowledgeBase | None
    adapter: AdapterReference | None = None


@dataclass(frozen=True, slots=True)
class CitedPassage:
    """A passage an answer rests on: characters ``start`` to ``end`` of the text of ``document``."""

    document: str
    title: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost, in tokens of the base model."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class AnswerError:
    """Why one query of a batch has no answer. ``code`` is stable; ``message`` quotes no query."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What the expert says. ``answered`` is False where it honestly has no answer; ``confidence`` is a probability.

    ``finish_reason`` is ``stop`` where the answer is whole, ``length`` where it was cut off. ``usage`` is None for
    engines that count no tokens. With an ``error`` there is no answer, and ``text`` is empty.
    """

    text: str
    answered: bool
    confidence: float
    passages: Sequence[CitedPassage] = field(default=())
    usage: Usage | None = None
    finish_reason: str = "stop"
    error: AnswerError | None = None


@runtime_checkable
class HoldsAdapters(Protocol):
    """An engine that keeps adapters in memory."""

    def residency(self) -> dict[str, float]:
        """Loads, hits, evictions, seconds and bytes so far, and swaps that reordering avoided."""
        ...


class Engine(Protocol):
    """Answers a batch for one expert: one method, one answer per query, in order."""

    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        """Raises nothing for one bad query that it can answer around; what it raises fails the whole batch."""
        ...


def make_engine(name: str, spec: EngineSpec) -> Engine:
    """The engine called ``name``. Raises UnknownKind."""
    engine: Engine = find("engine", ENGINES, name)(spec)
    return engine
