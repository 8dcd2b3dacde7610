"""From scores to decisions: who is asked, with what weight, and what load and standing change about it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.routing.base import Scores
from experts.routing.decide import Policy, decide, factors, load_factor
from experts.routing.validation import validate
from experts.standing import Standing
from tests.contracts.samples import LAW, hostile
from tests.unit.experts.routing.deciding import EXPERTS, asked, decided, scores_of, standings, stands
from tests.unit.experts.routing.shown import floats


@st.composite
def random_scores(draw: st.DrawFn) -> Scores:
    """One to six queries over one to five experts, ties and zeros among them."""
    n, width = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    cell = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]) | st.floats(0, 1, width=32)
    share = floats(draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=n, max_size=n))) + 1e-3
    share /= share.sum(axis=1, keepdims=True)
    part = st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)
    return Scores(share, share, share, floats(draw(part)), floats(draw(part)), [{}] * n, [[]] * n)


STANDINGS = st.dictionaries(
    st.sampled_from(EXPERTS),
    st.builds(
        stands,
        available=st.booleans(),
        queue=st.integers(0, 1000),
        in_flight=st.integers(0, 1000),
        capacity=st.integers(0, 1000),
        priority=st.floats(0, 1),
    ),
)
SIMPLE: dict[str, Any] = {
    "top_k": st.integers(1, 6),
    "min_weight": st.floats(0, 1),
    "in_scope_threshold": st.floats(0, 1),
    "load_factor": st.booleans(),
    "load_from": st.floats(0, 1),
    "capacity_factor": st.floats(1, 3),
    "availability": st.booleans(),
}
# Neither ties nor room move anything.
PLAIN = st.builds(Policy, **SIMPLE, tie_margin=st.just(0.0), balance_budget=st.just(0.0))
POLICIES = st.builds(
    Policy,
    **SIMPLE,
    tie_margin=st.floats(0, 0.5),
    balance_budget=st.floats(0, 1),
    risk=st.none() | st.floats(0, 1),
    parents=st.dictionaries(st.sampled_from(EXPERTS), st.sampled_from([*EXPERTS, "elsewhere", None])),
)


class TestLoadFactor:
    @pytest.mark.parametrize(
        ("load", "expected"),
        [
            (0, 1),
            (400, 1),
            (750, 1),
            (800, 1),
            (850, 0.875),
            (900, 0.75),
            (950, 0.625),
            (1000, 0.5),
            (1001, 0.5),
            (10**9, 0.5),
        ],
    )
    def test_it_is_one_up_to_a_share_of_the_capacity_and_a_half_at_full_capacity(
        self, load: int, expected: float
    ) -> None:
        policy = Policy(load_from=0.8, capacity_factor=1.25)
        for queue, in_flight in ((load, 0), (0, load), (load - load // 3, load // 3)):
            standing = stands(queue=queue, in_flight=in_flight, capacity=800)
            assert load_factor(standing, policy) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            (Policy(load_from=0.5, capacity_factor=1), 0.5),
            (Policy(load_from=0.5, capacity_factor=2), 0.75),
            (Policy(load_from=1, capacity_factor=1.5), 1),
            (Policy(load_from=1, capacity_factor=1), 0.5),
            (Policy(load_factor=False), 1),
        ],
    )
    def test_the_policy_says_how_much_is_too_much(self, policy: Policy, expected: float) -> None:
        assert load_factor(stands(queue=100, in_flight=50, capacity=100), policy) == expected

    def test_it_is_one_for_an_expert_whose_capacity_is_not_known(self) -> None:
        assert load_factor(stands(queue=10**6, capacity=0), Policy()) == 1


class TestFactors:
    GIVEN = standings(bank={"available": False}, code={"queue": 10**6, "capacity": 1})

    def test_one_that_is_not_available_gets_nothing_and_one_nobody_knows_of_counts_in_full(self) -> None:
        assert factors(EXPERTS[:3], self.GIVEN, Policy()) == [0, 0.5, 1]

    def test_where_none_is_available_only_the_load_counts(self) -> None:
        given = standings(bank={"available": False}, code={"available": False, "queue": 10**6, "capacity": 1})
        assert factors(EXPERTS[:2], given, Policy()) == [1, 0.5]
        assert factors(EXPERTS[:3], given, Policy()) == [0, 0, 1]

    def test_availability_may_be_left_out_of_account(self) -> None:
        assert factors(EXPERTS[:3], self.GIVEN, Policy(availability=False)) == [1, 0.5, 1]

    def test_experts_the_router_does_not_know_change_nothing(self) -> None:
        given = standings(bank={"available": False}, stranger={"available": True})
        assert factors(["bank"], given, Policy()) == [1]


class TestDecide:
    @LAW
    @given(scores=random_scores(), given_=STANDINGS, policy=PLAIN)
    def test_the_chosen_are_the_highest_scores(
        self, scores: Scores, given_: dict[str, Standing], policy: Policy
    ) -> None:
        names = EXPERTS[: scores.share.shape[1]]
        by_load = factors(names, given_, policy)
        for row, decision in enumerate(decide(names, ["q"] * len(scores.share), scores, given_, policy)):
            final = {name: float(scores.share[row, at]) * by_load[at] for at, name in enumerate(names)}
            chosen = dict(decision.experts)
            assert 1 <= len(chosen) == len(decision.experts) <= policy.top_k
            weights = [weight for _, weight in decision.experts]
            assert weights == sorted(weights, reverse=True)
            best = sorted(final.values(), reverse=True)[: policy.top_k]
            assert sorted((final[name] for name in chosen), reverse=True) == pytest.approx(
                best[: len(chosen)], abs=1e-5
            )
            # At the edge of min_weight the last bit of a 32-bit number decides; away from it the sets are equal.
            least = policy.min_weight * sum(best)
            if all(abs(score - least) > 1e-5 for score in best):
                kept = [score for score in best if score >= least and score > 0] or best[:1]
                assert weights == pytest.approx([score / sum(kept) for score in kept], abs=1e-4)

    @LAW
    @given(scores=random_scores(), given_=STANDINGS, policy=POLICIES)
    def test_whatever_the_policy_a_decision_is_valid_and_standing_moves_only_the_choice(
        self, scores: Scores, given_: dict[str, Standing], policy: Policy
    ) -> None:
        names, texts = EXPERTS[: scores.share.shape[1]], ["q"] * len(scores.share)
        found = decide(names, texts, scores, given_, policy)
        idle = decide(names, texts, scores, {}, policy)
        for row, (decision, other) in enumerate(zip(found, idle, strict=True)):
            validate(decision, names)
            coverage = float(scores.coverage[row])
            assert decision.confidence == other.confidence == round(float(scores.confidence[row]), 4)
            assert decision.coverage == other.coverage == round(coverage, 4)
            assert decision.in_scope is other.in_scope is (coverage >= policy.in_scope_threshold)

    @LAW
    @given(scores=random_scores(), given_=STANDINGS, policy=st.builds(Policy, **SIMPLE, balance_budget=st.just(0.0)))
    def test_but_for_balancing_a_query_is_decided_on_without_looking_at_the_others(
        self, scores: Scores, given_: dict[str, Standing], policy: Policy
    ) -> None:
        names, texts = EXPERTS[: scores.share.shape[1]], [f"q {n}" for n in range(len(scores.share))]
        together = decide(names, texts, scores, given_, policy)
        for row, text in enumerate(texts):
            one = slice(row, row + 1)
            share, confidence, coverage = scores.share[one], scores.confidence[one], scores.coverage[one]
            alone = Scores(share, share, share, confidence, coverage, [{}], [[]])
            assert decide(names, [text], alone, given_, policy) == [together[row]]

    def test_no_queries_get_no_decisions(self) -> None:
        nothing = np.zeros((0, 2), np.float32)
        empty = Scores(nothing, nothing, nothing, nothing[:, 0], nothing[:, 0], [], [])
        assert decide(EXPERTS[:2], [], empty, standings(bank={"capacity": 1}), Policy(parents={"code": "bank"})) == []

    @pytest.mark.parametrize("texts", [["one"], ["one", "two", "three"]])
    def test_texts_that_do_not_match_the_scores_are_refused(self, texts: list[str]) -> None:
        with pytest.raises(ValueError, match=r"shorter|longer"):
            decide(EXPERTS[:2], texts, scores_of([[0.5, 0.5]] * 2), {}, Policy())

    @pytest.mark.parametrize("policy", [{}, {"top_k": 5}, {"risk": 0.0}, {"risk": 1.0}, {"parents": {"bank": "bank"}}])
    def test_the_only_expert_is_asked_whatever_happens(self, policy: dict[str, Any]) -> None:
        given = standings(bank={"available": False, "queue": 9, "capacity": 0})
        (decision,) = decided([[1.0]], given, **policy)
        assert decision.experts == (("bank", 1.0),)
        assert list(decision.explanation["scores"]) == ["bank"]
        assert "runner_up" not in decision.explanation["otherwise"]

    def test_among_equals_the_first_named_comes_first(self) -> None:
        assert asked([[0.2] * 5], top_k=3) == [["bank", "code", "earth"]]

    @pytest.mark.parametrize(
        ("min_weight", "expected"),
        [
            (0.0, (("bank", 0.5), ("code", 0.3), ("earth", 0.2))),
            (0.19, (("bank", 0.5), ("code", 0.3), ("earth", 0.2))),
            (0.21, (("bank", 0.625), ("code", 0.375))),
            (0.31, (("bank", 1.0),)),
            (1.0, (("bank", 1.0),)),
        ],
    )
    def test_experts_below_the_least_weight_are_not_asked_and_the_rest_share_their_part(
        self, min_weight: float, expected: tuple[tuple[str, float], ...]
    ) -> None:
        (decision,) = decided([[0.5, 0.3, 0.2]], top_k=3, min_weight=min_weight)
        assert decision.experts == expected

    @pytest.mark.parametrize(("top_k", "names"), [(1, ["bank"]), (2, ["bank", "code"]), (9, ["bank", "code", "earth"])])
    def test_at_most_k_experts_are_asked_and_the_next_is_shown(self, top_k: int, names: list[str]) -> None:
        (decision,) = decided([[0.4, 0.35, 0.25]], top_k=top_k)
        assert [name for name, _ in decision.experts] == names
        assert list(decision.explanation["scores"]) == list(EXPERTS[: min(top_k + 1, 3)])

    def test_a_busy_expert_gives_way_to_one_that_is_nearly_as_good(self) -> None:
        given = standings(bank={"queue": 600, "in_flight": 40})
        assert asked([[0.55, 0.45]], given, top_k=1, balance_budget=0) == [["code"]]
        assert asked([[0.7, 0.3]], given, top_k=1, balance_budget=0) == [["bank"]]

    def test_one_that_is_not_available_is_passed_over(self) -> None:
        given = standings(bank={"available": False})
        (decision,) = decided([[0.9, 0.06, 0.04]], given, top_k=3, min_weight=0)
        assert decision.experts == (("code", 0.6), ("earth", 0.4))
        assert "bank, which fits better, is not available" in decision.reason

    def test_where_none_is_available_the_best_are_asked_all_the_same(self) -> None:
        given = standings(bank={"available": False}, code={"available": False})
        (decision,) = decided([[0.25, 0.75]], given)
        assert decision.experts == (("code", 0.75), ("bank", 0.25))
        assert decision.explanation["scores"]["code"]["unavailable"] == ["errors 50 %, over 20 %"]

    @pytest.mark.parametrize(("coverage", "in_scope"), [(0.0, False), (0.499, False), (0.5, True), (1.0, True)])
    def test_a_query_is_in_scope_from_the_threshold_on(self, coverage: float, in_scope: bool) -> None:
        (decision,) = decide(EXPERTS[:2], ["q"], scores_of([[1.0, 0.0]], coverage=coverage), {}, Policy())
        assert (decision.coverage, decision.in_scope) == (coverage, in_scope)
        assert decision.reason.startswith("No expert covers this well (coverage") is not in_scope

    @hostile
    def test_a_hostile_text_changes_only_its_own_analysis(self, text: str) -> None:
        (decision,) = decide(EXPERTS[:2], [text], scores_of([[0.6, 0.4]]), {}, Policy())
        assert decision.experts == (("bank", 0.6), ("code", 0.4))
        assert 0 <= decision.explanation["analysis"]["complexity"] <= 1
