"""What an engine is: it answers queries as one expert. And which engines there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from experts.encoders.base import Vectors
from experts.kinds import ENGINES, find
from experts.knowledge import KnowledgeBase


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How engines answer; see the settings of the same names."""

    passages: int = 4
    answer_threshold: float = 0.33


@dataclass(frozen=True, slots=True)
class EngineQuery:
    """One query: its text and what its request held besides (system prompt, earlier turns, parameters)."""

    text: str
    request: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class EngineBatch:
    """Queries for one expert. ``vectors`` float32[n, d] are their embeddings, None where no encoder is in use."""

    expert: str
    card: Mapping[str, Any]
    queries: Sequence[EngineQuery]
    vectors: Vectors | None
    knowledge: KnowledgeBase | None


@dataclass(frozen=True, slots=True)
class CitedPassage:
    """A passage an answer rests on: characters ``start`` to ``end`` of the text of ``document``."""

    document: str
    title: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What the expert says. ``answered`` is False where it honestly has no answer; ``confidence`` is a probability."""

    text: str
    answered: bool
    confidence: float
    passages: Sequence[CitedPassage] = field(default=())


class Engine(Protocol):
    """Answers a batch for one expert: one method, one answer per query, in order."""

    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        """Raises nothing for one bad query that it can answer around; what it raises fails the whole batch."""
        ...


def make_engine(name: str, spec: EngineSpec) -> Engine:
    """The engine called ``name``. Raises UnknownKind."""
    engine: Engine = find("engine", ENGINES, name)(spec)
    return engine
