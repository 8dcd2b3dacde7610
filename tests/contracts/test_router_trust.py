"""What every router's probabilities are worth, on draws of which everything is known."""

import numpy as np
import pytest

from experts.routing.router import RouterModel
from experts.routing.training import train_router
from tests.contracts import clusters


@pytest.fixture(scope="module")
def judged(kind: str) -> RouterModel:
    """Trained on exemplars, some of them outside, and calibrated on as many others."""
    examples = clusters.both(clusters.draw(40, seed=1), clusters.beyond(40, seed=4))
    return train_router(kind, clusters.training_set(examples, held_out=clusters.draw(100, seed=2)))


@pytest.mark.parametrize("limit", [0.05, 0.1, 0.2])
def test_the_right_expert_is_missed_no_more_often_than_allowed(judged: RouterModel, limit: float) -> None:
    queries = clusters.draw(500, seed=3)
    shares = judged.score(queries.texts, queries.embedded).share
    missed = shares[np.arange(len(queries)), queries.owner] < judged.risk(limit)
    # Three standard errors, of calibrating on 400 and of measuring on 2000.
    assert missed.mean() <= limit + 3 * (limit * (1 - limit) * (1 / 400 + 1 / 2000)) ** 0.5


def test_a_higher_risk_asks_fewer_experts(judged: RouterModel) -> None:
    queries = clusters.draw(100, seed=3)
    shares = judged.score(queries.texts, queries.embedded).share
    asked = [(shares >= judged.risk(limit)).sum(axis=1).mean() for limit in (0, 0.02, 0.05, 0.1, 0.2, 0.4)]
    assert asked[0] == len(clusters.NAMES)
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] < 1.5


def test_confidence_is_how_often_the_first_choice_is_right(judged: RouterModel) -> None:
    queries = clusters.draw(500, seed=3)
    scores = judged.score(queries.texts, queries.embedded)
    right = scores.share.argmax(axis=1) == queries.owner
    assert scores.confidence.mean() == pytest.approx(right.mean(), abs=0.05)
    assert scores.confidence[right].mean() > scores.confidence[~right].mean() + 0.03


def test_what_nobody_covers_is_less_covered(judged: RouterModel) -> None:
    inside, outside = clusters.draw(100, seed=3), clusters.beyond(100, seed=5)
    covered = judged.score(inside.texts, inside.embedded).coverage.mean()
    assert judged.score(outside.texts, outside.embedded).coverage.mean() < covered - 0.05


def test_strangers_look_less_familiar_and_are_trusted_less(vectorial: str, judged: RouterModel) -> None:
    inside, strange = clusters.draw(100, seed=3), clusters.strangers(100, seed=5)
    familiar = [judged.queries(asked.texts, asked.embedded).familiar.mean() for asked in (inside, strange)]
    confident = [judged.score(asked.texts, asked.embedded).confidence.mean() for asked in (inside, strange)]
    assert familiar[1] < familiar[0] - 0.1
    assert confident[1] < confident[0] - 0.02


def test_exemplars_that_nothing_tells_apart_are_not_measured_as_learned(kind: str) -> None:
    """Whoever saw what it is measured on would be right nearly always; chance is a quarter."""
    router = train_router(kind, clusters.training_set(clusters.noise(40, seed=1)))
    assert router.metrics["accuracy"] <= 0.25 + 3 * (0.25 * 0.75 / 160) ** 0.5
