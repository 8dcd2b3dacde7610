"""Queries move from full experts to the next best, cheapest first, and for no more than the budget."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from experts.routing.balancing import balanced, utilisation
from experts.routing.base import Floats
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import floats

# What a move to the second costs: 0.5, 0.25, 0.125 and 0.75.
FOUR = floats([[0.75, 0.25], [0.625, 0.375], [0.5625, 0.4375], [0.875, 0.125]])


def rooms(*room: int) -> NDArray[np.int64]:
    return np.array(room, np.int64)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, NDArray[np.int64], float]:
    """Up to a dozen queries and five experts, in sixteenths, so that costs add up without rounding."""
    n, n_experts = draw(st.integers(0, 12)), draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 16), min_size=n_experts, max_size=n_experts)
    rows = draw(st.lists(row, min_size=n, max_size=n))
    room = draw(st.lists(st.integers(0, 8), min_size=n_experts, max_size=n_experts))
    share = np.array(rows, np.float32).reshape(n, n_experts) / np.float32(16)
    return share, rooms(*room), draw(st.integers(0, 16)) / 16


class TestBalanced:
    @pytest.mark.parametrize(
        ("budget", "expected"),
        [
            (0.0, [0, 0, 0, 0]),
            (0.03, [0, 0, 0, 0]),
            (0.03125, [0, 0, 1, 0]),
            (0.09, [0, 0, 1, 0]),
            (0.09375, [0, 1, 1, 0]),
            (1.0, [0, 1, 1, 0]),
        ],
    )
    def test_the_cheapest_move_first_and_all_together_for_no_more_than_the_budget(
        self, budget: float, expected: list[int]
    ) -> None:
        assert balanced(FOUR, rooms(2, 4), budget=budget).tolist() == expected

    def test_it_stops_where_the_room_is_enough(self) -> None:
        assert balanced(FOUR, rooms(3, 4), budget=1).tolist() == [0, 0, 1, 0]
        assert balanced(FOUR, rooms(4, 0), budget=1).tolist() == [0, 0, 0, 0]

    def test_a_query_goes_to_the_best_that_has_room_left(self) -> None:
        share = floats([[0.5, 0.25, 0.125, 0.125]] * 3)
        assert sorted(balanced(share, rooms(1, 1, 9, 9), budget=1).tolist()) == [0, 1, 2]

    def test_a_full_expert_takes_no_more_and_one_that_is_over_keeps_what_nobody_takes(self) -> None:
        share = floats([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.25, 0.75]])
        found = balanced(share, rooms(1, 2), budget=1).tolist()
        assert found.count(0) == 2
        assert found[3] == 1

    @pytest.mark.parametrize("room", [rooms(0, 0), rooms(0, 0, 0)])
    def test_where_nobody_has_room_every_query_stays_with_its_first(self, room: NDArray[np.int64]) -> None:
        share = floats([[0.75, 0.25, 0], [0.25, 0.75, 0]])[:, : len(room)]
        assert balanced(share, room, budget=1).tolist() == [0, 1]

    def test_without_a_budget_only_equals_move(self) -> None:
        share = floats([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]])
        assert balanced(share, rooms(0, 9), budget=0).tolist() == [1, 0, 1]

    def test_an_expert_without_room_is_left_though_it_is_the_only_one_for_some(self) -> None:
        share = floats([[1, 0], [0.5625, 0.4375]])
        assert balanced(share, rooms(0, 9), budget=0.1).tolist() == [0, 1]

    def test_the_only_expert_keeps_every_query(self) -> None:
        assert balanced(floats([[1], [1]]), rooms(1), budget=1).tolist() == [0, 0]

    def test_no_queries_go_nowhere(self) -> None:
        found = balanced(np.zeros((0, 3), np.float32), rooms(0, 1, 2), budget=1)
        assert found.shape == (0,)
        assert found.dtype == np.int64

    def test_a_move_whose_next_best_is_full_counts_as_what_it_costs(self) -> None:
        """The first would have to pass over the second expert: 0.4375 instead of 0.25 for the other query."""
        share = floats([[0.5, 0.4375, 0.0625], [0.5, 0.25, 0.25]])
        assert balanced(share, rooms(1, 0, 1), budget=1).tolist() == [0, 2]

    @LAW
    @given(case=cases())
    def test_only_full_experts_give_queries_away_and_nobody_is_filled_beyond_the_room(
        self, case: tuple[Floats, NDArray[np.int64], float]
    ) -> None:
        share, room, budget = case
        given_share, given_room = share.copy(), room.copy()
        found = balanced(share, room, budget=budget)
        np.testing.assert_array_equal(share, given_share)
        np.testing.assert_array_equal(room, given_room)
        first = share.argmax(axis=1)
        before, after = (np.bincount(chosen, minlength=len(room)) for chosen in (first, found))
        moved = found != first
        assert (before[first[moved]] > room[first[moved]]).all()
        assert (after[first[moved]] >= room[first[moved]]).all()
        assert (after[found[moved]] <= room[found[moved]]).all()
        rows = np.arange(len(share))
        cost = float((share[rows, first] - share[rows, found]).sum())
        assert cost <= budget * len(share) + 1e-9

    @LAW
    @given(case=cases())
    def test_what_still_fits_nowhere_would_break_the_budget_or_a_room(
        self, case: tuple[Floats, NDArray[np.int64], float]
    ) -> None:
        share, room, budget = case
        found = balanced(share, room, budget=budget)
        after = np.bincount(found, minlength=len(room))
        rows = np.arange(len(share))
        left = budget * len(share) - float((share.max(axis=1, initial=0) - share[rows, found]).sum())
        for row in np.flatnonzero((after > room)[found]):
            for place in np.flatnonzero(after < room):
                assert share[row, found[row]] - share[row, place] > left


class TestUtilisation:
    @pytest.mark.parametrize(
        ("chosen", "n_experts", "entropy", "spread"),
        [
            ([0, 1, 2, 3], 4, 1, 0),
            ([0, 0, 1, 1], 2, 1, 0),
            ([0, 0, 0, 1], 2, 0.75 * math.log2(4 / 3) + 0.25 * 2, 0.5),
            ([0, 1], 4, 0.5, 1),
            ([2, 2, 2], 3, 0, 2**0.5),
            ([0], 1, 1, 0),
            ([], 3, 1, 0),
            ([], 1, 1, 0),
        ],
    )
    def test_entropy_is_a_share_of_the_most_there_could_be_and_spread_one_of_the_mean(
        self, chosen: list[int], n_experts: int, entropy: float, spread: float
    ) -> None:
        assert utilisation(np.array(chosen, np.int64), n_experts) == pytest.approx((entropy, spread))

    def test_no_entropy_at_all_is_written_without_a_sign(self) -> None:
        entropy, _ = utilisation(np.zeros(3, np.int64), 2)
        assert str(entropy) == "0.0"
