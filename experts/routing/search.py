"""The nearest among many vectors, at a cost that grows more slowly than their number."""

from dataclasses import dataclass

import faiss
import numpy as np

from experts.encoders.base import Vectors
from experts.routing.base import Floats, Places

# From this many vectors on, cells of them are looked into instead of all.
CELLS_FROM = 16_384
_CELLS_READ = 12


@dataclass(frozen=True, slots=True)
class Near:
    """For n queries the k nearest, best first: ``cosines`` float32[n, k] and ``places`` int64[n, k].

    Where there are fewer than k, the rest of a row is cosine -1 at place -1.
    """

    cosines: Floats
    places: Places

    def first(self, n: int) -> "Near":
        """What the first ``n`` queries found."""
        return Near(self.cosines[:n], self.places[:n])


def no_neighbours(n: int) -> Near:
    """What n queries find where nothing is to be found."""
    return Near(np.zeros((n, 0), np.float32), np.zeros((n, 0), np.int64))


class NearestNeighbours:
    """Exact search below ``CELLS_FROM`` vectors; above, an inverted file of about √m cells, of which a few are read."""

    def __init__(self, vectors: Vectors) -> None:
        vectors = np.ascontiguousarray(vectors, np.float32)
        n, dimension = vectors.shape
        index: faiss.Index = faiss.IndexFlatIP(dimension)
        if n >= CELLS_FROM:
            index = faiss.IndexIVFFlat(index, dimension, int(n**0.5), faiss.METRIC_INNER_PRODUCT)
            index.train(vectors)
            index.nprobe = _CELLS_READ
        index.add(vectors)
        self._index = index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, k: int) -> Near:
        """The ``k`` nearest to each of ``queries`` float32[n, d]."""
        cosines, places = self._index.search(np.ascontiguousarray(queries, np.float32), k)
        cosines[places < 0] = -1.0
        return Near(cosines, places)

    def nearest(self, queries: Vectors, *, at_most: int) -> Near:
        """The same, with no more columns than there are vectors."""
        k = min(at_most, len(self))
        return self.search(queries, k) if k else no_neighbours(len(queries))


def nearest_in(cosines: Floats, k: int) -> Near:
    """The ``k`` largest of each row of ``cosines`` float32[n, m]; what is near -2 counts as not there."""
    k = min(k, cosines.shape[1])
    places = np.argpartition(-cosines, k - 1, axis=1)[:, :k] if k else np.zeros((len(cosines), 0), np.int64)
    found = np.take_along_axis(cosines, places, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    found, places = np.take_along_axis(found, order, axis=1), np.take_along_axis(places, order, axis=1)
    gone = found < -1.5  # a cosine may come out a little below -1
    return Near(np.where(gone, np.float32(-1), found).astype(np.float32), np.where(gone, -1, places).astype(np.int64))


def mean_of_best(near: Near, k: int) -> Floats:
    """Mean cosine of the first ``k`` neighbours, float32[n]; 0 where there are none at all."""
    k = min(k, near.cosines.shape[1])
    if k == 0:
        return np.zeros(len(near.cosines), np.float32)
    there = near.places[:, :k] >= 0
    total = np.where(there, near.cosines[:, :k], 0).sum(axis=1)
    mean: Floats = (total / np.maximum(there.sum(axis=1), 1)).astype(np.float32)
    return mean
