"""Doubles of the contracts that have none in ``tests.doubles``. The suites of this folder hold them to the contract."""

from collections.abc import Sequence

from experts.combining import Combined, ExpertAnswer
from experts.encoders.base import Embedded, EncoderSpec, Vectors, of_vectors
from experts.encoders.hashing import HashingEncoder


class RecordingEncoder:
    """The hashing encoder, under any name; it keeps the texts of every call."""

    dimension = HashingEncoder.dimension

    def __init__(self, name: str = "recording") -> None:
        self.name = name
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        return HashingEncoder().encode(texts)

    def embed(self, texts: Sequence[str]) -> Embedded:
        return of_vectors(self.encode(texts))


class AlphabeticalCombiner:
    """Takes the first expert by name, of those that answer where any does."""

    def combine(self, answers: Sequence[ExpertAnswer]) -> Combined:
        first, *others = sorted(answers, key=lambda answer: (not answer.answered, answer.expert))
        return Combined(first.text, first.expert, first.answered, first.confidence, others)


def recording(spec: EncoderSpec) -> RecordingEncoder:
    return RecordingEncoder(spec.name)


ENCODERS = {"recording": "tests.contracts.doubles:recording"}
COMBINERS = {"alphabetical": "tests.contracts.doubles:AlphabeticalCombiner"}
