"""Confidence features by hand, and what conformal prediction promises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.routing.base import Floats
from experts.routing.calibration import KEPT, Conformal, confidence_features, conformal
from tests.contracts.samples import LAW

TENTHS = Conformal(np.linspace(0.1, 0.9, 9, dtype=np.float32))


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


class TestConfidenceFeatures:
    def test_they_are_odds_lead_familiarity_and_agreement(self) -> None:
        share = np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]], np.float32)
        found = confidence_features(share, floats(0.25, 1), floats(0.5, 0.75))
        expected = [[0, math.log(2), 0.25, 0.5], [math.log(3), math.log(6), 1, 0.75]]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == np.float32

    def test_where_two_are_level_there_is_no_lead(self) -> None:
        found = confidence_features(floats(0.5, 0.5)[None], floats(1), floats(1))
        np.testing.assert_allclose(found[:, :2], [[0, 0]], atol=1e-6)

    @pytest.mark.parametrize("share", [[[1.0, 0.0]], [[1.0]]], ids=["beside nothing", "alone"])
    def test_all_of_the_share_is_a_large_number_and_no_more(self, share: list[list[float]]) -> None:
        found = confidence_features(np.array(share, np.float32), floats(1), floats(1))
        np.testing.assert_allclose(found[0, :2], math.log(1e6), rtol=5e-3)

    def test_no_queries_have_no_features(self) -> None:
        for n_experts in (1, 3):
            assert confidence_features(np.zeros((0, n_experts), np.float32), floats(), floats()).shape == (0, 4)


class TestThreshold:
    @pytest.mark.parametrize(
        ("max_misroute", "expected"),
        [(0.05, 0), (0.0999, 0), (0.1, 0.1), (0.15, 0.1), (0.2, 0.2), (0.5, 0.5), (0.95, 0.9)],
    )
    def test_of_nine_shares_each_tenth_of_risk_passes_over_one_more(self, max_misroute: float, expected: float) -> None:
        assert TENTHS.threshold(max_misroute) == pytest.approx(expected)

    @pytest.mark.parametrize("max_misroute", [0.0, -0.5, 1e-9])
    def test_without_risk_everybody_is_asked(self, max_misroute: float) -> None:
        assert TENTHS.threshold(max_misroute) == 0

    def test_where_nothing_was_measured_everybody_is_asked(self) -> None:
        assert [Conformal(floats()).threshold(risk) for risk in (0, 0.1, 0.5)] == [0, 0, 0]

    @LAW
    @given(
        shares=st.lists(st.floats(0, 1, width=32), max_size=30),
        risks=st.lists(st.floats(0, 0.99), min_size=2, max_size=5),
    )
    def test_more_risk_never_lowers_it(self, shares: list[float], risks: list[float]) -> None:
        found = Conformal(floats(*sorted(shares)))
        thresholds = [found.threshold(risk) for risk in sorted(risks)]
        assert thresholds == sorted(thresholds)

    @LAW
    @given(shares=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), risk=st.floats(0.01, 0.5))
    def test_of_those_it_was_measured_on_no_more_than_allowed_are_missed(
        self, shares: list[float], risk: float
    ) -> None:
        right = floats(*sorted(shares))
        missed = int((right < np.float32(Conformal(right).threshold(risk))).sum())
        assert missed <= max((len(right) + 1) * risk - 1, 0)

    @pytest.mark.parametrize(("n", "risk"), [(9, 0.1), (50, 0.1), (50, 0.05), (200, 0.02), (19, 0.2)])
    def test_queries_of_the_same_sort_are_missed_as_often_as_promised(self, n: int, risk: float) -> None:
        """Over many draws exactly k of n + 1 are missed, where k is what the risk allows."""
        random = np.random.default_rng(0)
        draws = 4_000
        missed = np.empty(draws)
        for at in range(draws):
            right = random.beta(5, 2, n + 1).astype(np.float32)
            missed[at] = right[0] < Conformal(np.sort(right[1:])).threshold(risk)
        expected = math.floor((n + 1) * risk) / (n + 1)
        assert expected <= risk
        assert missed.mean() == pytest.approx(expected, abs=3.5 * (risk / draws) ** 0.5)


class TestConformal:
    def test_the_shares_of_the_right_experts_are_kept_in_order(self) -> None:
        share = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0.375, 0.625, 0]], np.float32)
        found = conformal(share, np.array([0, 1, 1])).right_shares
        np.testing.assert_array_equal(found, floats(0.125, 0.5, 0.625))
        assert found.dtype == np.float32

    def test_of_very_many_a_sample_is_kept_that_a_seed_decides(self) -> None:
        right = np.linspace(0, 1, KEPT + 1000, dtype=np.float32)
        share, owner = np.stack([right, 1 - right], axis=1), np.zeros(len(right), np.int64)
        found = conformal(share, owner, seed=3).right_shares
        assert len(np.unique(found)) == KEPT
        assert set(found) <= set(right)
        assert (np.diff(found) > 0).all()
        np.testing.assert_array_equal(found, conformal(share, owner, seed=3).right_shares)
        assert not np.array_equal(found, conformal(share, owner, seed=4).right_shares)
        assert found.mean() == pytest.approx(0.5, abs=0.01)

    def test_no_queries_promise_nothing(self) -> None:
        assert conformal(np.zeros((0, 2), np.float32), np.zeros(0, np.int64)).threshold(0.5) == 0
