"""A closed world: items that an adapter is trained on, and others of the same world that it is tested on."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from experts.pretraining.items import Item

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class World:
    """Three lists of items; no prompt is in two of them."""

    train: list[Item]
    validation: list[Item]
    test: list[Item]


# Draws a world from a random source.
Maker = Callable[[Random], World]


def write_world(folder: Path, world: World) -> None:
    """Write ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl``, rows of ``instruction`` and ``output``."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        rows = [{"instruction": item.prompt, "output": item.answer} for item in getattr(world, split)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def drawn(rng: Random, draw: Callable[[Random], Item], sizes: tuple[int, int, int]) -> World:
    """A world of items that ``draw`` gives, all of them different; ``sizes`` are those of the three splits."""
    found: dict[str, Item] = {}
    while len(found) < sum(sizes):
        item = draw(rng)
        found.setdefault(item.prompt, item)
    items, train, validation = list(found.values()), sizes[0], sizes[0] + sizes[1]
    return World(items[:train], items[train:validation], items[validation:])
