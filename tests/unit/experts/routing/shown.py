"""Small exemplars for the tests of routers' parts, and queries about them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experts.encoders.base import Embedded, of_vectors
from experts.routing.base import Examples, ExpertProfile, Floats, World
from experts.routing.known import NEIGHBOURS, Known, Queries, gather, standardised
from experts.routing.search import Near


def floats(rows: Any) -> Floats:
    return np.array(rows, np.float32)


def unit(rows: Any) -> Floats:
    """The rows at length 1."""
    array = np.array(rows, np.float64)
    scaled: Floats = (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def directions(n: int, dimension: int, *, seed: int = 0) -> Floats:
    """``n`` random directions."""
    return unit(np.random.default_rng(seed).standard_normal((n, dimension)))


def examples_of(embedded: Embedded, owner: Sequence[int], *, name: str = "text") -> Examples:
    """Examples called "text 0", "text 1" and so on."""
    return Examples([f"{name} {n}" for n in range(len(owner))], np.array(owner, np.int64), embedded)


def known_of(
    embedded: Embedded | Floats,
    owner: Sequence[int],
    *,
    names: Sequence[str] = ("bank", "code", "earth"),
    keywords: Mapping[str, Sequence[str]] | None = None,
    world: World | None = None,
) -> Known:
    """What a router of these experts is shown."""
    whole = embedded if isinstance(embedded, Embedded) else of_vectors(embedded)
    profiles = [ExpertProfile(name, (keywords or {}).get(name, ())) for name in names]
    return gather(profiles, examples_of(whole, owner), world)


def queries_of(known: Known, embedded: Embedded | Floats, *, familiar: float | Sequence[float] = 1.0) -> Queries:
    """Queries as a router hands them to its kind."""
    whole = embedded if isinstance(embedded, Embedded) else of_vectors(embedded)
    near = known.index.search(whole.vectors, min(NEIGHBOURS, len(known.vectors)))
    texts = [f"query {n}" for n in range(len(whole))]
    shown = np.full(len(whole), familiar, np.float32)
    return Queries(texts, whole.vectors, standardised(whole.layers, known.centre), near, shown, shown)


def words_of(texts: Sequence[str]) -> Queries:
    """Queries as a router hands them to a kind that reads words only."""
    empty = np.zeros((len(texts), 0), np.float32)
    nothing = Near(empty, np.zeros((len(texts), 0), np.int64))
    return Queries(texts, empty, empty, nothing, np.ones(len(texts), np.float32), np.ones(len(texts), np.float32))
