"""Every measure on cases that can be worked out by hand, and against slow references."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from experts.evaluation.metrics import (
    Bin,
    Difference,
    LabelScore,
    auroc,
    confusion,
    expected_calibration_error,
    false_positives,
    interval,
    label_scores,
    paired,
    reliability,
)
from experts.routing.base import Floats
from tests.contracts.samples import LAW

# Powers of two, so that ties are exact.
SCORES = st.lists(st.integers(0, 16).map(lambda n: n / 16), min_size=1, max_size=12)


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def flags(text: str) -> NDArray[np.bool_]:
    """``"1101"`` as four flags."""
    return np.array([letter == "1" for letter in text])


class TestReliability:
    def test_bins_hold_their_start_and_not_their_stop_and_the_last_holds_one(self) -> None:
        found = reliability(floats(0, 0.25, 0.375, 0.5, 1), flags("01101"), bins=4)
        assert found == [
            Bin(0.0, 0.25, 1, 0.0, 0.0),
            Bin(0.25, 0.5, 2, 0.3125, 1.0),
            Bin(0.5, 0.75, 1, 0.5, 0.0),
            Bin(0.75, 1.0, 1, 1.0, 1.0),
        ]

    def test_there_are_fifteen_bins_where_nothing_else_is_said(self) -> None:
        (found,) = reliability(floats(0.99), flags("1"))
        assert (found.start, found.stop) == (14 / 15, 1)

    def test_nothing_measured_gives_no_bins(self) -> None:
        assert reliability(floats(), flags("")) == []

    @LAW
    @given(drawn=st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=30))
    def test_every_query_is_in_one_bin(self, drawn: list[tuple[float, bool]]) -> None:
        confidence, right = floats(*(c for c, _ in drawn)), np.array([r for _, r in drawn])
        found = reliability(confidence, right)
        assert sum(b.n for b in found) == len(drawn)
        assert sum(b.n * b.accuracy for b in found) == pytest.approx(right.sum())
        assert sum(b.n * b.confidence for b in found) == pytest.approx(float(confidence.sum()), rel=1e-4)


class TestExpectedCalibrationError:
    def test_gaps_are_weighted_by_how_many_fall_in_a_bin(self) -> None:
        """Bins of a half: 0.25 said and one in four right; 0.75 said and none of two right."""
        confidence = floats(0.25, 0.25, 0.25, 0.25, 0.75, 0.75)
        assert expected_calibration_error(confidence, flags("100000"), bins=2) == pytest.approx(0.75 * 2 / 6)

    def test_it_is_nought_where_confidence_is_what_is_right(self) -> None:
        assert expected_calibration_error(floats(0.5, 0.5, 1, 1), flags("0111")) == 0

    def test_it_is_one_for_who_is_sure_and_wrong(self) -> None:
        assert expected_calibration_error(floats(1, 1), flags("00")) == 1

    def test_gaps_to_both_sides_do_not_cancel_out_between_bins(self) -> None:
        assert expected_calibration_error(floats(0.25, 0.75), flags("10"), bins=2) == 0.75


class TestAuroc:
    @LAW
    @given(inside=SCORES, outside=SCORES)
    def test_it_is_the_share_of_pairs_in_order(self, inside: list[float], outside: list[float]) -> None:
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(inside, outside)]
        assert auroc(floats(*inside), floats(*outside)) == pytest.approx(sum(pairs) / len(pairs))

    @pytest.mark.parametrize(("inside", "outside"), [([], [0.5]), ([0.5], []), ([], [])])
    def test_there_is_none_without_both_sides(self, inside: list[float], outside: list[float]) -> None:
        assert auroc(floats(*inside), floats(*outside)) is None
        assert false_positives(floats(*inside), floats(*outside)) is None

    def test_the_order_of_the_scores_does_not_matter(self) -> None:
        assert auroc(floats(0.9, 0.1, 0.5), floats(0.6, 0.2)) == auroc(floats(0.1, 0.5, 0.9), floats(0.2, 0.6)) == 0.5


class TestFalsePositives:
    INSIDE = np.linspace(0, 1, 21, dtype=np.float32)  # twenty of twenty-one lie at 0.05 or above

    @pytest.mark.parametrize(
        ("outside", "expected"),
        [
            ((0.0, 0.01, 0.02, 0.03), 0),
            ((0.0, 0.06, 0.07, 0.02), 0.5),
            ((0.0625, 0.5, 1, 1), 1),
            ((0.0, 0.0, 1, 0), 0.25),
        ],
    )
    def test_they_are_those_at_or_above_what_nearly_all_inside_reach(
        self, outside: tuple[float, ...], expected: float
    ) -> None:
        assert false_positives(self.INSIDE, floats(*outside)) == expected

    def test_a_score_at_the_threshold_counts(self) -> None:
        assert false_positives(floats(0.5, 0.5, 0.5), floats(0.5, 0.25)) == 0.5

    def test_keeping_fewer_inside_lets_fewer_through(self) -> None:
        outside = floats(0.1, 0.3, 0.6, 0.9)
        assert [false_positives(self.INSIDE, outside, kept=kept) for kept in (0.95, 0.8, 0.5, 0.2)] == [
            1,
            0.75,
            0.5,
            0.25,
        ]


class TestConfusion:
    def test_rows_are_true_and_columns_chosen(self) -> None:
        counts = confusion(np.array([0, 0, 0, 1, 2]), np.array([0, 2, 2, 1, 1]), 3)
        np.testing.assert_array_equal(counts, [[1, 0, 2], [0, 1, 0], [0, 1, 0]])

    def test_labels_nobody_has_are_there_too(self) -> None:
        np.testing.assert_array_equal(confusion(np.array([0]), np.array([0]), 3), np.diag([1, 0, 0]))
        nobody = np.zeros(0, np.int64)
        np.testing.assert_array_equal(confusion(nobody, nobody, 2), np.zeros((2, 2)))

    def test_precision_recall_and_f1_are_those_of_the_textbook(self) -> None:
        counts = np.array([[6, 2, 0], [3, 1, 0], [0, 0, 0]])
        found = [(score.n, score.precision, score.recall, score.f1) for score in label_scores(counts)]
        expected = [(8, 6 / 9, 6 / 8, 12 / 17), (4, 1 / 3, 1 / 4, 2 / 7), (0, 0, 0, 0)]
        np.testing.assert_allclose(found, expected)

    def test_a_label_that_is_never_chosen_has_no_precision_and_one_that_never_comes_no_recall(self) -> None:
        assert label_scores(np.array([[0, 2], [0, 0]])) == [LabelScore(2, 0.0, 0.0, 0.0), LabelScore(0, 0.0, 0.0, 0.0)]


class TestInterval:
    def test_where_all_agree_the_interval_is_a_point(self) -> None:
        assert interval(flags("1111")) == (1, 1)
        assert interval(np.full(5, 0.25)) == (0.25, 0.25)

    def test_nothing_measured_leaves_everything_possible(self) -> None:
        assert interval(np.zeros(0)) == (0, 1)

    def test_it_is_that_of_the_normal_approximation_where_there_is_plenty(self) -> None:
        values = np.repeat([0.0, 1.0], [300, 700])
        error = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
        assert interval(values) == pytest.approx((0.7 - error, 0.7 + error), abs=0.004)

    def test_one_seed_gives_one_interval_and_the_values_keep_their_order(self) -> None:
        values = np.arange(20.0)
        assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)
        np.testing.assert_array_equal(values, np.arange(20.0))


class TestPaired:
    def test_the_difference_is_that_of_the_accuracies(self) -> None:
        found = paired(flags("1111110000"), flags("1100000000"))
        assert found.mean == pytest.approx(0.4)
        assert found.low < 0.4 < found.high

    @pytest.mark.parametrize(
        ("wins", "losses", "p"),
        [(4, 0, 2 / 16), (0, 4, 2 / 16), (5, 1, 14 / 64), (3, 3, 1), (0, 0, 1), (1, 0, 1), (10, 0, 2 / 1024)],
    )
    def test_p_is_that_of_as_many_coins(self, wins: int, losses: int, p: float) -> None:
        """McNemar's exact test does not look at the queries in which both agree."""
        a, b = flags("1" * wins + "0" * losses + "1100"), flags("0" * wins + "1" * losses + "1100")
        assert paired(a, b).p == pytest.approx(p)

    def test_the_other_way_round_is_the_mirror_image(self) -> None:
        a, b = flags("110110111"), flags("011010001")
        one, other = paired(a, b), paired(b, a)
        assert (other.mean, other.low, other.high, other.p) == (-one.mean, -one.high, -one.low, one.p)

    def test_no_queries_tell_nothing(self) -> None:
        found = paired(flags(""), flags(""))
        assert (found.mean, found.p) == (0, 1)

    def test_a_router_is_no_better_than_itself(self) -> None:
        assert paired(flags("1010"), flags("1010")) == Difference(0.0, 0.0, 0.0, 1.0)
