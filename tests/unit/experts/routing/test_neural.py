"""The neural router's arithmetic, each part against a slow reference."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.numpy import load, save

from experts.errors import ModelUnusable
from experts.routing import neural
from experts.routing.base import ABOUT, Calibration, Floats, Neighbour, load_router, train_router
from experts.routing.neural import (
    WEIGHTS,
    Evidence,
    Logistic,
    NeuralRouter,
    gate_probabilities,
    judge_features,
    nearest_by_owner,
)
from tests.contracts.samples import LAW, ORDINARY, embed, training_set

COSINE = st.floats(-1, 1, width=32)


def vector(*values: float) -> Floats:
    return np.array(values, np.float32)


class TestLogistic:
    @LAW
    @given(features=arrays(np.float32, (3, 4), elements=COSINE), weights=arrays(np.float32, 4, elements=COSINE))
    def test_it_is_the_sigmoid_of_the_weighted_sum(self, features: Floats, weights: Floats) -> None:
        found = Logistic(weights, -0.5)(features)
        expected = [
            1 / (1 + math.exp(-(sum(float(w) * float(f) for w, f in zip(weights, row, strict=True)) - 0.5)))
            for row in features
        ]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found.dtype == np.float32

    def test_it_takes_features_of_any_leading_shape(self) -> None:
        features = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
        logistic = Logistic(vector(1, -1, 2, 0.5), 0.1)
        np.testing.assert_allclose(logistic(features).reshape(-1), logistic(features.reshape(-1, 4)), atol=1e-6)


LAYERS = [
    (np.array([[1, -1], [0.5, 2], [-3, 0]], np.float32), vector(0, 0.5, 0.25)),
    (np.array([[1, 0, 2], [-1, 1, 0]], np.float32), vector(-0.5, 0)),
]


def reference_gate(x: list[float], temperature: float) -> list[float]:
    hidden = x
    for number, (weight, bias) in enumerate(LAYERS):
        hidden = [
            sum(float(w) * h for w, h in zip(row, hidden, strict=True)) + float(b)
            for row, b in zip(weight, bias, strict=True)
        ]
        if number < len(LAYERS) - 1:
            hidden = [max(h, 0.0) for h in hidden]
    exponents = [math.exp(h / temperature) for h in hidden]
    return [e / sum(exponents) for e in exponents]


class TestGateProbabilities:
    @LAW
    @given(x=arrays(np.float32, (3, 2), elements=COSINE), temperature=st.floats(0.2, 5))
    def test_they_are_those_of_the_network_written_out(self, x: Floats, temperature: float) -> None:
        found = gate_probabilities(LAYERS, temperature, x)
        expected = [reference_gate([float(value) for value in row], temperature) for row in x]
        np.testing.assert_allclose(found, expected, atol=2e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)

    @LAW
    @given(x=arrays(np.float32, (1, 2), elements=COSINE))
    def test_a_higher_temperature_makes_the_best_less_sure_and_changes_no_order(self, x: Floats) -> None:
        rows = np.concatenate([gate_probabilities(LAYERS, t, x) for t in (0.25, 0.5, 1, 2, 4)])
        assert (np.diff(rows.max(axis=1)) <= 1e-6).all()
        assert len({tuple(np.argsort(-row, kind="stable")) for row in rows}) == 1

    def test_huge_logits_overflow_nothing(self) -> None:
        layers = [(np.array([[1e4], [-1e4]], np.float32), vector(0, 0))]
        np.testing.assert_array_equal(gate_probabilities(layers, 0.05, np.ones((1, 1), np.float32)), [[1, 0]])

    def test_the_vectors_stay_as_they_were(self) -> None:
        x = np.ones((2, 2), np.float32)
        gate_probabilities(LAYERS, 1.0, x)
        gate_probabilities([], 1.0, x)
        np.testing.assert_array_equal(x, 1)


def reference_nearest(row: list[float], owner: list[int], place: int) -> tuple[float, float]:
    own = sorted((cosine for cosine, whose in zip(row, owner, strict=True) if whose == place), reverse=True)
    return (own[0], sum(own[:5]) / len(own[:5])) if own else (-1.0, -1.0)


@st.composite
def columns(draw: st.DrawFn, low: int = -1) -> tuple[Floats, NDArray[np.int64]]:
    """Cosines of two queries to up to a dozen columns, ties among them, and the columns' owners."""
    n = draw(st.integers(0, 12))
    values = st.sampled_from([-1.0, 0.0, 0.5, 1.0]) | COSINE
    cosines = draw(arrays(np.float32, (2, n), elements=values))
    return cosines, np.array(draw(st.lists(st.integers(low, 2), min_size=n, max_size=n)), np.int64)


class TestEvidence:
    @LAW
    @given(drawn=columns())
    def test_nearest_and_mean_of_the_nearest_five_are_those_of_sorting_everything(
        self, drawn: tuple[Floats, NDArray[np.int64]]
    ) -> None:
        cosines, owner = drawn
        nearest, mean = nearest_by_owner(cosines, owner, [2, -1, 0])
        for row in range(2):
            for column, place in enumerate([2, -1, 0]):
                expected = reference_nearest(cosines[row].tolist(), owner.tolist(), place)
                assert (nearest[row, column], mean[row, column]) == pytest.approx(expected, abs=1e-6)

    @LAW
    @given(
        exemplars=columns(),
        library=columns(low=0),
        keywords=arrays(np.float32, (2, 3), elements=st.floats(0, 1, width=32)),
    )
    def test_the_judges_look_at_what_the_documentation_says(
        self,
        exemplars: tuple[Floats, NDArray[np.int64]],
        library: tuple[Floats, NDArray[np.int64]],
        keywords: Floats,
    ) -> None:
        cosines, owner = exemplars
        read, whose = library
        own, coverage = judge_features(cosines, owner, read, whose, keywords)
        assert own.shape == (2, 3, 6)
        assert coverage.shape == (2, 5)
        assert own.dtype == coverage.dtype == np.float32
        for row in range(2):
            near = [reference_nearest(cosines[row].tolist(), owner.tolist(), place) for place in range(3)]
            passage = [max(reference_nearest(read[row].tolist(), whose.tolist(), place)[0], 0) for place in range(3)]
            outside = max(reference_nearest(cosines[row].tolist(), owner.tolist(), -1)[1], 0)
            for place in range(3):
                rival_mean = max(near[other][1] for other in range(3) if other != place)
                rival_passage = max(passage[other] for other in range(3) if other != place)
                expected = [
                    near[place][0],
                    near[place][1],
                    near[place][1] - rival_mean,
                    passage[place],
                    passage[place] - rival_passage,
                    keywords[row, place],
                ]
                np.testing.assert_allclose(own[row, place], expected, atol=1e-6)
            best = max(mean for _, mean in near)
            expected = [max(one for one, _ in near), best, best - outside, max(passage), keywords[row].max()]
            np.testing.assert_allclose(coverage[row], expected, atol=1e-6)

    def test_a_single_expert_leads_nobody(self) -> None:
        owner = np.zeros(2, np.int64)
        own, _ = judge_features(
            np.array([[0.5, 0.7]], np.float32), owner, np.array([[0.4, 0.2]], np.float32), owner, vector(0.3)[None]
        )
        np.testing.assert_allclose(own[0, 0], [0.7, 0.6, 0, 0.4, 0, 0.3], atol=1e-6)


@pytest.fixture
def router() -> NeuralRouter:
    """Two experts on two axes and one outside query on the third; every judge looks at one feature only."""
    evidence = Evidence(
        np.eye(3, dtype=np.float32),
        np.array([0, 1, -1]),
        ["a loan", "a pointer", "a cake"],
        np.eye(3, dtype=np.float32)[:1],
        np.array([0]),
    )
    return NeuralRouter(
        ("bank", "code"),
        {"bank": ["loan"]},
        [(np.array([[4, 0, 0], [0, 4, 0]], np.float32), vector(0, 0))],
        2.0,
        evidence,
        Logistic(vector(1, 0, 0, 0, 0, 0), 0.0),
        Logistic(vector(0, 0, 0, 0, 1), 0.0),
        Calibration(2.0, 1.0),
    )


class TestNeuralRouter:
    def test_its_parts_come_together(self, router: NeuralRouter) -> None:
        scores = router.score(["my loan", "why"], np.array([[1, 0, 0], [0, 0.6, 0.8]], np.float32))
        share = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1.2))
        np.testing.assert_allclose(scores.gate, [[s, 1 - s] for s in share], atol=1e-6)
        logistic = [1 / (1 + math.exp(-x)) for x in (1, 0, 0, 0.6)]
        np.testing.assert_allclose(scores.self_assessment.reshape(-1), logistic, atol=1e-6)
        keyword = 1 - math.exp(-1)
        np.testing.assert_allclose(scores.coverage, [1 / (1 + math.exp(-keyword)), 0.5], atol=1e-6)
        assert scores.keywords == [{"bank": ["loan"]}, {}]

    def test_the_nearest_three_exemplars_are_shown_with_whose_they_are(self, router: NeuralRouter) -> None:
        (found,) = router.score(["q"], np.array([[0.1, 0.6, 0.8]], np.float32)).neighbours
        assert [(near.expert, near.text) for near in found] == [
            (None, "a cake"),
            ("code", "a pointer"),
            ("bank", "a loan"),
        ]
        assert [near.cosine for near in found] == pytest.approx([0.8, 0.6, 0.1])
        assert all(type(near) is Neighbour and type(near.cosine) is float for near in found)

    @pytest.mark.parametrize("vectors", [None, np.ones((1, 2), np.float32)], ids=["none", "of another encoder"])
    def test_it_refuses_to_score_without_the_vectors_it_was_trained_on(
        self, router: NeuralRouter, vectors: Floats | None
    ) -> None:
        with pytest.raises(ModelUnusable, match="vectors of 3 numbers"):
            router.score(["q"], vectors)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(train_router("neural", training_set()).files)


class TestLoad:
    @staticmethod
    def written(folder: Path, files: dict[str, bytes]) -> Path:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    def test_a_router_of_another_format_is_unusable(self, files: dict[str, bytes], tmp_path: Path) -> None:
        about = json.loads(files[ABOUT]) | {"format": 99}
        with pytest.raises(ModelUnusable, match="format 99, this program reads 1"):
            neural.load(self.written(tmp_path, files | {ABOUT: json.dumps(about).encode()}))

    @pytest.mark.parametrize("tensor", ["gate.0.weight", "own", "coverage", "exemplars", "passages"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_weights_that_are_not_numbers_are_unusable(
        self, files: dict[str, bytes], tmp_path: Path, tensor: str, value: float
    ) -> None:
        tensors = load(files[WEIGHTS])
        tensors[tensor].reshape(-1)[0] = value
        with pytest.raises(ModelUnusable, match="not all numbers"):
            neural.load(self.written(tmp_path, files | {WEIGHTS: save(tensors)}))

    @pytest.mark.parametrize("tensor", ["gate.2.weight", "own", "owner", "library", "exemplars"])
    def test_a_router_that_lacks_a_part_is_unusable(self, files: dict[str, bytes], tmp_path: Path, tensor: str) -> None:
        tensors = load(files[WEIGHTS])
        del tensors[tensor]
        with pytest.raises(ModelUnusable):
            load_router("neural", self.written(tmp_path, files | {WEIGHTS: save(tensors)}))

    def test_the_stored_weights_are_the_ones_that_score(self, files: dict[str, bytes], tmp_path: Path) -> None:
        tensors = load(files[WEIGHTS])
        tensors["gate.2.bias"][0] += 1
        (tmp_path / "whole").mkdir()
        (tmp_path / "changed").mkdir()
        whole = neural.load(self.written(tmp_path / "whole", files))
        changed = neural.load(self.written(tmp_path / "changed", files | {WEIGHTS: save(tensors)}))
        vectors = embed(ORDINARY)
        assert (changed.score(ORDINARY, vectors).gate[:, 0] > whole.score(ORDINARY, vectors).gate[:, 0]).all()
