"""What a router does with labelled queries, as numbers that can be worked out by hand."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from experts.encoders.base import of_vectors
from experts.evaluation.metrics import expected_calibration_error, interval
from experts.evaluation.routing import Outcome, details, outcome, outside_summary, summary
from experts.routing.base import OUTSIDE, Examples
from experts.routing.router import RouterModel
from experts.routing.training import train_router
from tests.contracts import clusters

LABELS = ("bank", "code", "earth")


def found(
    owner: Sequence[int],
    chosen: Sequence[int],
    *,
    confidence: Sequence[float] | None = None,
    coverage: Sequence[float] | None = None,
    n_labels: int = 3,
) -> Outcome:
    """What a router said that gives 0.5 to its choice."""
    n = len(owner)
    share = np.full((n, n_labels), 0.5 / max(n_labels - 1, 1), np.float32)
    share[np.arange(n), np.array(chosen, int)] = 0.5 if n_labels > 1 else 1
    return Outcome(
        np.array(owner, np.int64),
        share,
        np.array([0.5] * n if confidence is None else confidence, np.float32),
        np.array([0.5] * n if coverage is None else coverage, np.float32),
    )


# Of bank two of three are right, of code one of two; the one of earth is taken for bank; two lie outside.
MIXED = found(
    owner=[0, 0, 0, 1, 1, 2, OUTSIDE, OUTSIDE],
    chosen=[0, 0, 1, 1, 0, 0, 2, 0],
    confidence=[0.915, 0.915, 0.315, 0.915, 0.315, 0.315, 0.915, 0.915],
    coverage=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.46, 0.11],
)
NOBODY = found([], [])
OUTSIDERS = found([OUTSIDE, OUTSIDE], [0, 1], coverage=[0.25, 0.5])
TEXTS = [f"q {n}" for n in range(8)]


class TestOutcome:
    def test_it_says_who_is_inside_what_was_chosen_and_what_was_right(self) -> None:
        assert MIXED.inside.tolist() == [True] * 6 + [False] * 2
        assert MIXED.chosen.tolist() == [0, 0, 1, 1, 0, 0, 2, 0]
        assert MIXED.right.tolist() == [True, True, False, True, False, False]

    def test_among_equals_the_first_is_chosen(self) -> None:
        share = np.full((1, 3), 1 / 3, np.float32)
        assert Outcome(np.array([0]), share, share[:, 0], share[:, 0]).chosen.tolist() == [0]

    def test_of_no_queries_nothing_is_right(self) -> None:
        assert (NOBODY.inside.tolist(), NOBODY.chosen.tolist(), NOBODY.right.tolist()) == ([], [], [])


@pytest.fixture(scope="module")
def router() -> RouterModel:
    return train_router("centroid", clusters.training_set(clusters.draw(12, seed=1)))


class TestScoring:
    @pytest.mark.parametrize("n", [1, 255, 257])
    def test_blocks_are_put_together_in_order(self, router: RouterModel, n: int) -> None:
        """Four queries for each of n; 1,028 are more than one block of 1,024."""
        examples = clusters.draw(n, seed=2)
        scored = outcome(router, examples)
        scores = router.score(examples.texts, examples.embedded)
        np.testing.assert_array_equal(scored.owner, examples.owner)
        np.testing.assert_allclose(scored.share, scores.share, atol=1e-5)
        np.testing.assert_allclose(scored.confidence, scores.confidence, atol=1e-5)
        np.testing.assert_allclose(scored.coverage, scores.coverage, atol=1e-5)

    def test_no_queries_have_an_outcome_of_the_right_shape(self, router: RouterModel) -> None:
        scored = outcome(router, clusters.draw(0, seed=2))
        assert (scored.share.shape, scored.confidence.shape, scored.coverage.shape) == ((0, 4), (0,), (0,))
        assert summary(scored)["accuracy"] is None

    def test_a_router_that_reads_words_needs_no_vectors(self) -> None:
        router = train_router("heuristic", clusters.training_set(clusters.draw(12, seed=1)))
        examples = Examples(["west", "east", "nothing"], np.array([3, 1, OUTSIDE]), None)
        assert outcome(router, examples).chosen.tolist() == [3, 1, 0]

    def test_vectors_of_another_encoder_are_refused(self, router: RouterModel) -> None:
        examples = Examples(["one"], np.array([0]), of_vectors(np.ones((1, 3), np.float32)))
        with pytest.raises(Exception, match="needs vectors of 16 numbers"):
            outcome(router, examples)


class TestSummary:
    def test_every_figure_is_that_of_the_queries_it_is_about(self) -> None:
        confidence = np.array([0.915, 0.915, 0.315, 0.915, 0.315, 0.315], np.float32)
        right = np.array([1, 1, 0, 1, 0, 0], bool)
        low, high = interval(right)
        # Precision and recall of bank are 2/4 and 2/3, of code 1/2 and 1/2, and earth is never chosen where it is due.
        assert summary(MIXED) == {
            "n": 6,
            "accuracy": 0.5,
            "macro_f1": round((4 / 7 + 1 / 2 + 0) / 3, 4),
            "ece": round(expected_calibration_error(confidence, right), 4),
            "ci": [round(low, 4), round(high, 4)],
            "n_outside": 2,
            "oos_auroc": round((6 + 5) / 12, 4),
            "oos_fpr95": 0.5,
        }
        assert summary(MIXED)["ece"] == pytest.approx(0.5 * 0.085 + 0.5 * 0.315, abs=1e-4)

    def test_labels_that_nobody_asked_for_do_not_count(self) -> None:
        assert summary(found([0, 0], [0, 0]))["macro_f1"] == 1
        assert summary(found([0, 0], [0, 2]))["macro_f1"] == round(2 / 3, 4)

    def test_what_is_said_of_queries_outside_does_not_count(self) -> None:
        alone = summary(found([0, 1], [0, 0], confidence=[0.25, 0.5]))
        beside = summary(found([OUTSIDE, 0, OUTSIDE, 1], [0, 0, 1, 0], confidence=[0.75, 0.25, 1, 0.5]))
        for name in ("n", "accuracy", "macro_f1", "ece", "ci"):
            assert alone[name] == beside[name]

    def test_of_no_queries_there_is_nothing_to_say(self) -> None:
        nothing = {"n": 0, "accuracy": None, "macro_f1": None, "ece": None, "ci": None}
        assert summary(NOBODY) == nothing | {"n_outside": 0, "oos_auroc": None, "oos_fpr95": None}
        assert summary(OUTSIDERS) == nothing | {"n_outside": 2, "oos_auroc": None, "oos_fpr95": None}

    def test_the_only_expert_is_always_right(self) -> None:
        one = summary(found([0, 0], [0, 0], confidence=[1, 1], n_labels=1))
        assert (one["accuracy"], one["macro_f1"], one["ece"], one["ci"]) == (1, 1, 0, [1, 1])


class TestOutsideSummary:
    @pytest.mark.parametrize(
        ("inside", "outside", "auroc", "fpr95"),
        [
            ([0.9, 0.8], [0.1, 0.2], 1.0, 0.0),
            ([0.1, 0.2], [0.9, 0.8], 0.0, 1.0),
            ([0.5, 0.5], [0.5, 0.5], 0.5, 1.0),
            ([0.9, 0.6], [0.7, 0.1], 0.75, 0.5),
            ([0.9, 0.6, 0.6], [0.7, 0.7, 0.7], 0.3333, 1.0),
        ],
    )
    def test_coverage_tells_them_apart_as_far_as_it_does(
        self, inside: list[float], outside: list[float], auroc: float, fpr95: float
    ) -> None:
        owner = [0] * len(inside) + [OUTSIDE] * len(outside)
        given = found(owner, [0] * len(owner), coverage=[*inside, *outside])
        assert outside_summary(given) == {"n_outside": len(outside), "oos_auroc": auroc, "oos_fpr95": fpr95}

    def test_without_one_or_the_other_it_cannot_be_measured(self) -> None:
        assert outside_summary(found([0], [0])) == {"n_outside": 0, "oos_auroc": None, "oos_fpr95": None}
        assert outside_summary(OUTSIDERS) == {"n_outside": 2, "oos_auroc": None, "oos_fpr95": None}


class TestDetails:
    def test_labels_and_confusions_are_those_of_the_queries_inside(self) -> None:
        given = details(MIXED, TEXTS, LABELS)
        assert given["per_label"] == {
            "bank": {"n": 3, "precision": 0.5, "recall": 0.6667, "f1": 0.5714},
            "code": {"n": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5},
            "earth": {"n": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        }
        assert given["confusion"] == {"labels": list(LABELS), "matrix": [[2, 1, 0], [1, 1, 0], [1, 0, 0]]}
        assert given["confused"] == [
            {"true": "bank", "chosen": "code", "n": 1, "examples": ["q 2"]},
            {"true": "code", "chosen": "bank", "n": 1, "examples": ["q 4"]},
            {"true": "earth", "chosen": "bank", "n": 1, "examples": ["q 5"]},
        ]

    def test_the_pairs_confused_most_come_first_with_three_examples_cut_short(self) -> None:
        owner, chosen = [0, 1, 1, 1, 1, 2, 2], [1, 2, 2, 2, 2, 0, 0]
        texts = ["a", "x" * 400, "c", "d", "e", "f", "g"]
        confused = details(found(owner, chosen), texts, LABELS)["confused"]
        assert [(pair["true"], pair["chosen"], pair["n"]) for pair in confused] == [
            ("code", "earth", 4),
            ("earth", "bank", 2),
            ("bank", "code", 1),
        ]
        assert confused[0]["examples"] == ["x" * 300, "c", "d"]
        assert confused[1]["examples"] == ["f", "g"]

    def test_no_more_than_twenty_pairs_are_named(self) -> None:
        labels = [f"label {n}" for n in range(30)]
        pairs = details(found(range(30), [*range(1, 30), 0], n_labels=30), labels, labels)["confused"]
        assert [pair["true"] for pair in pairs] == labels[:20]

    def test_texts_of_queries_outside_are_not_taken_for_others(self) -> None:
        owner, chosen = [OUTSIDE, 0, OUTSIDE, 0], [1, 0, 1, 1]
        (pair,) = details(found(owner, chosen), ["a", "b", "c", "d"], LABELS)["confused"]
        assert pair == {"true": "bank", "chosen": "code", "n": 1, "examples": ["d"]}

    def test_the_threshold_curve_ends_where_nobody_is_answered(self) -> None:
        curve = details(MIXED, TEXTS, LABELS)["threshold_curve"]
        at = {point["threshold"]: (point["answered"], point["accuracy"]) for point in curve}
        assert [point["threshold"] for point in curve] == [round(n / 100, 4) for n in range(92)]
        assert (at[0.0], at[0.31], at[0.32], at[0.91]) == ((1, 0.5), (1, 0.5), (0.5, 1), (0.5, 1))

    def test_the_coverage_curve_weighs_what_is_kept_against_what_is_caught(self) -> None:
        curve = details(MIXED, TEXTS, LABELS)["coverage_curve"]
        at = {point["threshold"]: (point["inside_kept"], point["outside_caught"]) for point in curve}
        assert len(curve) == 101
        assert (at[0.0], at[0.3], at[0.42], at[0.47]) == ((1, 0), (1, 0.5), (0.8333, 0.5), (0.8333, 1))
        assert at[1.0] == (0, 1)

    def test_a_score_at_the_threshold_is_enough(self) -> None:
        given = details(found([0, OUTSIDE], [0, 0], confidence=[0, 0], coverage=[0.5, 0.5]), ["a", "b"], LABELS)
        assert given["threshold_curve"] == [{"threshold": 0, "answered": 1, "accuracy": 1}]
        assert given["coverage_curve"][50] == {"threshold": 0.5, "inside_kept": 1, "outside_caught": 0}
        assert given["coverage_curve"][51] == {"threshold": 0.51, "inside_kept": 0, "outside_caught": 1}

    def test_the_reliability_bins_hold_every_query_inside(self) -> None:
        bins = details(MIXED, TEXTS, LABELS)["reliability"]
        assert [(b["n"], b["accuracy"]) for b in bins] == [(3, 0.0), (3, 1.0)]
        assert [b["confidence"] for b in bins] == [pytest.approx(0.315), pytest.approx(0.915)]
        assert [(b["from"], b["to"]) for b in bins] == [(4 / 15, 5 / 15), (13 / 15, 14 / 15)]

    def test_the_histograms_have_forty_bins_and_count_everybody_once(self) -> None:
        given = details(MIXED, TEXTS, LABELS)
        confidence, coverage = given["confidence_histogram"], given["coverage_histogram"]
        assert confidence["edges"] == coverage["edges"] == [round(n / 40, 4) for n in range(41)]
        assert [place for place, n in enumerate(confidence["right"]) if n == 3] == [36]
        assert [place for place, n in enumerate(confidence["wrong"]) if n == 3] == [12]
        assert (sum(confidence["right"]), sum(confidence["wrong"])) == (3, 3)
        assert (sum(coverage["inside"]), sum(coverage["outside"])) == (6, 2)
        assert [place for place, n in enumerate(coverage["outside"]) if n] == [4, 18]

    def test_a_confidence_of_one_is_in_the_last_bin(self) -> None:
        given = details(found([0], [0], confidence=[1.0], coverage=[1.0]), ["a"], LABELS)
        assert given["confidence_histogram"]["right"][-1] == given["coverage_histogram"]["inside"][-1] == 1
        assert len(given["threshold_curve"]) == 100

    @pytest.mark.parametrize(("given", "n"), [(NOBODY, 0), (OUTSIDERS, 2)])
    def test_where_nobody_is_inside_there_is_nothing_to_draw(self, given: Outcome, n: int) -> None:
        empty = details(given, TEXTS[:n], LABELS)
        assert empty["per_label"]["code"] == {"n": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
        assert empty["confusion"]["matrix"] == [[0] * 3] * 3
        for name in ("confused", "reliability", "threshold_curve", "coverage_curve"):
            assert empty[name] == []
        assert sum(empty["coverage_histogram"]["outside"]) == n

    @pytest.mark.parametrize("given", [MIXED, NOBODY, OUTSIDERS])
    def test_everything_is_plain_data(self, given: Outcome) -> None:
        whole = {**summary(given), **details(given, TEXTS[: len(given.owner)], LABELS)}
        assert json.loads(json.dumps(whole, allow_nan=False)) == whole
