"""Queries drawn from clouds around a few experts: what is measured on some of them holds of others of the same draw."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from experts.encoders.base import Embedded, joined
from experts.routing.base import OUTSIDE, Examples, ExpertProfile, Floats, Places, TrainingSet, World

NAMES = ("north", "east", "south", "west")
ENCODER = "clouds"
_DIMENSION = 16
_WIDTH = 12
_SPREAD = 0.5
_BEYOND = 6  # the axes of what no expert covers
_MANNER = 8


def _unit(rows: NDArray[np.float64]) -> Floats:
    unit: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _around(axis: Places, dimension: int, spread: float, random: np.random.Generator) -> Floats:
    """Rows of length 1 about these axes."""
    return _unit(np.eye(dimension)[axis] + spread * random.standard_normal((len(axis), dimension)))


def _embedded(axis: Places, manner: int, spread: float, random: np.random.Generator) -> Embedded:
    """Vectors of 16 numbers about the axis of their meaning; a layer of manner, and one of meaning, of 12 each."""
    manners = _around(np.full(len(axis), _MANNER + manner), _WIDTH, 0.1, random)
    meanings = _around(axis, _WIDTH, spread, random)
    return Embedded(_around(axis, _DIMENSION, spread, random), np.stack([manners, meanings], axis=1))


def draw(n: int, *, seed: int, manner: int = 0, spread: float = _SPREAD) -> Examples:
    """``n`` queries of each expert; three in four hold a keyword, and a few of those that of another expert."""
    random = np.random.default_rng(seed)
    owner = np.tile(np.arange(len(NAMES)), n)
    said = np.where(random.random(len(owner)) < 0.15, random.integers(0, len(NAMES), len(owner)), owner)
    silent = random.random(len(owner)) < 0.25
    words = ["nowhere" if none else NAMES[place] for none, place in zip(silent, said.tolist(), strict=True)]
    texts = [f"{word} {number} of {seed}" for number, word in enumerate(words)]
    return Examples(texts, owner, _embedded(owner, manner, spread, random))


def strangers(n: int, *, seed: int) -> Examples:
    """``n`` queries of each expert, asked in another manner and less to the point."""
    return draw(n, seed=seed, manner=1, spread=0.8)


def beyond(n: int, *, seed: int) -> Examples:
    """``n`` queries that no expert covers, on two subjects of their own."""
    random = np.random.default_rng(seed)
    axis = _BEYOND + random.integers(0, 2, n)
    texts = [f"elsewhere {number} of {seed}" for number in range(n)]
    return Examples(texts, np.full(n, OUTSIDE), _embedded(axis, 0, 0.3, random))


def noise(n: int, *, seed: int) -> Examples:
    """``n`` queries of each expert, which nothing tells apart."""
    random = np.random.default_rng(seed)
    owner = np.tile(np.arange(len(NAMES)), n)
    texts = [str(number) for number in range(len(owner))]
    return Examples(texts, owner, _embedded(random.integers(0, _WIDTH, len(owner)), 0, 1.0, random))


def world() -> World:
    """Six queries of each of ten topics; the first four are the experts' own, the others lie away from all of them."""
    topic = np.repeat(np.arange(10), 6)
    texts = [f"query {number} of the world" for number in range(len(topic))]
    embedded = _embedded(topic, 0, 0.1, np.random.default_rng(0))
    vectors = embedded.vectors - 0.5 * (topic >= len(NAMES))[:, None] * np.eye(_DIMENSION)[: len(NAMES)].sum(axis=0)
    return World(texts, topic, replace(embedded, vectors=_unit(vectors)))


def both(one: Examples, other: Examples) -> Examples:
    """All of them."""
    assert one.embedded is not None
    assert other.embedded is not None
    owner = np.concatenate([one.owner, other.owner])
    return Examples([*one.texts, *other.texts], owner, joined(one.embedded, other.embedded))


def training_set(
    examples: Examples,
    *,
    held_out: Examples | None = None,
    around: World | None = None,
    names: Sequence[str] = NAMES,
    seed: int = 0,
) -> TrainingSet:
    """The experts, each with its name as its one keyword, and these queries."""
    profiles = [ExpertProfile(name, [name]) for name in names]
    return TrainingSet(profiles, examples, ENCODER, world=around, held_out=held_out, seed=seed)
