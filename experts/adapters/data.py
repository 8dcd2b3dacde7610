"""Training data: what people upload, as examples; every row that is no example is reported with its line."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experts.adapters.lines import Line, csv_rows, json_rows, lines_of
from experts.adapters.rows import BadRow, example_parts
from experts.errors import CannotTrain
from experts.language.prompting import Turn

AUTO, CSV = "auto", "csv"
# What a row of each format holds; see experts.adapters.rows.
FORMATS = (AUTO, "chat", "alpaca", "completion", "qa", CSV)
MINIMUM = 20


@dataclass(frozen=True, slots=True)
class Example:
    """What is asked, and the answer to learn; ``line`` is where the row began in its file, from 1."""

    prompt: tuple[Turn, ...]
    answer: str
    line: int


@dataclass(frozen=True, slots=True)
class Read:
    """Every row of a file: the examples, the bad rows with their reasons, and how many rows repeated an earlier one."""

    examples: list[Example] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    duplicates: int = 0

    @property
    def rows(self) -> int:
        """All rows but empty lines."""
        return len(self.examples) + len(self.bad) + self.duplicates


def read_examples(source: Iterable[bytes] | Path, format: str = AUTO) -> Read:
    """The examples of a file of JSON lines or CSV, given as a path or as its lines.

    With ``auto`` the first row decides between JSON lines and CSV, and each JSON row shows its own format by its keys.
    One bad row harms no other. Raises CannotTrain for a format that does not exist and a file that cannot be opened.
    """
    if format not in FORMATS:
        raise CannotTrain(f"unknown format {format!r} of training data; there are: {', '.join(FORMATS)}")
    examples: dict[tuple[tuple[Turn, ...], str], Example] = {}
    bad: list[BadRow] = []
    duplicates = 0
    for number, row in _rows(lines_of(source), format):
        found = example_parts(row, format) if isinstance(row, dict) else row
        if isinstance(found, str):
            bad.append(BadRow(number, found))
        elif found in examples:
            duplicates += 1
        else:
            examples[found] = Example(*found, number)
    return Read(list(examples.values()), bad, duplicates)


def _rows(lines: Iterable[Line], format: str) -> Iterable[tuple[int, dict[str, object] | str]]:
    """Each row with the number of its line: its values, or why it has none."""
    waiting = iter(lines)
    first = next((line for line in waiting if line.data.strip()), None)
    if first is None:
        return
    every = (line for part in ([first], waiting) for line in part)
    plain_json = first.data.lstrip()[:1] in (b"{", b"[")
    yield from csv_rows(every) if format == CSV or (format == AUTO and not plain_json) else json_rows(every)


def check_enough(examples: Sequence[Example], minimum: int = MINIMUM) -> None:
    """Raise CannotTrain unless there are at least ``minimum`` examples."""
    if len(examples) < minimum:
        raise CannotTrain(f"{len(examples)} usable examples are too few to train on; at least {minimum} are needed")


def split(examples: Sequence[Example], share: float = 0.1, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and about ``share`` of them to validate with, at least one of each.

    The hash of a prompt decides, without regard to case and spacing: the same prompt is never on both sides, and more
    examples later move hardly any of those that were there. Raises CannotTrain if all prompts are the same.
    """
    if not 0 < share < 1:
        raise CannotTrain(f"the share of examples to validate with is {share}; it lies between 0 and 1")
    keys = [hashlib.sha256(f"{seed}\0{same_prompt(example)}".encode()).digest() for example in examples]
    ordered = sorted(set(keys))
    if len(ordered) < 2:
        raise CannotTrain("examples with at least two different prompts are needed to train and to validate")
    held = set(ordered[: min(max(1, round(share * len(ordered))), len(ordered) - 1)])
    train = [example for example, key in zip(examples, keys, strict=True) if key not in held]
    return train, [example for example, key in zip(examples, keys, strict=True) if key in held]


def same_prompt(example: Example) -> str:
    """What prompts have in common that ask the same: roles and words, without regard to case and spacing."""
    return "\0".join(f"{turn.role}\0{' '.join(turn.content.casefold().split())}" for turn in example.prompt)
