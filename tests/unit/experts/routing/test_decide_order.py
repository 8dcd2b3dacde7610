"""Who is asked first: the walk down the tree of experts, near ties, room, and the risk of missing the right one."""

from typing import Any

import pytest

from experts.routing.decide import Policy, decide
from experts.routing.validation import validate
from experts.standing import Standing
from tests.unit.experts.routing.deciding import EXPERTS, asked, decided, scores_of, standings

TREE: dict[str, str | None] = {"code": "bank", "earth": "bank", "law": None, "medicine": "nobody"}


class TestByLevel:
    def test_decisions_go_by_it(self) -> None:
        share = [[0.0, 0.3125, 0.25, 0.4375, 0.0]]
        assert asked(share, top_k=1) == [["law"]]
        (decision,) = decided(share, top_k=1, parents=TREE)
        assert decision.experts == (("code", 1.0),)
        assert decision.explanation["path"] == ["bank", "code"]
        assert decision.explanation["analysis"]["domain"] == "law"


class TestTies:
    GIVEN = standings(bank={"priority": 0.25}, code={"priority": 0.75}, earth={"priority": 1.0})

    @pytest.mark.parametrize(
        ("margin", "first"), [(0.0, "bank"), (0.0625, "bank"), (0.07, "code"), (0.5, "code")]
    )  # 0.53125 - 0.46875 = 0.0625, which is not closer than that
    def test_scores_closer_than_the_margin_go_by_priority(self, margin: float, first: str) -> None:
        assert asked([[0.53125, 0.46875]], self.GIVEN, top_k=1, tie_margin=margin) == [[first]]

    def test_only_the_second_can_take_the_place_of_the_first(self) -> None:
        assert asked([[0.34, 0.335, 0.325]], self.GIVEN, top_k=3, tie_margin=0.1) == [["code", "bank", "earth"]]

    def test_between_equals_in_priority_the_score_decides(self) -> None:
        given = standings(bank={"priority": 0.5}, code={"priority": 0.5})
        assert asked([[0.495, 0.505]], given, top_k=1, tie_margin=0.1) == [["code"]]

    @pytest.mark.parametrize(("code", "first"), [(0.49, "bank"), (0.51, "code")])
    def test_an_expert_that_nothing_is_known_of_is_neither_better_nor_worse_than_others(
        self, code: float, first: str
    ) -> None:
        assert asked([[0.505, 0.495]], standings(code={"priority": code}), top_k=1) == [[first]]

    def test_one_that_is_not_available_wins_no_tie(self) -> None:
        given = standings(bank={"priority": 0.1}, code={"priority": 1.0, "available": False})
        assert asked([[0.5, 0.5]], given, top_k=2, tie_margin=1.0) == [["bank"]]

    def test_weights_stay_those_of_the_scores_and_the_words_say_why(self) -> None:
        (decision,) = decided([[0.505, 0.495]], self.GIVEN)
        assert decision.experts == (("code", 0.495), ("bank", 0.505))
        assert decision.reason.startswith("code is asked in place of bank, which scores 0.01 more")
        assert decision.explanation["otherwise"]["runner_up"] == "bank"
        assert decision.explanation["otherwise"]["margin"] == -0.01

    def test_load_counts_before_the_tie(self) -> None:
        """At full capacity bank's 0.6875 shrink to 0.34375, which is within the margin of code's 0.3125."""
        given = standings(bank={"queue": 640, "priority": 0.1}, code={"priority": 0.9})
        assert asked([[0.6875, 0.3125]], given, top_k=1, tie_margin=0.04, balance_budget=0) == [["code"]]
        assert asked([[0.6875, 0.3125]], given, top_k=1, tie_margin=0.03, balance_budget=0) == [["bank"]]


# Moving these from bank to code costs 0.5, 0.25, 0.125 and 0.75.
FOUR = [[0.75, 0.25], [0.625, 0.375], [0.5625, 0.4375], [0.875, 0.125]]
PLAIN: dict[str, Any] = {"top_k": 1, "tie_margin": 0.0, "load_factor": False, "capacity_factor": 1.0}


class TestRoom:
    @pytest.mark.parametrize(
        ("budget", "chosen"),
        [(0.0, "bbbb"), (0.03, "bbbb"), (0.04, "bbcb"), (0.09, "bbcb"), (0.1, "bccb"), (0.25, "bccb"), (1.0, "bccb")],
    )
    def test_queries_over_the_room_go_to_the_next_best_for_no_more_than_the_budget(
        self, budget: float, chosen: str
    ) -> None:
        """The budget counts per query, so that 0.04 allows 0.16 in all, and 0.1 allows 0.4."""
        found = asked(FOUR, standings(bank={"capacity": 2}), balance_budget=budget, **PLAIN)
        assert "".join(name[0] for (name,) in found) == chosen

    @pytest.mark.parametrize(
        ("bank", "factor", "n_kept"),
        [
            ({"capacity": 4}, 1.0, 4),
            ({"capacity": 4, "queue": 1}, 1.0, 3),
            ({"capacity": 4, "queue": 1, "in_flight": 2}, 1.0, 1),
            ({"capacity": 4, "queue": 9}, 1.0, 0),
            ({"capacity": 2}, 1.25, 2),
            ({"capacity": 2}, 1.5, 3),
            ({"capacity": 0}, 2.0, 0),
        ],
    )
    def test_room_is_what_the_capacity_leaves(self, bank: dict[str, int], factor: float, n_kept: int) -> None:
        policy = {**PLAIN, "capacity_factor": factor}
        found = asked(FOUR, standings(bank=bank), balance_budget=1.0, **policy)
        assert found.count(["bank"]) == n_kept
        assert found.count(["code"]) == 4 - n_kept

    def test_where_nobody_has_room_nothing_moves(self) -> None:
        given = standings(bank={"capacity": 0}, code={"capacity": 0})
        assert asked(FOUR, given, balance_budget=1.0, **PLAIN) == [["bank"]] * 4

    def test_the_expert_that_gave_way_is_the_runner_up(self) -> None:
        found = decided(FOUR[:1], standings(bank={"capacity": 0}), balance_budget=1.0, **PLAIN)
        assert found[0].experts == (("code", 1.0),)
        assert found[0].explanation["otherwise"]["runner_up"] == "bank"
        assert found[0].explanation["otherwise"]["margin"] == -0.5

    @pytest.mark.parametrize("top_k", [1, 2])
    def test_no_query_moves_to_an_expert_that_is_not_available(self, top_k: int) -> None:
        given = standings(bank={"capacity": 2}, code={"available": False})
        policy = {**PLAIN, "top_k": top_k}
        assert asked(FOUR, given, balance_budget=1.0, **policy) == [["bank"]] * 4

    def test_a_tie_does_not_fill_an_expert_beyond_its_room(self) -> None:
        given = standings(bank={"priority": 0.1}, code={"priority": 0.9, "capacity": 1})
        policy = {**PLAIN, "tie_margin": 0.1}
        found = asked([[0.505, 0.495]] * 3, given, balance_budget=1.0, **policy)
        assert found.count(["code"]) == 1

    def test_a_query_may_move_to_any_expert(self) -> None:
        full = standings(bank={"capacity": 1}, code={"capacity": 0}, earth={"capacity": 0}, law={"capacity": 0})
        found = asked(
            [[0.3, 0.25, 0.2, 0.15, 0.1]] * 2, {**full, **standings(medicine={})}, balance_budget=1.0, **PLAIN
        )
        assert sorted(found) == [["bank"], ["medicine"]]


SHARE = [[0.5, 0.3125, 0.125, 0.0625]]


class TestRisk:
    @pytest.mark.parametrize(
        ("risk", "names"),
        [
            (1.0, ["bank"]),
            (0.51, ["bank"]),
            (0.5, ["bank"]),
            (0.3125, ["bank", "code"]),
            (0.1, ["bank", "code", "earth"]),
            (0.0, ["bank", "code", "earth", "law"]),
        ],
    )
    def test_every_expert_from_the_threshold_on_is_asked_and_at_least_the_best(
        self, risk: float, names: list[str]
    ) -> None:
        assert asked(SHARE, risk=risk, top_k=2, min_weight=1.0) == [names]

    def test_weights_are_the_scores_of_those_that_are_asked(self) -> None:
        (decision,) = decided(SHARE, risk=0.125)
        assert decision.experts == (("bank", 0.5333), ("code", 0.3333), ("earth", 0.1333))

    def test_the_explanation_says_what_was_promised(self) -> None:
        (decision,) = decided(SHARE, risk=0.12345678, max_misroute=0.05)
        assert decision.explanation["risk"] == {"max_misroute": 0.05, "asked_from": 0.1235}
        (decision,) = decided(SHARE)
        assert "risk" not in decision.explanation

    def test_a_busy_expert_is_asked_all_the_same_but_counts_for_less(self) -> None:
        given = standings(bank={"queue": 640})
        (decision,) = decided(SHARE, given, risk=0.3, balance_budget=0, tie_margin=0)
        assert decision.experts == (("code", 0.5556), ("bank", 0.4444))

    @pytest.mark.parametrize(("risk", "names"), [(0.3, ["code"]), (0.125, ["code", "earth"]), (0.5, ["code"])])
    def test_one_that_is_not_available_is_passed_over(self, risk: float, names: list[str]) -> None:
        given = standings(bank={"available": False})
        assert asked(SHARE, given, risk=risk) == [names]

    def test_where_none_is_available_the_threshold_counts_all_the_same(self) -> None:
        given = standings(**{name: {"available": False} for name in EXPERTS})
        assert asked(SHARE, given, risk=0.3) == [["bank", "code"]]

    def test_the_threshold_is_one_of_the_routers_shares_and_levels_change_only_the_order(self) -> None:
        """By levels, code has 0.48, law 0.33 and earth 0.19."""
        share = [[0.0, 0.3125, 0.25, 0.4375, 0.0]]
        assert asked(share, parents=TREE, risk=0.4) == [["law"]]
        assert asked(share, parents=TREE, risk=0.3) == [["code", "law"]]
        assert asked(share, parents=TREE, risk=0.5) == [["code"]]

    @pytest.mark.parametrize("n", [32, 60, 150])
    def test_the_weights_of_many_experts_are_still_shares(self, n: int) -> None:
        """A threshold of 0 asks everybody, which is what a small calibration set leads to."""
        names = [f"expert {number}" for number in range(n)]
        (decision,) = decide(names, ["q"], scores_of([[1 / n] * n]), {}, Policy(risk=0.0))
        validate(decision, names)


def test_ties_and_room_count_for_nothing_where_no_standing_is_known() -> None:
    given: dict[str, Standing] = {}
    assert asked([[0.5, 0.5]] * 3, given, top_k=1, tie_margin=1.0, balance_budget=1.0) == [["bank"]] * 3
