"""A router's parts coming together, on one made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from experts.encoders.base import Embedded, of_vectors
from experts.errors import ModelUnusable, UnknownKind
from experts.routing.base import Floats, Neighbour, Places
from experts.routing.calibration import Calibration, Conformal
from experts.routing.familiarity import Familiarity
from experts.routing.judging import Logistic
from experts.routing.known import Known
from experts.routing.router import Distances, RouterModel, distances, shares
from tests.contracts.samples import LAW
from tests.unit.experts.routing.builders import floats, known, looking_at, router

NUMBERS = st.floats(-2, 2, width=32)
ROOT = 0.5**0.5
TEXTS = ["my loan", "why"]
ASKED = np.array([[1, 0, 0], [0, 0.6, 0.8]], np.float32)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def calibrated(**changed: Logistic | Conformal | float) -> Calibration:
    return replace(router().calibration, **changed)  # type: ignore[arg-type]


class TestDistances:
    @LAW
    @given(
        vectors=arrays(np.float32, (2, 3), elements=NUMBERS),
        means=arrays(np.float32, (4, 3), elements=NUMBERS),
        roots=arrays(np.float32, (2, 3, 3), elements=NUMBERS),
        but=st.lists(st.integers(0, 3), min_size=2, max_size=2) | st.none(),
    )
    def test_they_are_those_to_the_nearest_mean_less_those_to_the_mean_of_all(
        self, vectors: Floats, means: Floats, roots: Floats, but: list[int] | None
    ) -> None:
        within, overall = (root @ root.T + np.eye(3, dtype=np.float32) for root in roots)
        centre = means[0] / 2
        found = Distances(means, centre, within, overall)(vectors, but=None if but is None else np.array(but))
        for row, vector in enumerate(vectors.astype(np.float64)):
            to_means = [
                float((vector - mean) @ within @ (vector - mean))
                for place, mean in enumerate(means)
                if but is None or place != but[row]
            ]
            expected = (min(to_means) - float((vector - centre) @ overall @ (vector - centre))) / 100
            assert found[row] == pytest.approx(expected, abs=1e-4)
        assert found.dtype == np.float32

    def test_an_experts_own_mean_is_nearer_than_the_mean_of_all(self) -> None:
        vectors = np.array([[1, 0.1], [1, -0.1], [-1, 0.1], [-1, -0.1]], np.float32)
        measured = distances(known(vectors=vectors, owner=np.array([0, 0, 1, 1])))
        at_means = measured(np.array([[1, 0], [-1, 0]], np.float32))
        between = measured(np.zeros((1, 2), np.float32))
        assert (at_means < 0).all()
        assert between[0] > 0

    def test_they_are_measured_by_shrunk_covariances(self) -> None:
        """Around its mean each varies by 0.04 and 0.01; shrunk by 0.3 towards the mean variance of 0.025."""
        vectors = np.array([[1.2, 0.1], [0.8, -0.1], [-0.8, 0.1], [-1.2, -0.1]], np.float32)
        measured = distances(known(vectors=vectors, owner=np.array([0, 0, 1, 1])))
        np.testing.assert_allclose(measured.means, [[1, 0], [-1, 0]], atol=1e-6)
        np.testing.assert_allclose(measured.centre, [0, 0], atol=1e-6)
        within = np.linalg.inv(0.7 * np.array([[0.04, 0.02], [0.02, 0.01]]) + 0.3 * 0.025 * np.eye(2))
        overall = np.linalg.inv(0.7 * np.array([[1.04, 0.02], [0.02, 0.01]]) + 0.3 * 0.525 * np.eye(2))
        np.testing.assert_allclose(measured.within, within, rtol=1e-4)
        np.testing.assert_allclose(measured.overall, overall, rtol=1e-4)

    def test_without_vectors_everything_is_equally_far(self) -> None:
        empty = distances(known(vectors=np.zeros((3, 0), np.float32)))
        np.testing.assert_array_equal(empty(np.zeros((2, 0), np.float32)), [0, 0])
        assert router().distances(np.zeros((0, 3), np.float32)).shape == (0,)


class TestShares:
    def test_they_are_the_gate_and_the_experts_own_word_by_weight(self) -> None:
        gate = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
        own = np.array([[0.75, 0.25], [0.5, 0.5]], np.float32)
        np.testing.assert_allclose(shares(gate, own, 0.75), [[0.5625, 0.4375], [0.3125, 0.6875]])
        np.testing.assert_array_equal(shares(gate, own, 1.0), gate)
        np.testing.assert_array_equal(shares(gate, own, 0.0), own)

    def test_own_words_count_relative_to_each_other(self) -> None:
        gate = np.full((1, 2), 0.5, np.float32)
        np.testing.assert_allclose(shares(gate, floats(0.002, 0.006)[None], 0.0), [[0.25, 0.75]], rtol=1e-5)

    def test_where_no_expert_says_a_word_the_gate_decides_alone(self) -> None:
        gate = np.array([[0.25, 0.75]], np.float32)
        np.testing.assert_array_equal(shares(gate, np.zeros((1, 2), np.float32), 0.25), gate)
        np.testing.assert_array_equal(gate, [[0.25, 0.75]])

    @LAW
    @given(
        gate=arrays(np.float32, (3, 4), elements=st.floats(0.0078125, 1, width=32)),
        own=arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)),
        weight=st.floats(0, 1),
    )
    def test_rows_sum_to_one(self, gate: Floats, own: Floats, weight: float) -> None:
        gate = gate / gate.sum(axis=1, keepdims=True)
        found = shares(gate, own, weight)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        assert (found >= 0).all()


class TestScore:
    def test_gate_own_word_and_share_come_together(self) -> None:
        scores = router().score(TEXTS, of_vectors(ASKED))
        gate = [sigmoid(5), sigmoid(-5 * 1.4 * ROOT)]
        np.testing.assert_allclose(scores.gate, [[g, 1 - g] for g in gate], atol=1e-6)
        own = [[sigmoid(1), 0.5], [0.5, sigmoid(0.8)]]
        np.testing.assert_allclose(scores.self_assessment, own, atol=1e-6)
        share = [0.6 * g + 0.4 * a / (a + b) for g, (a, b) in zip(gate, own, strict=True)]
        np.testing.assert_allclose(scores.share, [[s, 1 - s] for s in share], atol=1e-6)
        keyword = {"bank": ["loan"]}
        assert scores.keywords == [keyword, {}]

    @pytest.mark.parametrize(
        ("feature", "expected"),
        list(
            enumerate(
                [
                    (1, 0.8),  # nearest exemplar
                    (1 / 3, 1.4 / 3),  # mean of all three
                    (1 / 3, 1.4 / 3),
                    (1, 0.6),  # familiar: of the own exemplars only
                    (1, 1.4 * ROOT),  # nearest centroid
                    (0, 100 * ((0.6 - 0.5) ** 2 + (0.8 - 0.5) ** 2) / 100),  # distance, in hundreds
                    (math.log(sigmoid(5)), math.log(sigmoid(7 * ROOT))),  # certainty
                    (-1, 0.2),  # the one outside beyond the nearest
                    (-1 / 3, 1 - 1.4 / 3),
                    (0.6 - 1, -0.64 - 0.8),  # the one of the world beyond the nearest
                    (0.6 - 1 / 3, -0.64 - 1.4 / 3),
                    (0.8, 0.36),  # library
                    (1 - math.exp(-1), 0),  # keywords
                ]
            )
        ),
    )
    def test_coverage_is_judged_by_each_of_its_features(self, feature: int, expected: tuple[float, float]) -> None:
        judged = router(calibration=calibrated(coverage=looking_at(feature, 13)))
        found = judged.score(TEXTS, of_vectors(ASKED)).coverage
        np.testing.assert_allclose(found, [sigmoid(x) for x in expected], atol=1e-6)

    @pytest.mark.parametrize("feature", range(4))
    def test_confidence_is_judged_by_each_of_its_features(self, feature: int) -> None:
        judged = router(calibration=calibrated(confidence=looking_at(feature, 4)))
        scores = judged.score(TEXTS, of_vectors(ASKED))
        best, second = scores.share.max(axis=1), scores.share.min(axis=1)
        expected = [np.log(best / second), np.log(best / second), np.array([1, 0.6]), np.array([1, 1])][feature]
        np.testing.assert_allclose(scores.confidence, [sigmoid(x) for x in expected], atol=1e-6)

    def test_risk_is_read_from_the_calibration(self) -> None:
        assert [router().risk(limit) for limit in (0.2, 0.25, 0.5, 0.75)] == [0, 0.25, 0.5, 0.75]

    def test_agreement_falls_by_a_quarter_for_each_part_that_names_another(self) -> None:
        """The text holds a bank's keyword, the vector lies with code; the experts' own judge looks at keywords."""
        model = router(own=looking_at(5, 6))
        queries = model.queries(["loan"], of_vectors(ASKED[1:]))
        scores = model.score(["loan"], of_vectors(ASKED[1:]))
        assert scores.share.argmax() == 1
        np.testing.assert_array_equal(
            model.agreement(scores.share, scores.gate, scores.self_assessment, queries), [0.75]
        )
        against = scores.share[:, ::-1]
        np.testing.assert_array_equal(model.agreement(against, scores.gate, scores.self_assessment, queries), [0.25])


class TestNeighbours:
    def found(self, model: RouterModel, vector: Floats) -> list[Neighbour]:
        (neighbours,) = model.score(["q"], of_vectors(vector[None])).neighbours
        return list(neighbours)

    def test_own_exemplars_and_those_outside_are_shown_together_best_first(self) -> None:
        found = self.found(router(), ASKED[1])
        assert [(near.expert, near.text) for near in found] == [
            (None, "a cake"),
            ("code", "a pointer"),
            ("bank", "a loan"),
        ]
        assert [near.cosine for near in found] == pytest.approx([1, 0.6, 0], abs=1e-6)
        assert all(type(near.cosine) is float for near in found)

    def test_three_are_shown_and_no_more(self) -> None:
        model = router(known=known(outside=np.eye(3, dtype=np.float32), outside_texts=["x", "y", "z"]))
        assert [near.text for near in self.found(model, floats(0.1, 0.2, 0.97))] == ["z", "a pointer", "y"]

    def test_without_queries_outside_only_exemplars_are_shown(self) -> None:
        model = router(known=known(outside=np.zeros((0, 3), np.float32), outside_texts=[]))
        assert [near.text for near in self.found(model, ASKED[0])] == ["a loan", "a pointer"]


class TestQueries:
    def test_they_are_what_the_encoder_says_centred_and_searched(self) -> None:
        model = router(known=known(centre=floats(0, 0.5, 0)[None]))
        found = model.queries(["q"], Embedded(floats(0, 1, 0)[None], floats(0, 0.5, 2)[None, None]))
        np.testing.assert_array_equal(found.traits, [[0, 0, 1]])
        np.testing.assert_array_equal(found.vectors, [[0, 1, 0]])
        assert (found.near.places[0, 0], found.near.cosines[0, 0]) == (1, 1)
        np.testing.assert_array_equal(found.familiar, [0])  # the traits lie across those of both own exemplars

    @pytest.mark.parametrize("n", [0, 1])
    @pytest.mark.parametrize("width", [2, 4])
    def test_vectors_of_another_encoder_are_refused(self, n: int, width: int) -> None:
        with pytest.raises(ModelUnusable, match=r"vectors of 3 numbers, from the encoder .* \(by hand\)"):
            router().queries(["q"] * n, of_vectors(np.zeros((n, width), np.float32)))

    def test_a_router_of_words_looks_at_no_vectors(self) -> None:
        words = replace(router(), kind="heuristic", calibration=calibrated(coverage=looking_at(1, 2)))
        assert (router().needs_vectors, words.needs_vectors) == (True, False)
        scores = words.score(TEXTS, of_vectors(np.full((2, 7), np.nan, np.float32)))
        np.testing.assert_allclose(scores.coverage, [sigmoid(1 - math.exp(-1)), 0.5], atol=1e-6)
        assert scores.neighbours == [[], []]
        found = words.queries(TEXTS, None)
        assert (len(found), found.vectors.shape, found.near.places.shape) == (2, (2, 0), (2, 0))
        np.testing.assert_array_equal(found.familiar, [1, 1])

    def test_an_unknown_kind_is_named_with_those_there_are(self) -> None:
        with pytest.raises(UnknownKind, match=r"unknown router kind 'oracle'; there are: .*ensemble, .*random"):
            replace(router(), kind="oracle").score(TEXTS, of_vectors(ASKED))


def test_an_expert_with_nothing_but_its_keywords_is_never_impossible() -> None:
    """It owns no exemplar and no passage; still its share is not nought."""
    owner: Places = np.array([0, 0, 0])
    everything: Known = known(owner=owner, library=np.zeros(1, np.int64))
    familiar: Familiarity = router().familiarity
    scores = router(known=everything, familiarity=familiar).score(TEXTS, of_vectors(ASKED))
    assert (scores.share > 0).all()
    np.testing.assert_allclose(scores.self_assessment[:, 1], sigmoid(-1), atol=1e-6)
