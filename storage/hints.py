"""Hints: which messages to send after a commit. They name rows, and may be lost or doubled without harm."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlanHint:
    run_id: int


@dataclass(frozen=True, slots=True)
class RouteHint:
    shard_id: int
    interactive: bool


@dataclass(frozen=True, slots=True)
class AnswerHint:
    chunk_id: int
    expert: str
    interactive: bool


@dataclass(frozen=True, slots=True)
class ChordHint:
    """All chunks of a shard that was just routed, and the shard to combine when the last of them is answered."""

    shard_id: int
    chunks: tuple[AnswerHint, ...]
    interactive: bool


@dataclass(frozen=True, slots=True)
class CombineHint:
    shard_id: int
    interactive: bool


@dataclass(frozen=True, slots=True)
class FinalizeHint:
    """The run is due for closing its open lines, or for writing its files."""

    run_id: int


@dataclass(frozen=True, slots=True)
class JobHint:
    job_id: int


Hint = PlanHint | RouteHint | AnswerHint | ChordHint | CombineHint | FinalizeHint | JobHint
