"""How much a query looks like the exemplars, against a comparison with every one of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.routing.base import Floats
from experts.routing.familiarity import Familiarity, fit_familiarity
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import directions, floats, unit


def around(n: int, *, seed: int = 0) -> Floats:
    """Traits that lie round one direction of eight."""
    return unit(np.eye(1, 8) + 0.3 * directions(n, 8, seed=seed))


def nearest_by_hand(traits: Floats, others: Floats) -> list[float]:
    return [max(float(row @ other) for other in others) for row in traits]


class TestFit:
    @LAW
    @given(seed=st.integers(0, 2**32 - 1), m=st.integers(3, 25))
    def test_every_exemplar_is_compared_with_all_others(self, seed: int, m: int) -> None:
        traits = directions(m, 8, seed=seed)
        _, nearest = fit_familiarity(traits)
        assert nearest.dtype == np.float32
        expected = [max(float(traits[a] @ traits[b]) for b in range(m) if b != a) for a in range(m)]
        np.testing.assert_allclose(nearest, expected, atol=1e-5)

    def test_what_is_kept_has_the_shapes_it_says(self) -> None:
        fitted, nearest = fit_familiarity(directions(200, 120))
        assert (fitted.basis.shape, fitted.rows.shape, fitted.steps.shape) == ((120, 96), (200, 96), (65,))
        assert {fitted.basis.dtype, fitted.rows.dtype, fitted.steps.dtype} == {np.dtype(np.float32)}
        np.testing.assert_allclose(np.linalg.norm(fitted.rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(fitted.steps, np.quantile(nearest, np.linspace(0, 1, 65)), atol=1e-6)

    def test_the_basis_keeps_the_directions_in_which_most_lies(self) -> None:
        """By a singular value decomposition, which takes another way to them."""
        traits = (directions(150, 100) * np.linspace(0.1, 2, 100)).astype(np.float32)
        fitted, _ = fit_familiarity(traits)
        np.testing.assert_allclose(fitted.basis.T @ fitted.basis, np.eye(96), atol=1e-4)
        values = np.linalg.svd(traits.astype(np.float64), compute_uv=False)
        kept = float(((traits.astype(np.float64) @ fitted.basis) ** 2).sum())
        assert kept == pytest.approx(float((values[:96] ** 2).sum()), rel=1e-4)

    def test_the_basis_of_very_many_exemplars_is_learned_from_some_that_the_seed_chooses(self) -> None:
        traits = directions(4_200, 100)
        first, _ = fit_familiarity(traits, seed=1)
        again, _ = fit_familiarity(traits, seed=1)
        other, _ = fit_familiarity(traits, seed=2)
        assert len(first.rows) == 4_200
        np.testing.assert_array_equal(first.basis, again.basis)
        assert not np.array_equal(first.basis, other.basis)

    @pytest.mark.parametrize(
        "traits",
        [np.zeros((5, 0), np.float32), directions(2, 8), directions(1, 8), np.zeros((0, 8), np.float32)],
        ids=["words only", "two exemplars", "one", "none"],
    )
    def test_where_nothing_can_be_measured_every_query_counts_as_familiar(self, traits: Floats) -> None:
        fitted, nearest = fit_familiarity(traits)
        np.testing.assert_array_equal(nearest, np.ones(len(traits)))
        queries = np.ones((3, traits.shape[1]), np.float32)
        np.testing.assert_array_equal(fitted.nearest(queries), [0, 0, 0])
        np.testing.assert_array_equal(fitted.rank(fitted.nearest(queries)), [1, 1, 1])


class TestNearest:
    @LAW
    @given(seed=st.integers(0, 2**31), m=st.integers(3, 25), n=st.integers(0, 4))
    def test_it_is_the_cosine_of_the_exemplar_most_alike(self, seed: int, m: int, n: int) -> None:
        """Of fewer traits than the basis has room for nothing is lost."""
        traits, queries = directions(m, 8, seed=seed), directions(n, 8, seed=seed + 1)
        found = fit_familiarity(traits)[0].nearest(queries)
        assert found.shape == (n,)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, nearest_by_hand(queries, traits), atol=1e-5)

    def test_the_length_of_a_querys_traits_does_not_matter(self) -> None:
        fitted, queries = fit_familiarity(directions(6, 8))[0], directions(3, 8, seed=1)
        np.testing.assert_allclose(fitted.nearest(queries * np.float32(7)), fitted.nearest(queries), atol=1e-6)

    def test_a_query_without_any_trait_is_like_nothing(self) -> None:
        found = fit_familiarity(directions(6, 8))[0].nearest(np.zeros((1, 8), np.float32))
        np.testing.assert_allclose(found, [0], atol=1e-6)


class TestRank:
    MADE = Familiarity(np.eye(2, dtype=np.float32), floats([[1, 0]]), floats([0.2, 0.4, 0.8]))

    @pytest.mark.parametrize(
        ("nearest", "expected"),
        [(-1, 0), (0.2, 0), (0.3, 0.25), (0.4, 0.5), (0.5, 0.625), (0.8, 1), (1, 1)],
    )
    def test_it_is_read_between_the_quantiles(self, nearest: float, expected: float) -> None:
        found = self.MADE.rank(floats([nearest]))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [expected], atol=1e-6)

    @LAW
    @given(
        seed=st.integers(0, 2**32 - 1),
        nearest=st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=10),
    )
    def test_what_lies_nearer_is_never_less_familiar(self, seed: int, nearest: list[float]) -> None:
        rank = fit_familiarity(around(40, seed=seed))[0].rank(floats(sorted(nearest)))
        assert (np.diff(rank) >= 0).all()
        assert ((rank >= 0) & (rank <= 1)).all()

    def test_it_is_the_share_of_exemplars_whose_own_nearest_lies_farther(self) -> None:
        fitted, nearest = fit_familiarity(around(65))
        farther = [float((nearest < value).mean()) for value in nearest]
        # Two that are each other's nearest share a value, and there is one step fewer than exemplars.
        np.testing.assert_allclose(fitted.rank(nearest), farther, atol=2.5 / 65)

    def test_exemplars_are_familiar_and_what_is_like_none_of_them_is_not(self) -> None:
        traits = around(60)
        fitted, _ = fit_familiarity(traits)
        np.testing.assert_allclose(fitted.rank(fitted.nearest(traits)), 1, atol=1e-3)
        strangers = unit(np.eye(8)[1:])
        np.testing.assert_array_equal(fitted.rank(fitted.nearest(strangers)), 0)

    def test_half_of_the_queries_like_the_exemplars_are_more_familiar_than_half_of_those(self) -> None:
        fitted, _ = fit_familiarity(around(400))
        rank = fitted.rank(fitted.nearest(around(400, seed=9)))
        assert float(rank.mean()) == pytest.approx(0.5, abs=0.08)
