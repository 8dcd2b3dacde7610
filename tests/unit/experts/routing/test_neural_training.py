"""Training the neural router: what it refuses, what it learns, what it measures, and that it repeats itself."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as read_tensors

from experts.errors import CannotTrain
from experts.routing import neural
from experts.routing.base import ABOUT, ExpertProfile, Router, TrainedRouter, TrainingSet
from experts.routing.decide import Policy, decide
from experts.routing.neural import WEIGHTS
from experts.routing.neural_training import MAX_PASSAGES, expected_calibration_error, train
from tests.contracts.samples import EXEMPLARS, LAW, OUTSIDE, embed, training_set


def router_of(trained: TrainedRouter, folder: Path) -> Router:
    folder.mkdir(exist_ok=True)
    for name, content in trained.files.items():
        (folder / name).write_bytes(content)
    return neural.load(folder)


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    return training_set()


@pytest.fixture(scope="module")
def trained(data: TrainingSet) -> TrainedRouter:
    return train(data)


@pytest.fixture(scope="module")
def router(trained: TrainedRouter, tmp_path_factory: pytest.TempPathFactory) -> Router:
    return router_of(trained, tmp_path_factory.mktemp("router"))


def profile(name: str, texts: Sequence[str]) -> ExpertProfile:
    return ExpertProfile(name, [], texts, embed(texts))


class TestWhatItLearns:
    @pytest.mark.parametrize(
        ("text", "expert"),
        [
            ("which mortgage is best for my house", "bank"),
            ("someone stole my card", "bank"),
            ("where does the lava of a volcano come from", "earth"),
            ("two tectonic plates collide", "earth"),
            ("a python function that sorts", "code"),
            ("iterate over a linked list", "code"),
        ],
    )
    def test_a_question_it_has_never_seen_goes_to_the_right_expert(
        self, router: Router, text: str, expert: str
    ) -> None:
        scores = router.score([text], embed([text]))
        (decision,) = decide(router.experts, [text], scores, {}, Policy(), router.calibration)
        assert decision.experts[0][0] == expert
        assert decision.in_scope

    @pytest.mark.parametrize("text", ["bake me some bread", "turn off all lights", "zzz qqq"])
    def test_a_question_that_nobody_covers_is_seen_as_such(self, router: Router, text: str) -> None:
        scores = router.score([text], embed([text]))
        assert scores.coverage[0] < 0.5

    def test_a_question_is_seen_as_uncovered_without_outside_queries_too(self, tmp_path: Path) -> None:
        router = router_of(train(training_set(outside=())), tmp_path)
        inside, outside = ["explain the mortgage to me please"], ["bake me some bread"]
        assert router.score(inside, embed(inside)).coverage[0] > router.score(outside, embed(outside)).coverage[0] + 0.3

    def test_every_expert_knows_its_own_exemplars_better_than_the_others_do(
        self, data: TrainingSet, router: Router
    ) -> None:
        for place, expert in enumerate(data.experts):
            own = router.score(expert.exemplars, embed(expert.exemplars)).self_assessment
            assert (own.argmax(axis=1) == place).all()

    def test_what_an_experts_library_holds_draws_questions_to_it(self, tmp_path: Path) -> None:
        """Routing must not send a question away from the only library with its answer."""
        passages = [f"The aardvark of kind {n} digs for termites at night." for n in range(20)]
        plain = training_set()
        stocked = [
            replace(expert, passages=embed(passages)) if expert.name == "earth" else expert for expert in plain.experts
        ]
        text = ["which animal digs for termites"]
        before = router_of(train(plain), tmp_path / "before").score(text, embed(text))
        after = router_of(train(replace(plain, experts=stocked)), tmp_path / "after").score(text, embed(text))
        place = list(EXEMPLARS).index("earth")
        assert after.gate[0].argmax() == place
        assert after.gate[0, place] > before.gate[0, place]


class TestWhatItRefuses:
    def test_nothing_to_route_to(self) -> None:
        with pytest.raises(CannotTrain, match="no expert"):
            train(TrainingSet([], [], None, "hashing"))

    @pytest.mark.parametrize("texts", [[], ["only one"]])
    def test_an_expert_with_fewer_than_two_exemplars(self, texts: list[str]) -> None:
        experts = [profile("bank", ["a", "b"]), profile("code", texts)]
        with pytest.raises(CannotTrain, match="expert 'code' has fewer than two exemplars"):
            train(TrainingSet(experts, [], None, "hashing"))

    def test_an_expert_without_vectors(self) -> None:
        with pytest.raises(CannotTrain, match="'bank'"):
            train(TrainingSet([ExpertProfile("bank", [], ["a", "b"])], [], None, "hashing"))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_vectors_that_are_not_all_numbers(self, value: float) -> None:
        vectors = embed(["a", "b", "c"])
        vectors[1, 7] = value
        with pytest.raises(CannotTrain, match="'bank' has a vector that is not all numbers"):
            train(TrainingSet([ExpertProfile("bank", [], ["a", "b", "c"], vectors)], [], None, "hashing"))

    @pytest.mark.parametrize("where", ["passages", "outside"])
    def test_passages_and_outside_queries_that_are_not_all_numbers(self, data: TrainingSet, where: str) -> None:
        bad = embed(["a", "b"])
        bad[0, 0] = np.nan
        if where == "passages":
            data = replace(data, experts=[replace(data.experts[0], passages=bad), *data.experts[1:]])
        else:
            data = replace(data, outside=["a", "b"], outside_vectors=bad)
        with pytest.raises(CannotTrain, match="not all numbers"):
            train(data)


class TestSmallCatalogues:
    def test_two_exemplars_each_are_enough(self, tmp_path: Path) -> None:
        experts = [profile("bank", ["a mortgage", "mortgages"]), profile("code", ["a pointer", "pointers"])]
        router = router_of(train(TrainingSet(experts, [], None, "hashing")), tmp_path)
        text = ["my mortgage"]
        assert router.score(text, embed(text)).gate[0].argmax() == 0

    def test_experts_of_very_different_sizes_are_both_found(self, tmp_path: Path) -> None:
        many = [f"mortgage question number {n}" for n in range(60)]
        experts = [profile("bank", many), profile("code", ["a pointer", "pointers in c", "free a pointer"])]
        router = router_of(train(TrainingSet(experts, [], None, "hashing")), tmp_path)
        texts = ["another mortgage question", "a pointer of mine"]
        assert router.score(texts, embed(texts)).gate.argmax(axis=1).tolist() == [0, 1]


class TestArtefact:
    def test_it_holds_exactly_these_tensors(self, data: TrainingSet, trained: TrainedRouter) -> None:
        tensors = read_tensors(trained.files[WEIGHTS])
        n, n_outside = sum(len(expert.exemplars) for expert in data.experts), len(OUTSIDE)
        assert {name: (array.dtype.name, array.shape) for name, array in tensors.items()} == {
            "exemplars": ("float16", (n + n_outside, 384)),
            "owner": ("int32", (n + n_outside,)),
            "passages": ("float16", (9, 384)),
            "library": ("int32", (9,)),
            "own": ("float32", (7,)),
            "coverage": ("float32", (6,)),
            "gate.0.weight": ("float32", (256, 384)),
            "gate.0.bias": ("float32", (256,)),
            "gate.1.weight": ("float32", (128, 256)),
            "gate.1.bias": ("float32", (128,)),
            "gate.2.weight": ("float32", (3, 128)),
            "gate.2.bias": ("float32", (3,)),
        }

    def test_exemplars_lie_in_the_order_of_their_experts_with_the_outside_last(
        self, data: TrainingSet, trained: TrainedRouter
    ) -> None:
        tensors, about = read_tensors(trained.files[WEIGHTS]), json.loads(trained.files[ABOUT])
        texts = [text for expert in data.experts for text in expert.exemplars] + list(OUTSIDE)
        assert about["exemplars"] == texts
        np.testing.assert_array_equal(tensors["exemplars"], embed(texts).astype(np.float16))
        assert tensors["owner"].tolist() == [0] * 12 + [1] * 12 + [2] * 12 + [-1] * 4
        assert tensors["library"].tolist() == [0] * 3 + [1] * 3 + [2] * 3

    def test_it_says_of_what_it_was_made(self, data: TrainingSet, trained: TrainedRouter) -> None:
        about = json.loads(trained.files[ABOUT])
        assert about["format"] == 1
        assert about["encoder"] == "hashing"
        assert about["experts"] == list(EXEMPLARS)
        assert about["keywords"] == {name: list(keywords) for name, keywords in EXEMPLARS.items()}
        assert about["layers"] == 3
        assert 0.05 <= about["temperature"] <= 10
        assert about["calibration"]["slope"] >= 0.05

    def test_a_large_library_is_represented_by_a_sample_of_its_passages(self, data: TrainingSet) -> None:
        random = np.random.default_rng(0)
        many = random.standard_normal((MAX_PASSAGES + 88, 384)).astype(np.float32)
        many /= np.linalg.norm(many, axis=1, keepdims=True)
        large = replace(data, experts=[replace(data.experts[0], passages=many), *data.experts[1:]])
        tensors = read_tensors(train(large).files[WEIGHTS])
        assert np.bincount(tensors["library"]).tolist() == [MAX_PASSAGES, 3, 3]
        rows = {row.tobytes(): place for place, row in enumerate(many.astype(np.float16))}
        places = [rows[row.tobytes()] for row in tensors["passages"][:MAX_PASSAGES]]
        assert places == sorted(set(places))

    def test_one_seed_gives_one_router_and_another_seed_another(
        self, data: TrainingSet, trained: TrainedRouter
    ) -> None:
        assert train(data).files == trained.files
        other = read_tensors(train(replace(data, seed=1)).files[WEIGHTS])
        tensors = read_tensors(trained.files[WEIGHTS])
        assert not np.array_equal(other["gate.0.weight"], tensors["gate.0.weight"])
        np.testing.assert_array_equal(other["exemplars"], tensors["exemplars"])


def reference_ece(confidence: list[float], right: list[bool], bins: int) -> float:
    """Guo et al. 2017, one bin after another."""
    total = 0.0
    for b in range(bins):
        inside = [
            (c, r)
            for c, r in zip(confidence, right, strict=True)
            if b / bins <= c < (b + 1) / bins or (c == 1 and b == bins - 1)
        ]
        if inside:
            gap = sum(c for c, _ in inside) / len(inside) - sum(r for _, r in inside) / len(inside)
            total += abs(gap) * len(inside) / len(confidence)
    return total


class TestExpectedCalibrationError:
    @LAW
    @given(
        pairs=st.lists(st.tuples(st.integers(0, 64).map(lambda n: n / 64), st.booleans()), min_size=1, max_size=40),
        bins=st.sampled_from([1, 2, 4, 8, 16]),
    )
    def test_it_is_the_weighted_gap_of_every_bin(self, pairs: list[tuple[float, bool]], bins: int) -> None:
        """Confidences and bins are binary fractions, so that neither side rounds at an edge."""
        confidence, right = [c for c, _ in pairs], [r for _, r in pairs]
        found = expected_calibration_error(np.array(confidence, np.float32), np.array(right), bins)
        assert found == pytest.approx(reference_ece(confidence, right, bins), abs=1e-6)

    @pytest.mark.parametrize(
        ("confidence", "right", "expected"),
        [
            ([1.0, 1.0], [True, True], 0),
            ([1.0, 1.0], [False, False], 1),
            ([0.0], [False], 0),
            ([0.5, 0.5], [True, False], 0),
            ([0.9, 0.9, 0.1], [True, True, False], 0.1),
            ([0.8, 0.3], [False, True], 0.75),
        ],
    )
    def test_known_cases(self, confidence: list[float], right: list[bool], expected: float) -> None:
        found = expected_calibration_error(np.array(confidence, np.float32), np.array(right))
        assert found == pytest.approx(expected, abs=1e-6)


class TestMetrics:
    def test_they_are_measured_on_all_exemplars(self, data: TrainingSet, trained: TrainedRouter) -> None:
        assert list(trained.metrics) == ["exemplars", "accuracy", "ece", "coverage_auroc"]
        assert trained.metrics["exemplars"] == 36
        assert trained.metrics["accuracy"] > 0.9
        assert 0 <= trained.metrics["ece"] < 0.2
        assert 0.8 < trained.metrics["coverage_auroc"] <= 1

    def test_a_catalogue_of_noise_measures_as_a_guess(self) -> None:
        """Exemplars are judged by gates that have not seen them: memorising them gains nothing."""
        random = np.random.default_rng(5)
        experts = []
        for name in ("bank", "code"):
            vectors = random.standard_normal((100, 32)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            experts.append(ExpertProfile(name, [], [f"{name} {n}" for n in range(100)], vectors))
        metrics = train(TrainingSet(experts, [], None, "noise")).metrics
        # Four standard deviations of 200 tries at a half are 0.14.
        assert metrics["accuracy"] == pytest.approx(0.5, abs=0.14)
        assert metrics["coverage_auroc"] == pytest.approx(0.5, abs=0.3)

    def test_one_expert_with_nothing_outside_has_no_coverage_to_measure(self) -> None:
        metrics = train(training_set(("bank",), outside=())).metrics
        assert metrics == {"exemplars": 12, "accuracy": 1.0, "ece": 0.0, "coverage_auroc": None}
