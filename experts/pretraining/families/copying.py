"""Copying random strings, and looking one up by its key: what everything else in a small model is built on."""

import json
from random import Random

from experts.pretraining.items import Item
from experts.pretraining.words import Kind, anything, code, distinct, identifier, invented, name, number, short

_COPY = (
    "Repeat exactly: {}",
    "Copy this text: {}",
    'Say "{}"',
    "Write {} again.",
    "Echo: {}",
    "Return the following unchanged:\n{}",
    "{}\nRepeat the line above.",
    "Please type this: {}",
    "Copy: {}",
    "Please repeat {} for me.",
)
_KEYS: tuple[Kind, ...] = (invented, name, short, code, identifier)
_VALUES: tuple[Kind, ...] = (invented, name, short, code, number, anything)
# Mostly short tables: what is learned on them carries over to longer ones, and many more fit into the same time.
_PAIR_COUNTS = (2, 2, 2, 3, 3, 4, 5, 7)
_QUESTIONS_PER_TABLE = 4
_PAIRS = ("{}: {}", "{} = {}", "{} -> {}", "{} is {}", "{} {}", "{} has {}")
_ASK_VALUE = (
    "What is {}?",
    "Give the value of {}.",
    "{}?",
    "Look up {}.",
    "Which value belongs to {}?",
    "What stands next to {}?",
)


def copying(rng: Random) -> Item:
    """A text of one to five strings that is to be repeated letter by letter."""
    text = " ".join(anything(rng) for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 5))))
    return Item(rng.choice(_COPY).format(text), text)


def look_up(rng: Random) -> Item:
    """A table of two to seven pairs of which one is asked for by its key, always after the table.

    A question before the table is another skill, which a model of this size does not learn in this time: it reads the
    table once, and would have to compare every key with the question as it goes.
    """
    count = rng.choice(_PAIR_COUNTS)
    keys, values = distinct(rng, rng.choice(_KEYS), count), distinct(rng, rng.choice(_VALUES), count)
    order = rng.sample(range(count), min(count, _QUESTIONS_PER_TABLE))
    first, *others = (_question(rng, keys[asked], values[asked]) for asked in order)
    table = _table(rng, keys, values)
    layout = rng.choice(("{table}\n{question}", "{table}\n\n{question}", "Table:\n{table}\n\n{question}"))
    return Item(layout.format(table=table, question=first.prompt), first.answer, tuple(others))


def _table(rng: Random, keys: list[str], values: list[str]) -> str:
    if rng.random() < 0.15:
        return json.dumps(dict(zip(keys, values, strict=True)), ensure_ascii=False)
    pair = rng.choice(_PAIRS)
    return rng.choice(("\n", ", ", "; ")).join(pair.format(*both) for both in zip(keys, values, strict=True))


def _question(rng: Random, key: str, value: str) -> Item:
    return Item(rng.choice(_ASK_VALUE).format(key), value)
