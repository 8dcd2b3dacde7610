"""From scores to decisions: top-k, weights, load, scope, and the words that explain them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.routing.base import Calibration, Neighbour, Scores
from experts.routing.decide import Decision, Load, Policy, decide, load_factor, shares
from tests.contracts.samples import LAW, hostile

EXPERTS = ("bank", "code", "earth", "law", "medicine")


def scores_of(
    gate: Sequence[Sequence[float]],
    own: Sequence[Sequence[float]] | None = None,
    *,
    coverage: float = 1.0,
    keywords: Mapping[str, Sequence[str]] | None = None,
    neighbours: Sequence[Neighbour] = (),
) -> Scores:
    """Scores as a router would give them; the experts' own assessment is the gate's where none is given."""
    gates = np.array(gate, np.float32)
    n = len(gates)
    return Scores(
        gates,
        np.array(gate if own is None else own, np.float32),
        np.full(n, coverage, np.float32),
        [keywords or {}] * n,
        [list(neighbours)] * n,
    )


def decide_one(
    scores: Scores, *, text: str = "why?", loads: Mapping[str, Load] | None = None, **policy: Any
) -> Decision:
    names = EXPERTS[: scores.gate.shape[1]]
    (decision,) = decide(names, [text], scores, loads or {}, Policy(**policy), Calibration())
    return decision


@st.composite
def random_scores(draw: st.DrawFn) -> Scores:
    """One to six queries over one to five experts, ties and zeros among them."""
    n, width = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    cell = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]) | st.floats(0, 1, width=32)
    raw = draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=n, max_size=n))
    gate = np.array(raw, np.float32) + 1e-3
    own = np.array(draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=n, max_size=n)), np.float32)
    gate /= gate.sum(axis=1, keepdims=True)
    coverage = np.array(draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)), np.float32)
    return Scores(gate, own, coverage, [{}] * n, [[]] * n)


LOADS = st.dictionaries(st.sampled_from(EXPERTS), st.builds(Load, st.integers(0, 2000), st.integers(1, 1000)))
POLICIES = st.builds(
    Policy,
    top_k=st.integers(1, 6),
    gate_weight=st.floats(0, 1),
    min_weight=st.floats(0, 1),
    in_scope_threshold=st.floats(0, 1),
    load_factor=st.booleans(),
    load_from=st.floats(0, 1),
    capacity_factor=st.floats(1, 3),
)


class TestLoadFactor:
    @pytest.mark.parametrize(
        ("in_flight", "expected"),
        [(0, 1), (400, 1), (800, 1), (850, 0.875), (900, 0.75), (950, 0.625), (1000, 0.5), (1001, 0.5), (10**9, 0.5)],
    )
    def test_it_is_one_up_to_a_share_of_the_capacity_and_a_half_at_full_capacity(
        self, in_flight: int, expected: float
    ) -> None:
        policy = Policy(load_from=0.8, capacity_factor=1.25)
        assert load_factor(Load(in_flight, 800), policy) == pytest.approx(expected, abs=1e-12)

    def test_the_capacity_factor_widens_what_an_expert_takes(self) -> None:
        assert load_factor(Load(150, 100), Policy(load_from=0.5, capacity_factor=1)) == 0.5
        assert load_factor(Load(150, 100), Policy(load_from=0.5, capacity_factor=2)) == 0.75

    def test_it_is_one_where_the_load_is_not_to_count(self) -> None:
        assert load_factor(Load(10**6, 1), Policy(load_factor=False)) == 1

    @pytest.mark.parametrize(("in_flight", "expected"), [(0, 1.0), (100, 1.0), (101, 0.5)])
    def test_it_drops_at_once_where_it_starts_at_full_capacity(self, in_flight: int, expected: float) -> None:
        assert load_factor(Load(in_flight, 100), Policy(load_from=1, capacity_factor=1)) == expected

    @LAW
    @given(policy=POLICIES, loads=st.lists(st.integers(0, 3000), min_size=2, max_size=20), most=st.integers(1, 1000))
    def test_more_load_never_raises_it_and_it_stays_between_a_half_and_one(
        self, policy: Policy, loads: list[int], most: int
    ) -> None:
        factors = [load_factor(Load(in_flight, most), policy) for in_flight in sorted(loads)]
        assert all(0.5 <= factor <= 1 for factor in factors)
        assert factors == sorted(factors, reverse=True)


class TestShares:
    def test_gate_and_own_assessment_are_mixed_after_the_latter_is_scaled_to_sum_one(self) -> None:
        mixed = shares(scores_of([[0.5, 0.5]], [[0.6, 0.2]]), 0.6)
        np.testing.assert_allclose(mixed, [[0.6 * 0.5 + 0.4 * 0.75, 0.6 * 0.5 + 0.4 * 0.25]], atol=1e-6)

    def test_where_no_expert_thinks_it_can_only_the_gate_counts(self) -> None:
        scores = scores_of([[0.7, 0.3], [0.2, 0.8]], [[0, 0], [1, 0]])
        np.testing.assert_allclose(shares(scores, 0.5), [[0.7, 0.3], [0.6, 0.4]], atol=1e-6)

    @LAW
    @given(scores=random_scores(), gate_weight=st.floats(0, 1))
    def test_rows_sum_to_one_and_the_scores_stay_as_they_were(self, scores: Scores, gate_weight: float) -> None:
        gate, own = scores.gate.copy(), scores.self_assessment.copy()
        np.testing.assert_allclose(shares(scores, gate_weight).sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(scores.gate, gate)
        np.testing.assert_array_equal(scores.self_assessment, own)


def reference(
    row: int, scores: Scores, loads: Mapping[str, Load], policy: Policy
) -> tuple[list[str], dict[str, float], dict[str, float]]:
    """Slow: names by final score (first named first among equals), those chosen and their weights, all final scores."""
    names = EXPERTS[: scores.gate.shape[1]]
    own_total = sum(map(float, scores.self_assessment[row]))
    final = {}
    for place, name in enumerate(names):
        gate = float(scores.gate[row, place])
        own = float(scores.self_assessment[row, place]) / own_total if own_total > 1e-9 else gate
        factor = load_factor(loads[name], policy) if name in loads else 1.0
        final[name] = (policy.gate_weight * gate + (1 - policy.gate_weight) * own) * factor
    ranked = sorted(names, key=lambda name: -final[name])
    top = ranked[: policy.top_k]
    total = sum(final[name] for name in top)
    kept = [name for name in top if final[name] >= policy.min_weight * total] or top[:1]
    kept_total = sum(final[name] for name in kept) or 1.0
    return ranked, {name: final[name] / kept_total for name in kept}, final


class TestDecide:
    @LAW
    @given(scores=random_scores(), loads=LOADS, policy=POLICIES)
    def test_the_chosen_are_the_highest_scores_and_their_weights_sum_to_one(
        self, scores: Scores, loads: dict[str, Load], policy: Policy
    ) -> None:
        names = EXPERTS[: scores.gate.shape[1]]
        decisions = decide(names, ["q"] * len(scores.gate), scores, loads, policy, Calibration())
        for row, decision in enumerate(decisions):
            _, expected, final = reference(row, scores, loads, policy)
            chosen = dict(decision.experts)
            weights = [weight for _, weight in decision.experts]
            assert len(chosen) == len(decision.experts) <= policy.top_k
            assert weights == sorted(weights, reverse=True)
            assert sum(weights) == pytest.approx(1, abs=0.5e-4 * len(weights) + 1e-9)
            best = sorted(final.values(), reverse=True)[: len(chosen)]
            assert sorted((final[name] for name in chosen), reverse=True) == pytest.approx(best, abs=1e-5)
            # At the edge of min_weight the last bit of a 32-bit number decides; away from it the sets are equal.
            total = sum(sorted(final.values(), reverse=True)[: policy.top_k])
            if all(abs(score - policy.min_weight * total) > 1e-5 for score in final.values()):
                assert len(chosen) == len(expected)
                assert sorted(weights) == pytest.approx(sorted(expected.values()), abs=1e-4)

    @LAW
    @given(scores=random_scores(), loads=LOADS, policy=POLICIES)
    def test_the_load_moves_neither_confidence_nor_coverage_nor_scope(
        self, scores: Scores, loads: dict[str, Load], policy: Policy
    ) -> None:
        names, texts = EXPERTS[: scores.gate.shape[1]], ["q"] * len(scores.gate)
        busy = decide(names, texts, scores, loads, policy, Calibration(2, 0.5))
        idle = decide(names, texts, scores, {}, policy, Calibration(2, 0.5))
        assert [(d.confidence, d.coverage, d.in_scope) for d in busy] == [
            (d.confidence, d.coverage, d.in_scope) for d in idle
        ]

    @LAW
    @given(scores=random_scores(), loads=LOADS, policy=POLICIES)
    def test_a_query_is_decided_on_without_looking_at_the_others(
        self, scores: Scores, loads: dict[str, Load], policy: Policy
    ) -> None:
        names = EXPERTS[: scores.gate.shape[1]]
        texts = [f"q {n}" for n in range(len(scores.gate))]
        together = decide(names, texts, scores, loads, policy, Calibration())
        for row, text in enumerate(texts):
            one = slice(row, row + 1)
            alone = Scores(scores.gate[one], scores.self_assessment[one], scores.coverage[one], [{}], [[]])
            assert decide(names, [text], alone, loads, policy, Calibration()) == [together[row]]

    def test_no_queries_get_no_decisions(self) -> None:
        empty = Scores(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32), [], [])
        assert decide(EXPERTS[:2], [], empty, {}, Policy(), Calibration()) == []

    def test_texts_that_do_not_match_the_scores_are_refused(self) -> None:
        with pytest.raises(ValueError):
            decide(EXPERTS[:2], ["one", "two"], scores_of([[0.5, 0.5]]), {}, Policy(), Calibration())

    def test_among_equals_the_first_named_comes_first(self) -> None:
        decision = decide_one(scores_of([[0.2] * 5]), top_k=3)
        assert [name for name, _ in decision.experts] == ["bank", "code", "earth"]

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
        assert decide_one(scores_of([[0.5, 0.3, 0.2]]), top_k=3, min_weight=min_weight).experts == expected

    @pytest.mark.parametrize(("top_k", "names"), [(1, ["bank"]), (2, ["bank", "code"]), (9, ["bank", "code", "earth"])])
    def test_at_most_k_experts_are_asked(self, top_k: int, names: list[str]) -> None:
        decision = decide_one(scores_of([[0.4, 0.35, 0.25]]), top_k=top_k)
        assert [name for name, _ in decision.experts] == names
        assert list(decision.explanation["scores"]) == names

    def test_a_busy_expert_gives_way_to_one_that_is_nearly_as_good(self) -> None:
        scores = scores_of([[0.55, 0.45]])
        assert decide_one(scores, top_k=1).experts == (("bank", 1.0),)
        busy = decide_one(scores, top_k=1, loads={"bank": Load(640, 512), "code": Load(0, 512)})
        assert busy.experts == (("code", 1.0),)
        assert busy.confidence == 0.55

    def test_confidence_is_the_calibrated_share_of_the_best(self) -> None:
        calibration = Calibration(1.5, -0.25)
        (decision,) = decide(EXPERTS[:2], ["q"], scores_of([[0.8, 0.2]]), {}, Policy(), calibration)
        assert decision.confidence == pytest.approx(float(calibration(np.array([0.8], np.float32))[0]), abs=5e-5)

    @pytest.mark.parametrize(("coverage", "in_scope"), [(0.0, False), (0.499, False), (0.5, True), (1.0, True)])
    def test_a_query_is_in_scope_from_the_threshold_on(self, coverage: float, in_scope: bool) -> None:
        decision = decide_one(scores_of([[1.0, 0.0]], coverage=coverage))
        assert decision.in_scope is in_scope
        assert decision.coverage == coverage
        assert decision.reason.startswith("No expert covers this well (coverage") is not in_scope

    def test_the_explanation_holds_scores_keywords_neighbours_and_analysis(self) -> None:
        near = Neighbour("bank", "what is a loan", 0.87654)
        scores = scores_of([[0.75, 0.25]], [[0.9, 0.1]], keywords={"bank": ("loan",)}, neighbours=[near])
        decision = decide_one(scores, text="Compare a loan", loads={"code": Load(10**6, 1)})
        assert decision.explanation == {
            "scores": {
                "bank": {"gate": 0.75, "self": 0.9, "load": 1.0, "final": 0.81},
                "code": {"gate": 0.25, "self": 0.1, "load": 0.5, "final": 0.095},
            },
            "keywords": {"bank": ["loan"]},
            "nearest": [{"expert": "bank", "text": "what is a loan", "cosine": 0.877}],
            "analysis": {
                "domain": "bank",
                "task": "analysis",
                "complexity": round((3 / 60 + 0 + 1 / 4) / 3, 3),
                "has_context": False,
                "has_code": False,
            },
        }
        assert decision.experts == (("bank", 1.0),)

    def test_the_reason_says_in_words_what_decided(self) -> None:
        near = [Neighbour("code", "another", 0.9), Neighbour("bank", "x" * 80, 0.5)]
        scores = scores_of([[0.6, 0.4]], keywords={"bank": ["a", "b", "c", "d"]}, neighbours=near)
        loads = {"bank": Load(576, 512), "code": Load(640, 512)}
        assert decide_one(scores, loads=loads).reason == (
            "bank scores highest (gate 0.60, own assessment 0.60); keywords a, b, c; "
            f"like its example “{'x' * 59}…” (0.50); although it is busy (load factor 0.75); code asked as well."
        )

    @hostile
    def test_a_hostile_text_changes_only_its_own_analysis(self, text: str) -> None:
        decision = decide_one(scores_of([[0.6, 0.4]]), text=text)
        assert decision.experts == (("bank", 0.6), ("code", 0.4))
        assert 0 <= decision.explanation["analysis"]["complexity"] <= 1
