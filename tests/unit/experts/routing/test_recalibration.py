"""Probabilities fitted to labelled queries; what a router makes of a query stays as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experts.encoders.base import of_vectors
from experts.errors import CannotTrain, ModelUnusable
from experts.evaluation.metrics import auroc, expected_calibration_error
from experts.routing.base import OUTSIDE, Examples, Floats
from experts.routing.recalibration import recalibrated
from experts.routing.router import RouterModel, load_router
from experts.routing.training import train_router
from tests.contracts.clusters import beyond, both, draw, noise, training_set


@pytest.fixture(scope="module")
def router() -> RouterModel:
    return train_router("centroid", training_set(draw(20, seed=1)))


@pytest.fixture(scope="module")
def words() -> RouterModel:
    return train_router("heuristic", training_set(draw(20, seed=1)))


LABELLED = draw(30, seed=2)
WITH_OUTSIDERS = both(LABELLED, beyond(40, seed=3))


def logit(probability: Floats) -> np.ndarray:
    wide = probability.astype(np.float64)
    return np.log(wide / (1 - wide))


def without_vectors(examples: Examples) -> Examples:
    return replace(examples, embedded=None)


class TestScores:
    @pytest.mark.parametrize("examples", [LABELLED, WITH_OUTSIDERS], ids=["inside only", "with outsiders"])
    def test_no_score_changes(self, router: RouterModel, examples: Examples) -> None:
        asked = draw(5, seed=9)
        before = router.score(asked.texts, asked.embedded)
        after = recalibrated(router, examples).score(asked.texts, asked.embedded)
        for name in ("gate", "self_assessment", "share"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert not np.array_equal(after.confidence, before.confidence)
        assert np.array_equal(after.coverage, before.coverage) is (examples is LABELLED)

    def test_the_router_that_was_given_is_left_as_it_was(self, router: RouterModel) -> None:
        before = router.files()
        fitted = recalibrated(router, WITH_OUTSIDERS)
        assert router.files() == before
        assert fitted.files() != before
        assert (fitted.kind, fitted.known, fitted.own, fitted.metrics) == (
            router.kind,
            router.known,
            router.own,
            router.metrics,
        )
        assert fitted.calibration.temperature == router.calibration.temperature

    def test_the_same_queries_give_the_same_router(self, router: RouterModel) -> None:
        assert recalibrated(router, WITH_OUTSIDERS).files() == recalibrated(router, WITH_OUTSIDERS).files()

    def test_it_can_be_stored_and_loaded(self, router: RouterModel, tmp_path: Path) -> None:
        fitted = recalibrated(router, WITH_OUTSIDERS)
        for name, content in fitted.files().items():
            (tmp_path / name).write_bytes(content)
        asked = draw(5, seed=9)
        stored = load_router(tmp_path).score(asked.texts, asked.embedded)
        scores = fitted.score(asked.texts, asked.embedded)
        np.testing.assert_allclose(stored.confidence, scores.confidence, atol=1e-2)
        np.testing.assert_allclose(stored.coverage, scores.coverage, atol=1e-2)


class TestConfidence:
    def test_on_the_queries_it_was_fitted_to_its_mean_is_their_accuracy(self, router: RouterModel) -> None:
        scores = recalibrated(router, LABELLED).score(LABELLED.texts, LABELLED.embedded)
        right = scores.share.argmax(axis=1) == LABELLED.owner
        assert 0.5 < right.mean() < 1
        assert float(scores.confidence.mean()) == pytest.approx(right.mean(), abs=1e-3)

    def test_it_holds_on_others_like_them(self, router: RouterModel) -> None:
        """Trained where it is mostly right, the router is sure of itself where nothing tells the experts apart."""
        guesses, others = noise(300, seed=4), noise(300, seed=5)
        before = router.score(others.texts, others.embedded)
        after = recalibrated(router, guesses).score(others.texts, others.embedded)
        right = before.share.argmax(axis=1) == others.owner
        assert expected_calibration_error(before.confidence, right) > 0.3
        assert expected_calibration_error(after.confidence, right) < 0.1

    def test_where_every_query_is_right_it_is_nearly_certain(self, router: RouterModel) -> None:
        scores = router.score(LABELLED.texts, LABELLED.embedded)
        right = LABELLED.take(np.flatnonzero(scores.share.argmax(axis=1) == LABELLED.owner))
        fitted = recalibrated(router, right).score(LABELLED.texts, LABELLED.embedded)
        np.testing.assert_allclose(fitted.confidence, 1 / (1 + np.exp(-4)), atol=1e-6)

    def test_outsiders_have_no_part_in_it(self, router: RouterModel) -> None:
        asked = draw(5, seed=9)
        alone, beside = recalibrated(router, LABELLED), recalibrated(router, WITH_OUTSIDERS)
        one, other = (model.score(asked.texts, asked.embedded).confidence for model in (alone, beside))
        np.testing.assert_allclose(one, other, atol=1e-5)


class TestRisk:
    def test_thresholds_are_shares_that_the_right_experts_got(self, router: RouterModel) -> None:
        fitted = recalibrated(router, WITH_OUTSIDERS)
        share = router.score(LABELLED.texts, LABELLED.embedded).share
        right = np.sort(share[np.arange(len(LABELLED)), LABELLED.owner])
        # Of 121 places between and beside 120 queries, one in twenty are six.
        assert fitted.risk(0.05) == pytest.approx(float(right[5]), abs=1e-6)
        assert fitted.risk(0.5) == pytest.approx(float(right[59]), abs=1e-6)
        assert fitted.risk(0.001) == 0

    def test_too_few_queries_promise_little(self, router: RouterModel) -> None:
        few = recalibrated(router, LABELLED.take(np.arange(20)))
        assert few.risk(0.04) == 0
        assert few.risk(0.05) > 0


class TestCoverage:
    def test_its_mean_is_the_share_inside(self, router: RouterModel) -> None:
        fitted = recalibrated(router, WITH_OUTSIDERS)
        coverage = fitted.score(WITH_OUTSIDERS.texts, WITH_OUTSIDERS.embedded).coverage
        assert float(coverage.mean()) == pytest.approx(120 / 160, abs=1e-3)

    def test_it_is_shifted_and_stretched_so_that_queries_keep_their_order(self, router: RouterModel) -> None:
        asked = both(draw(20, seed=7), beyond(40, seed=8))
        before = router.score(asked.texts, asked.embedded).coverage
        after = recalibrated(router, WITH_OUTSIDERS).score(asked.texts, asked.embedded).coverage
        slope, offset = np.polyfit(logit(before), logit(after), 1)
        assert slope > 0
        np.testing.assert_allclose(logit(after), slope * logit(before) + offset, atol=0.05)
        inside = asked.owner != OUTSIDE
        assert auroc(after[inside], after[~inside]) == pytest.approx(auroc(before[inside], before[~inside]), abs=1e-3)

    def test_labels_turned_upside_down_make_it_flat_but_do_not_turn_it(self, router: RouterModel) -> None:
        strange = beyond(40, seed=3)
        owner = np.concatenate([np.full(len(LABELLED), OUTSIDE), np.zeros(len(strange), np.int64)])
        upside_down = replace(both(LABELLED, strange), owner=owner)
        before = router.score(upside_down.texts, upside_down.embedded).coverage
        after = recalibrated(router, upside_down).score(upside_down.texts, upside_down.embedded).coverage
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order]) >= -1e-6).all()
        assert float(after.max() - after.min()) < 0.01

    def test_without_outsiders_it_stays(self, router: RouterModel) -> None:
        assert recalibrated(router, LABELLED).calibration.coverage is router.calibration.coverage


class TestRefusals:
    @pytest.mark.parametrize("n", [0, 1, 19])
    def test_too_few_queries_are_not_calibrated_on(self, router: RouterModel, n: int) -> None:
        with pytest.raises(CannotTrain, match=f"^{n} labelled queries that an expert covers; 20 are the least"):
            recalibrated(router, LABELLED.take(np.arange(n)))

    def test_those_outside_do_not_make_up_for_them(self, router: RouterModel) -> None:
        few = both(LABELLED.take(np.arange(19)), beyond(40, seed=3))
        with pytest.raises(CannotTrain, match=r"^19 labelled queries"):
            recalibrated(router, few)
        with pytest.raises(CannotTrain, match=r"^0 labelled queries"):
            recalibrated(router, beyond(40, seed=3))

    def test_twenty_are_enough(self, router: RouterModel) -> None:
        assert len(recalibrated(router, LABELLED.take(np.arange(20))).calibration.conformal.right_shares) == 20

    def test_queries_without_vectors_or_with_those_of_another_encoder_are_refused(self, router: RouterModel) -> None:
        with pytest.raises(ModelUnusable, match="needs vectors of 16 numbers"):
            recalibrated(router, without_vectors(LABELLED))
        other = replace(LABELLED, embedded=of_vectors(np.ones((len(LABELLED), 8), np.float32)))
        with pytest.raises(ModelUnusable, match="needs vectors of 16 numbers"):
            recalibrated(router, other)


class TestWords:
    def test_a_router_that_reads_words_is_calibrated_with_and_without_vectors(self, words: RouterModel) -> None:
        fitted = recalibrated(words, without_vectors(WITH_OUTSIDERS))
        assert recalibrated(words, WITH_OUTSIDERS).files() == fitted.files()
        scores = fitted.score(WITH_OUTSIDERS.texts, None)
        inside = WITH_OUTSIDERS.owner != OUTSIDE
        right = scores.share.argmax(axis=1)[inside] == WITH_OUTSIDERS.owner[inside]
        assert float(scores.confidence[inside].mean()) == pytest.approx(right.mean(), abs=1e-3)
        assert float(scores.coverage.mean()) == pytest.approx(120 / 160, abs=1e-3)
