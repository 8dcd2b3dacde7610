"""What is left out together: evenly at random, or whole clusters."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.routing.base import Floats, Places
from experts.routing.folds import cluster_folds, random_folds
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import directions, unit

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def owners(sizes: Sequence[int], *, seed: int = 0) -> Places:
    """So many exemplars of each expert, in any order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


class TestRandomFolds:
    @LAW
    @given(sizes=SIZES, n_folds=st.integers(1, 5), seed=st.integers(0, 10))
    def test_every_expert_is_spread_evenly(self, sizes: list[int], n_folds: int, seed: int) -> None:
        owner = owners(sizes)
        fold = random_folds(owner, n_folds, seed=seed)
        assert fold.shape == (sum(sizes),)
        assert fold.dtype == np.int64
        for expert, size in enumerate(sizes):
            counts = np.bincount(fold[owner == expert], minlength=n_folds)
            assert counts.tolist() == [size // n_folds + (f < size % n_folds) for f in range(n_folds)]

    def test_which_exemplar_is_in_which_fold_is_decided_by_the_seed(self) -> None:
        owner = owners([20, 20])
        first = random_folds(owner, 3, seed=4)
        np.testing.assert_array_equal(random_folds(owner, 3, seed=4), first)
        assert (random_folds(owner, 3, seed=5) != first).any()
        assert (first[owner == 0] != np.arange(20) % 3).any(), "in the order of the file"

    def test_nothing_is_spread_over_no_fold(self) -> None:
        assert random_folds(np.zeros(0, np.int64), 3, seed=0).shape == (0,)


def clustered(n_clusters: int, size: int, *, seed: int) -> tuple[Floats, Places]:
    """Tight clusters of one expert, and the cluster of each vector."""
    cluster = np.repeat(np.arange(n_clusters), size)
    around = np.eye(16)[cluster] + 0.02 * directions(len(cluster), 16, seed=seed)
    return unit(around), cluster


class TestClusterFolds:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(
        ("n_clusters", "size", "in_folds"),
        [
            pytest.param(3, 6, [6, 6, 6], id="as many clusters as folds"),
            pytest.param(6, 10, [20, 20, 20], id="a cluster for ten exemplars"),
            pytest.param(8, 15, [45, 45, 30], id="eight clusters at most"),
        ],
    )
    def test_whole_clusters_are_left_out_together(
        self, n_clusters: int, size: int, in_folds: list[int], seed: int
    ) -> None:
        vectors, cluster = clustered(n_clusters, size, seed=seed)
        fold = cluster_folds(vectors, np.zeros(len(cluster), np.int64), 3, seed=seed)
        assert fold.shape == (len(cluster),)
        assert fold.dtype == np.int64
        together = [set(fold[cluster == c].tolist()) for c in range(n_clusters)]
        assert [len(folds) for folds in together] == [1] * n_clusters
        assert np.bincount(fold).tolist() == in_folds

    def test_every_experts_clusters_are_found_among_its_own(self) -> None:
        """Two experts that say the same are left out apart from each other."""
        vectors, cluster = clustered(8, 10, seed=0)
        both = np.concatenate([vectors, vectors])
        owner = np.repeat([0, 1], 80)
        fold = cluster_folds(both, owner, 3, seed=1)
        for expert in (0, 1):
            assert all(len(set(fold[owner == expert][cluster == c].tolist())) == 1 for c in range(8))
            assert np.bincount(fold[owner == expert]).tolist() == [30, 30, 20]

    @LAW
    @given(sizes=SIZES, n_folds=st.integers(2, 4))
    def test_every_expert_is_in_as_many_folds_as_its_exemplars_allow(self, sizes: list[int], n_folds: int) -> None:
        owner = owners(sizes)
        fold = cluster_folds(directions(len(owner), 12), owner, n_folds, seed=0)
        for expert, size in enumerate(sizes):
            assert set(fold[owner == expert].tolist()) == set(range(min(size, n_folds)))

    def test_the_seed_decides(self) -> None:
        vectors, owner = directions(60, 8), np.zeros(60, np.int64)
        first = cluster_folds(vectors, owner, 3, seed=4)
        np.testing.assert_array_equal(cluster_folds(vectors, owner, 3, seed=4), first)
        assert (cluster_folds(vectors, owner, 3, seed=5) != first).any()

    @pytest.mark.parametrize("different", [1, 2])
    def test_of_exemplars_that_repeat_each_other_some_are_kept(self, different: int) -> None:
        """Twelve exemplars with one or two vectors cannot be cut into three clusters."""
        vectors = directions(different, 8).repeat(12 // different, axis=0)
        fold = cluster_folds(vectors, np.zeros(12, np.int64), 3, seed=0)
        assert len(set(fold.tolist())) > 1
