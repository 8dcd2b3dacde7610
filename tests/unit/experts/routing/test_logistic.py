"""Fitting judges, against Newton's method written out and against what the method promises."""

import numpy as np
import pytest
from numpy.typing import NDArray

from experts.routing.base import Floats
from experts.routing.judging import Logistic
from experts.routing.logistic import fit_logistic

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]


def drawn(n: int = 200, *, seed: int = 0) -> tuple[Floats, Flags]:
    """Two features, of which the first speaks for and the second against; and what came of it."""
    random = np.random.default_rng(seed)
    features = random.normal([1, -2], [1, 3], (n, 2))
    probability = 1 / (1 + np.exp(-(features[:, 0] - 0.5 * features[:, 1] - 2)))
    return features.astype(np.float32), random.random(n) < probability


def reference(features: Floats, labels: Flags, weight: Doubles, strength: float) -> tuple[Doubles, float]:
    """Newton's method on strength × weighted log-loss + half the squared weights, of standardised features."""
    x = (features.astype(np.float64) - features.mean(axis=0)) / features.std(axis=0)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    ridge = np.diag([*np.ones(features.shape[1]), 0.0])
    found = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ found))
        gradient = strength * x.T @ (weight * (p - labels)) + ridge @ found
        hessian = strength * (x.T * (weight * p * (1 - p))) @ x + ridge
        found -= np.linalg.solve(hessian, gradient)
    return found[:-1], float(found[-1])


def assert_same(found: Logistic, expected: Logistic, atol: float = 0.0) -> None:
    for name, array in found.arrays("it").items():
        np.testing.assert_allclose(array, expected.arrays("it")[name], atol=atol, rtol=0)


@pytest.mark.parametrize("strength", [0.01, 0.1, 1.0, 10.0])
def test_it_is_the_ridge_regression_of_the_textbook(strength: float) -> None:
    features, labels = drawn()
    found = fit_logistic(features, labels, strength=strength)
    weights, bias = reference(features, labels, np.ones(200), strength)
    np.testing.assert_allclose(found.weights, weights, atol=2e-3)
    assert found.bias == pytest.approx(bias, abs=2e-3)
    np.testing.assert_allclose(found.mean, features.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.scale, features.std(axis=0), atol=1e-5)
    assert {array.dtype for array in found.arrays("it").values()} == {np.dtype(np.float32)}


def test_weights_are_relative_to_their_mean() -> None:
    features, labels = drawn()
    weight = np.where(np.arange(200) < 100, 3.0, 1.0)
    found = fit_logistic(features, labels, weight=weight)
    weights, bias = reference(features, labels, weight / 2, 1.0)
    np.testing.assert_allclose(found.weights, weights, atol=2e-3)
    assert found.bias == pytest.approx(bias, abs=2e-3)
    assert_same(fit_logistic(features, labels, weight=weight * 1e-4), found, atol=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_positives_weigh_as_much_as_they_will_be_met(share: float) -> None:
    """With an intercept, the weighted mean of the probabilities is that of the labels."""
    features, labels = drawn()
    weight = np.linspace(0.5, 1.5, 200)
    found = fit_logistic(features, labels, positive_share=share, weight=weight)(features)
    inside, outside = (np.average(found[part], weights=weight[part]) for part in (labels, ~labels))
    assert share * inside + (1 - share) * outside == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_feature_that_says_nothing_leaves_the_share_of_positives(share: float) -> None:
    features = np.full((10, 2), 3.5, np.float32)
    found = fit_logistic(features, np.arange(10) < 5, positive_share=share)
    np.testing.assert_allclose(found(features), share, atol=1e-3)


@pytest.mark.parametrize(("label", "expected"), [(True, 0.98201376), (False, 0.01798621)])
def test_where_all_are_the_same_everything_is_nearly_certain(label: bool, expected: float) -> None:
    features, _ = drawn(5)
    found = fit_logistic(features, np.full(5, label), positive_share=0.5, weight=np.ones(5))
    np.testing.assert_allclose(found(np.array([[0, 0], [1e6, -1e6]], np.float32)), expected, atol=1e-6)


def test_where_there_is_nothing_at_all_nothing_is_likely() -> None:
    found = fit_logistic(np.zeros((0, 3), np.float32), np.zeros(0, bool))
    np.testing.assert_allclose(found(np.ones((1, 3), np.float32)), [0.01798621], atol=1e-6)


def test_a_clear_case_is_learned() -> None:
    features = np.array([[-2], [-1], [1], [2]], np.float32)
    found = fit_logistic(features, features[:, 0] > 0, strength=100)(features)
    assert (found[:2] < 0.05).all()
    assert (found[2:] > 0.95).all()


def test_of_very_many_rows_a_sample_is_enough_and_a_seed_decides_which() -> None:
    features, labels = drawn(70_000)
    found = fit_logistic(features, labels, seed=1)
    assert_same(found, fit_logistic(features, labels, seed=1))
    assert found.bias != fit_logistic(features, labels, seed=2).bias
    weights, _ = reference(features, labels, np.ones(70_000), 1.0)
    np.testing.assert_allclose(found.weights, weights, atol=0.05)


def test_it_changes_none_of_what_it_is_given() -> None:
    features, labels = drawn(20)
    weight = np.ones(20)
    before = features.copy(), labels.copy()
    fit_logistic(features, labels, positive_share=0.5, weight=weight)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])
    np.testing.assert_array_equal(weight, 1)


class TestOnlyFor:
    def test_a_feature_that_would_speak_against_is_left_out_and_the_rest_fitted_without_it(self) -> None:
        features, labels = drawn()
        found = fit_logistic(features, labels, only_for=True)
        alone = fit_logistic(features[:, :1], labels)
        assert found.weights[1] == 0
        assert found.weights[0] == pytest.approx(alone.weights[0])
        assert found.bias == pytest.approx(alone.bias)

    def test_where_everything_would_speak_against_nothing_speaks(self) -> None:
        features, labels = drawn()
        found = fit_logistic(features[:, 1:], labels, only_for=True)
        np.testing.assert_array_equal(found.weights, [0])

    def test_what_speaks_for_is_fitted_as_without(self) -> None:
        features, labels = drawn()
        for_it = features * np.array([1, -1], np.float32)
        assert_same(fit_logistic(for_it, labels, only_for=True), fit_logistic(for_it, labels))


def test_of_too_many_rows_the_rare_label_is_kept_whole() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200_000) < 300
    features = (random.normal(size=(200_000, 1)) + 2 * labels[:, None]).astype(np.float32)
    found = fit_logistic(features, labels)
    whole = 2.0  # of two normal distributions a distance of 2 apart, the log-odds rise by 2 per unit
    assert found.weights[0] / found.scale[0] == pytest.approx(whole, abs=0.25)
    assert found(features).mean() == pytest.approx(300 / 200_000, rel=0.3)
