"""The router that knows keywords only."""

import json
import math
from pathlib import Path

import numpy as np

from experts.routing import heuristic
from experts.routing.base import ABOUT, ExpertProfile, TrainingSet, train_router
from experts.routing.heuristic import HeuristicRouter

EXPERTS = ("bank", "code")
KEYWORDS = {"bank": ["mortgage", "loan"], "code": ["pointer"]}


def test_the_gate_is_the_softmax_of_four_times_the_keyword_scores() -> None:
    scores = HeuristicRouter(EXPERTS, KEYWORDS).score(["a mortgage", "a loan for a mortgage and a pointer", "?"], None)
    one, two = 1 - math.exp(-1), 1 - math.exp(-2)
    np.testing.assert_allclose(scores.self_assessment, np.array([[one, 0], [two, one], [0, 0]]), atol=1e-6)
    bank = 1 / (1 + math.exp(-4 * one)), 1 / (1 + math.exp(-4 * (two - one))), 0.5
    np.testing.assert_allclose(scores.gate, [[share, 1 - share] for share in bank], atol=1e-6)
    np.testing.assert_allclose(scores.coverage, [one, two, 0], atol=1e-6)
    assert scores.keywords == [{"bank": ["mortgage"]}, {"bank": ["loan", "mortgage"], "code": ["pointer"]}, {}]
    assert list(scores.neighbours) == [[], [], []]


def test_training_keeps_names_and_keywords_and_nothing_else() -> None:
    profiles = [ExpertProfile(name, KEYWORDS[name], ["an exemplar"]) for name in EXPERTS]
    trained = train_router("heuristic", TrainingSet(profiles, ["outside"], None, None))
    assert list(trained.files) == [ABOUT]
    assert json.loads(trained.files[ABOUT]) == {"experts": ["bank", "code"], "keywords": KEYWORDS}
    assert trained.metrics == {}


def test_keywords_of_any_script_survive_storing(tmp_path: Path) -> None:
    profiles = [ExpertProfile("bank", ["crédit", "ипотека", "👍"], [])]
    files = heuristic.train(TrainingSet(profiles, [], None, None)).files
    (tmp_path / ABOUT).write_bytes(files[ABOUT])
    assert json.loads((tmp_path / ABOUT).read_bytes())["keywords"] == {"bank": ["crédit", "ипотека", "👍"]}
    assert heuristic.load(tmp_path).experts == ("bank",)
