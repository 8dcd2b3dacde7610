"""Which exemplars are left out together when a router is tried on what it has not seen."""

from collections.abc import Iterator

import numpy as np
from sklearn.cluster import KMeans

from experts.encoders.base import Vectors
from experts.routing.base import Places

_CLUSTERS = 8
_PER_CLUSTER = 10


def random_folds(owner: Places, n_folds: int, *, seed: int) -> Places:
    """The fold of each exemplar, int64[m]; each expert's are spread evenly."""
    fold = np.zeros(len(owner), np.int64)
    random = np.random.default_rng(seed)
    for places in _by_owner(owner):
        fold[random.permutation(places)] = np.arange(len(places)) % n_folds
    return fold


def cluster_folds(vectors: Vectors, owner: Places, n_folds: int, *, seed: int) -> Places:
    """Folds of whole clusters of each expert's exemplars: what is left out is unlike what is kept, as strangers are."""
    fold = np.zeros(len(owner), np.int64)
    random = np.random.default_rng(seed)
    for places in _by_owner(owner):
        distinct = len(np.unique(vectors[places], axis=0))
        if distinct <= n_folds:
            fold[random.permutation(places)] = np.arange(len(places)) % n_folds
            continue
        n_clusters = min(_CLUSTERS, max(n_folds, len(places) // _PER_CLUSTER), distinct)
        clusters = KMeans(n_clusters, n_init=1, random_state=seed).fit_predict(vectors[places])
        fold[places] = random.permutation(n_clusters)[clusters] % n_folds
    return fold


def _by_owner(owner: Places) -> Iterator[Places]:
    for place in np.unique(owner):
        yield np.flatnonzero(owner == place)
