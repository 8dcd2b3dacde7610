"""A test collection: passages of several domains, and questions of which it is known what answers them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of the library of its ``domain``; the title may be empty."""

    domain: str
    title: str
    text: str

    @property
    def full_text(self) -> str:
        """As a knowledge base embeds it."""
        return f"{self.title}. {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the places of the passages that answer it; ``gap`` says why there are none, where it is known.

    The domain of a question without an answer may be one that has no library.
    """

    domain: str
    text: str
    gold: frozenset[int]
    gap: str | None
    split: str

    @property
    def answerable(self) -> bool:
        return bool(self.gold)


@dataclass(frozen=True, slots=True)
class Collection:
    """At least two domains with passages, and at least one question that a passage answers."""

    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """Those with passages, sorted."""
        return tuple(sorted({passage.domain for passage in self.passages}))
