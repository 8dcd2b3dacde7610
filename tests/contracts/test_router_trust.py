"""What every router's probabilities are worth, on draws of which everything is known."""

from typing import NamedTuple

import numpy as np
import pytest

from experts.routing.base import Examples, Floats, Scores
from experts.routing.router import RouterModel
from experts.routing.training import train_router
from tests.contracts import clusters


class Judged(NamedTuple):
    """A router, queries of the draw it was trained on, and what it says of them."""

    router: RouterModel
    queries: Examples
    scores: Scores

    @property
    def right_shares(self) -> Floats:
        return self.scores.share[np.arange(len(self.queries)), self.queries.owner]

    def score(self, asked: Examples) -> Scores:
        return self.router.score(asked.texts, asked.embedded)


@pytest.fixture(scope="module")
def judged(kind: str) -> Judged:
    """Trained on exemplars and queries outside, calibrated on 800 queries, asked 2000."""
    examples = clusters.both(clusters.draw(40, seed=1), clusters.beyond(40, seed=4))
    router = train_router(kind, clusters.training_set(examples, held_out=clusters.draw(200, seed=7)))
    queries = clusters.draw(500, seed=3)
    return Judged(router, queries, router.score(queries.texts, queries.embedded))


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.1, 0.2])
def test_the_right_expert_is_missed_no_more_often_than_allowed(judged: Judged, limit: float) -> None:
    missed = judged.right_shares < judged.router.risk(limit)
    # Three standard errors, of calibrating and of measuring.
    assert missed.mean() <= limit + 3 * (limit * (1 - limit) * (1 / 800 + 1 / 2000)) ** 0.5


def test_left_out_exemplars_promise_nearly_as_much_as_held_out_queries(kind: str) -> None:
    """The experts' own judge has seen the exemplars it is calibrated on, so another two in a hundred may be missed."""
    router = train_router(kind, clusters.training_set(clusters.draw(40, seed=1)))
    queries = clusters.draw(200, seed=3)
    shares = router.score(queries.texts, queries.embedded).share
    missed = shares[np.arange(len(queries)), queries.owner] < router.risk(0.1)
    assert missed.mean() <= 0.12 + 3 * (0.1 * 0.9 * (1 / 160 + 1 / 800)) ** 0.5


def test_a_higher_risk_asks_fewer_experts(judged: Judged) -> None:
    limits = (0, 0.02, 0.05, 0.1, 0.2, 0.4)
    asked = [(judged.scores.share >= judged.router.risk(limit)).sum(axis=1).mean() for limit in limits]
    assert asked[0] == len(clusters.NAMES)
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] < 1.5


def test_confidence_is_how_often_the_first_choice_is_right(judged: Judged) -> None:
    right = judged.scores.share.argmax(axis=1) == judged.queries.owner
    confidence = judged.scores.confidence
    assert confidence.mean() == pytest.approx(right.mean(), abs=0.05)
    assert confidence[right].mean() > confidence[~right].mean() + 0.03


def test_what_nobody_covers_is_less_covered(judged: Judged) -> None:
    outside = judged.score(clusters.beyond(200, seed=5)).coverage
    assert outside.mean() < judged.scores.coverage.mean() - 0.05


def test_strangers_look_less_familiar_and_are_trusted_less(vectorial: str, judged: Judged) -> None:
    strange = clusters.strangers(100, seed=5)
    familiar = [
        judged.router.queries(asked.texts, asked.embedded).familiar.mean() for asked in (judged.queries, strange)
    ]
    assert familiar[1] < familiar[0] - 0.1
    assert judged.score(strange).confidence.mean() < judged.scores.confidence.mean() - 0.02


def test_exemplars_that_nothing_tells_apart_are_not_measured_as_learned(kind: str) -> None:
    """Whoever saw what it is measured on would be right nearly always; chance is a quarter."""
    router = train_router(kind, clusters.training_set(clusters.noise(40, seed=1)))
    assert router.metrics["accuracy"] <= 0.25 + 3 * (0.25 * 0.75 / 160) ** 0.5
