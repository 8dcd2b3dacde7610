"""Federated search: the best passages of all experts' libraries, of which only a part is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from experts.encoders.base import Vectors
from experts.lexical import WordIndex

Places = NDArray[np.int64]

_BATCH = 1024
_CELLS_PER_ROOT = 2
_CELLS_OF_NEIGHBOURS = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """How much is read for a query, and what a passage's score is made of.

    ``read_if_sure`` and ``read_at_most`` are shares of all passages: what is read when the router gives everything to
    one expert, and what is never exceeded. ``least_read`` passages are read of a small collection even if it is sure,
    as far as ``read_at_most`` allows, and up to ``read_whole`` passages all are, since choosing would cost more than it
    saves. A library is cut into cells of ``passages_per_cell`` on average, a large one into 2√m.

    A cell's claim to be read is the cosine of its centroid plus ``share_weight`` × log of its expert's share, shares
    below ``least_share`` counting as that, so that no library is out of reach. The ``rescored`` passages of highest
    cosine are then ordered by cosine - ``hub_weight`` × mean cosine to their ``neighbours`` in their own library +
    ``word_weight`` × BM25. The second term takes back what a passage gains with every query by lying where passages
    are dense (hubs; cf. CSLS, Conneau et al., 2018).
    """

    read_if_sure: float = 0.25
    read_at_most: float = 0.4
    least_read: int = 512
    read_whole: int = 256
    passages_per_cell: int = 8
    share_weight: float = 0.05
    least_share: float = 0.01
    rescored: int = 50
    neighbours: int = 10
    hub_weight: float = 0.25
    word_weight: float = 0.004


DEFAULT_READING = Reading()


class Found(NamedTuple):
    """Passages for n queries, best first: ``scores`` float32[n, k], places of ``experts`` and of ``passages`` in their
    libraries, both int64[n, k], and ``reads`` int64[n].

    Where fewer were found the rest of a row is score -inf at places -1. A read is an inner product of vectors: with a
    passage, with a centroid, and one per expert for the shares.
    """

    scores: Vectors
    experts: Places
    passages: Places
    reads: Places


class FederatedSearch:
    """Searches the libraries of all experts at once.

    Every library is cut into cells of its own (an inverted file around k-means centroids). For a query all cells of
    all libraries compete for what may be read; an expert that the router prefers gets more of it, and the less sure the
    router is, the more is read altogether. The best cell is always read, whatever the budget.
    """

    def __init__(
        self,
        libraries: Mapping[str, Vectors],
        texts: Mapping[str, Sequence[str]] | None = None,
        reading: Reading = DEFAULT_READING,
    ) -> None:
        """``libraries``: expert -> float32[m, d] of unit length, m ≥ 0. ``texts``: expert -> its m passages as they are
        read; without them words do not count. Raises ValueError without any passage, and where texts and vectors do not
        go together.
        """
        if not any(len(vectors) for vectors in libraries.values()):
            raise ValueError("there are no passages to search")
        if texts is not None and any(len(texts.get(name, ())) != len(v) for name, v in libraries.items()):
            raise ValueError("every passage needs one vector and one text")
        self.experts = tuple(libraries)
        self._reading = reading
        self._libraries = [_Library(np.ascontiguousarray(v, np.float32), reading) for v in libraries.values()]
        self._first = np.cumsum([0, *(len(library) for library in self._libraries)])
        self._first_cell = np.cumsum([0, *(len(library.sizes) for library in self._libraries)])
        self._sizes = np.concatenate([library.sizes for library in self._libraries])
        self._centroids = np.concatenate([library.centroids for library in self._libraries])
        self._expert_of_cell = np.repeat(np.arange(len(self.experts)), np.diff(self._first_cell))
        self._hubness = _mean_cosine([library.neighbours for library in self._libraries])
        self._words = None
        if texts is not None:
            self._words = WordIndex([text for name in self.experts for text in texts[name]])

    def __len__(self) -> int:
        return int(self._first[-1])

    def search(self, queries: Vectors, shares: Vectors, k: int, texts: Sequence[str] | None = None) -> Found:
        """The best ``k`` passages for ``queries`` float32[n, d].

        ``shares`` float32[n, E] are the router's probabilities of the experts, rows summing to 1; ``texts`` the n
        queries as written, without which words do not count.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        parts = [
            self._search(queries[at:end], shares[at:end], k, None if texts is None else texts[at:end])
            for at in range(0, max(len(queries), 1), _BATCH)
            for end in [at + _BATCH]
        ]
        return Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _search(self, queries: Vectors, shares: Vectors, k: int, texts: Sequence[str] | None) -> Found:
        chosen = self._cells_to_read(queries, shares)
        reads = chosen @ self._sizes + len(self._sizes) + len(self.experts)
        cosines, places = self._read(queries, chosen, max(k, self._reading.rescored))
        scores = cosines - self._reading.hub_weight * self._hubness[places]
        if self._words is not None and texts is not None:
            scores += self._reading.word_weight * self._words.score(texts, places)
        scores[places < 0] = -np.inf
        scores, places = _best(scores, places, k)
        experts = np.where(places < 0, -1, np.searchsorted(self._first, places, "right") - 1)
        return Found(scores, experts, np.where(places < 0, -1, places - self._first[experts]), reads)

    def _cells_to_read(self, queries: Vectors, shares: Vectors) -> NDArray[np.bool_]:
        """bool[n, cells], at least one of a row True."""
        rules = self._reading
        claim = queries @ self._centroids.T
        claim += (rules.share_weight * np.log(np.maximum(shares, rules.least_share)))[:, self._expert_of_cell]
        order = np.argsort(-claim, axis=1, kind="stable")
        room = self._budget(shares) - len(self._sizes) - len(self.experts)
        fits = np.cumsum(self._sizes[order], axis=1) <= room[:, None]
        fits[:, :1] = True
        chosen = np.zeros(claim.shape, np.bool_)
        np.put_along_axis(chosen, order, fits, axis=1)
        return chosen

    def _budget(self, shares: Vectors) -> NDArray[np.floating[Any]]:
        """Reads allowed for each of n queries."""
        rules, n = self._reading, len(self)
        if n <= rules.read_whole:
            return np.full(len(shares), np.inf)
        unsure = 1 - shares.max(axis=1)
        graded = (rules.read_if_sure + (rules.read_at_most - rules.read_if_sure) * unsure) * n
        budget: NDArray[np.floating[Any]] = np.maximum(graded, min(rules.least_read, rules.read_at_most * n))
        return budget

    def _read(self, queries: Vectors, chosen: NDArray[np.bool_], depth: int) -> tuple[Vectors, Places]:
        """Cosines float32[n, depth] and places int64[n, depth] among all passages, highest first; -1 where no more."""
        n = len(queries)
        cosines, places = [np.full((n, depth), -np.inf, np.float32)], [np.full((n, depth), -1, np.int64)]
        for library, first, at, end in zip(
            self._libraries, self._first, self._first_cell, self._first_cell[1:], strict=False
        ):
            rows = np.flatnonzero(chosen[:, at:end].any(axis=1))
            if not len(rows):
                continue
            width = min(depth, len(library))
            some_cosines, some_places = np.full((n, width), -np.inf, np.float32), np.full((n, width), -1, np.int64)
            some_cosines[rows], own = library.read(queries[rows], chosen[rows, at:end], width)
            some_places[rows] = np.where(own < 0, -1, own + first)
            cosines.append(some_cosines)
            places.append(some_places)
        return _best(np.concatenate(cosines, axis=1), np.concatenate(places, axis=1), depth)


class _Library:
    """One expert's passages in cells."""

    def __init__(self, vectors: Vectors, reading: Reading) -> None:
        n, dimension = vectors.shape
        n_cells = max(1, min(n // reading.passages_per_cell, int(_CELLS_PER_ROOT * n**0.5)))
        # Any: for search_preassigned the stubs of faiss describe the C++ function, not Python's.
        self._index: Any = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(dimension), dimension, n_cells, faiss.METRIC_INNER_PRODUCT
        )
        # Cells are small on purpose; faiss would warn of it.
        self._index.cp.min_points_per_centroid = 1
        if n:
            self._index.train(vectors)
            self._index.add(vectors)
        sizes = np.array([self._index.get_list_size(cell) for cell in range(n_cells)], np.int64)
        self._cells = np.flatnonzero(sizes)
        self.sizes = sizes[self._cells]
        centroids = self._index.quantizer.reconstruct_n(0, n_cells) if n else np.zeros((n_cells, dimension), np.float32)
        self.centroids: Vectors = centroids[self._cells]
        self.neighbours = self._nearest(vectors, reading.neighbours)
        self._index.nprobe = max(1, len(self._cells))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def _nearest(self, vectors: Vectors, k: int) -> Vectors:
        """float32[m, k]: each passage's cosine to its ``k`` nearest others, NaN where there are fewer."""
        self._index.nprobe = min(_CELLS_OF_NEIGHBOURS, self._index.nlist)
        cosines, places = self._index.search(vectors, k + 1) if len(self) else (np.zeros((0, k + 1)), None)
        if places is not None:
            cosines[places < 0] = np.nan
        others: Vectors = cosines[:, 1:].astype(np.float32)
        return others

    def read(self, queries: Vectors, chosen: NDArray[np.bool_], k: int) -> tuple[Vectors, Places]:
        """The ``k`` nearest to each query in the cells ``chosen`` bool[n, cells] for it; -inf at -1 where no more."""
        cosines, places = self._index.search_preassigned(queries, k, np.where(chosen, self._cells, -1), None)
        cosines[places < 0] = -np.inf
        return cosines, places


def _mean_cosine(neighbours: Sequence[Vectors]) -> Vectors:
    """float32[passages]. Neighbours that a small library lacks count as those that others have do on average."""
    cosines = np.concatenate(neighbours)
    missing = np.isnan(cosines)
    typical = cosines[~missing].mean() if not missing.all() else 0.0
    mean: Vectors = (
        np.where(missing, np.float32(typical), cosines).mean(axis=1) if cosines.size else cosines.sum(axis=1)
    )
    return mean


def _best(scores: Vectors, places: Places, k: int) -> tuple[Vectors, Places]:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)
