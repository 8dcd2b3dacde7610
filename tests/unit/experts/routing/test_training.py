"""Training: what is learned from, what is left out, what is measured, and what cannot be trained on."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from experts import kinds
from experts.encoders.base import Embedded, of_vectors
from experts.errors import CannotTrain, UnknownKind
from experts.routing.base import OUTSIDE, Examples, ExpertProfile, Floats, Places, TrainingSet, World
from experts.routing.kind import Arrays, Kind
from experts.routing.known import Known, Queries
from experts.routing.training import fit_temperature, held_out_features, train_router
from experts.routing.votes import centroid_scores, centroids
from tests.contracts import clusters

# What the double below was given: ("learn", texts, top_k, seed) and ("score", known texts, asked texts).
CALLS: list[tuple[object, ...]] = []


class Router(Kind):
    """The nearest centroid, which writes down what it is shown."""

    @staticmethod
    def learn(known: Known, *, top_k: int, seed: int) -> Arrays:
        CALLS.append(("learn", tuple(known.texts), top_k, seed))
        return {"sizes": np.bincount(known.owner, minlength=len(known.experts))}

    def score(self, queries: Queries) -> Floats:
        CALLS.append(("score", tuple(self.known.texts), tuple(queries.texts)))
        np.testing.assert_array_equal(
            self.learned["sizes"], np.bincount(self.known.owner, minlength=len(self.known.experts))
        )
        centres = centroids(self.known.vectors, self.known.owner, len(self.known.experts))
        return centroid_scores(queries.vectors, centres)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The double is registered as a kind; what it is shown."""
    monkeypatch.setitem(kinds.ROUTERS, "recorded", "tests.unit.experts.routing.test_training:Router")
    CALLS.clear()
    return CALLS


def embedded(examples: Examples) -> Embedded:
    assert examples.embedded is not None
    return examples.embedded


def negative_log_likelihood(logits: Floats, owner: Places, temperature: float) -> float:
    scaled = logits.astype(np.float64) / temperature
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(owner)), owner]))


class TestFitTemperature:
    @staticmethod
    def honest(n: int = 4000) -> tuple[Floats, Places]:
        """Logits that say exactly how likely each expert is: their temperature is 1."""
        random = np.random.default_rng(3)
        logits = (1.5 * random.standard_normal((n, 4))).astype(np.float32)
        return logits, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)

    @pytest.mark.parametrize("exaggeration", [0.25, 0.5, 1.0, 2.0, 4.0])
    def test_it_undoes_how_much_the_logits_exaggerate(self, exaggeration: float) -> None:
        logits, owner = self.honest()
        assert fit_temperature(logits * np.float32(exaggeration), owner) == pytest.approx(exaggeration, rel=0.1)

    def test_no_other_temperature_is_clearly_more_likely(self) -> None:
        logits, owner = self.honest(200)
        found = negative_log_likelihood(logits, owner, fit_temperature(logits, owner))
        tried = [negative_log_likelihood(logits, owner, temperature) for temperature in np.geomspace(0.2, 5, 1000)]
        assert found == pytest.approx(min(tried), abs=1e-3)

    @pytest.mark.parametrize(("sign", "expected"), [(1, 0.2), (-1, 5.0)])
    def test_it_stays_within_its_bounds_where_the_logits_are_always_right_or_wrong(
        self, sign: int, expected: float
    ) -> None:
        owner = np.array([0, 1, 2] * 5)
        assert fit_temperature((sign * np.eye(3, dtype=np.float32))[owner], owner) == pytest.approx(expected)


class TestLeavingOut:
    def test_every_exemplar_is_scored_once_by_who_has_not_seen_it(self, recorded: list[tuple[object, ...]]) -> None:
        examples = clusters.draw(6, seed=1)
        train_router("recorded", clusters.training_set(examples))
        everything = set(examples.texts)
        learned = [texts for what, texts, *_ in recorded if what == "learn"]
        assert [len(set(texts)) for texts in learned if isinstance(texts, tuple)] == [24, 16, 16, 16]
        scored = [
            (set(known), set(asked))
            for what, known, asked, *_ in recorded
            if what == "score" and known and isinstance(known, tuple) and isinstance(asked, tuple)
        ]
        folds = scored[:3]
        assert all(known == everything - asked for known, asked in folds)
        assert sorted(text for _, asked in folds for text in asked) == sorted(everything)

    def test_each_experts_exemplars_are_spread_evenly(self, recorded: list[tuple[object, ...]]) -> None:
        examples = clusters.draw(6, seed=1)
        owner = dict(zip(examples.texts, examples.owner.tolist(), strict=True))
        train_router("recorded", clusters.training_set(examples))
        for _, texts, *_ in recorded[1:7:2]:
            assert isinstance(texts, tuple)
            assert np.bincount([owner[text] for text in texts]).tolist() == [4, 4, 4, 4]

    @pytest.mark.parametrize(("n", "folds"), [(2, 2), (3, 3), (11, 3), (12, 6)])
    def test_from_a_dozen_exemplars_on_clusters_are_left_out_as_well(
        self, recorded: list[tuple[object, ...]], n: int, folds: int
    ) -> None:
        train_router("recorded", clusters.training_set(clusters.draw(n, seed=1)))
        assert sum(what == "learn" for what, *_ in recorded) == 1 + folds

    def test_top_k_and_seed_reach_whatever_is_learned(self, recorded: list[tuple[object, ...]]) -> None:
        data = replace(clusters.training_set(clusters.draw(3, seed=1), seed=17), top_k=3)
        train_router("recorded", data)
        assert {call[2:] for call in recorded if call[0] == "learn"} == {(3, 17)}

    def test_nothing_is_learned_from_held_out_queries(self, recorded: list[tuple[object, ...]]) -> None:
        examples, held_out = clusters.draw(4, seed=1), clusters.draw(5, seed=2)
        alone = train_router("recorded", clusters.training_set(examples))
        router = train_router("recorded", clusters.training_set(examples, held_out=held_out))
        learned = {
            text for what, texts, *_ in recorded if what == "learn" and isinstance(texts, tuple) for text in texts
        }
        assert learned == set(examples.texts)
        assert router.known.texts == alone.known.texts
        np.testing.assert_array_equal(router.known.vectors, alone.known.vectors)
        assert (len(alone.calibration.conformal.right_shares), alone.metrics["held_out"]) == (16, 16)
        assert (len(router.calibration.conformal.right_shares), router.metrics["held_out"]) == (20, 20)


class TestMeasuring:
    def test_what_is_measured_is_exact_where_everything_is_right(self) -> None:
        vectors = np.eye(4, dtype=np.float32)[np.repeat([0, 1], 4)] + np.tile(
            np.eye(4, dtype=np.float32)[2:] / 4, (4, 1)
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        examples = Examples([f"text {n}" for n in range(8)], np.repeat([0, 1], 4), of_vectors(vectors))
        said: list[str] = []
        router = train_router("knn", clusters.training_set(examples, names=clusters.NAMES[:2]), report=said.append)
        assert router.metrics == {"exemplars": 8, "adopted": 0, "held_out": 8, "accuracy": 1.0, "ece": 0.018}
        assert said == ["learning from 8 exemplars, and 0 adopted from the world", "measuring on exemplars left out"]

    def test_accuracy_and_calibration_are_those_of_the_held_out_queries(self) -> None:
        held_out = clusters.draw(50, seed=2)
        router = train_router("centroid", clusters.training_set(clusters.draw(12, seed=1), held_out=held_out))
        scores = router.score(held_out.texts, held_out.embedded)
        right = scores.share.argmax(axis=1) == held_out.owner
        assert router.metrics["accuracy"] == round(float(right.mean()), 4)
        assert 0 < router.metrics["ece"] < 0.15
        np.testing.assert_array_equal(
            router.calibration.conformal.right_shares, np.sort(scores.share[np.arange(200), held_out.owner])
        )

    def test_confidence_is_read_from_the_features_that_it_was_fitted_on(self) -> None:
        queries = clusters.draw(10, seed=2)
        router = train_router("knn", clusters.training_set(clusters.draw(12, seed=1)))
        features, share, owner = held_out_features(router, queries)
        scores = router.score(queries.texts, queries.embedded)
        np.testing.assert_array_equal(share, scores.share)
        np.testing.assert_array_equal(owner, queries.owner)
        np.testing.assert_array_equal(router.calibration.confidence(features), scores.confidence)

    def test_held_out_queries_that_contradict_the_exemplars_take_confidence_away(self) -> None:
        examples, held_out = clusters.draw(20, seed=1), clusters.draw(20, seed=2)
        agreed = train_router("centroid", clusters.training_set(examples, held_out=held_out))
        turned = replace(held_out, owner=(held_out.owner + 1) % 4)
        contradicted = train_router("centroid", clusters.training_set(examples, held_out=turned))
        queries = clusters.draw(20, seed=3)
        confident, doubting = (
            router.score(queries.texts, queries.embedded).confidence.mean() for router in (agreed, contradicted)
        )
        assert confident > 0.7
        assert doubting < 0.4
        assert agreed.calibration.temperature < contradicted.calibration.temperature == pytest.approx(5)

    def test_clusters_that_go_astray_when_left_out_take_confidence_from_strangers(self) -> None:
        """Each expert's three subjects lie beside the other's: whoever has not seen one sends it to the neighbour."""
        subject, owner = np.tile(np.repeat([0, 1, 2], 4), 2), np.repeat([0, 1], 12)
        vectors = np.eye(10)[subject] + 0.5 * np.eye(10)[6 + owner]
        vectors += 0.02 * np.random.default_rng(0).standard_normal(vectors.shape)
        unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        examples = Examples([f"text {n}" for n in range(24)], owner, of_vectors(unit))
        router = train_router("centroid", clusters.training_set(examples, names=clusters.NAMES[:2]))
        assert router.metrics["accuracy"] == 1
        stranger = of_vectors(np.eye(1, 10, 5, dtype=np.float32))
        assert router.score(["?"], stranger).confidence[0] < 0.6
        assert router.score(examples.texts, examples.embedded).confidence.min() > 0.95

    def test_without_a_sign_four_in_five_are_taken_to_be_covered(self) -> None:
        """One expert, whose exemplars nothing tells from what lies outside."""
        examples = Examples([f"text {n}" for n in range(8)], np.array([0, 0, 0, 0, 0, 0, OUTSIDE, OUTSIDE]), None)
        router = train_router("heuristic", clusters.training_set(examples, names=clusters.NAMES[:1]))
        np.testing.assert_allclose(router.score(["text", "something else"], None).coverage, 0.8, atol=1e-3)

    def test_the_gates_weight_is_kept(self) -> None:
        data = replace(clusters.training_set(clusters.draw(4, seed=1)), gate_weight=1.0)
        router = train_router("centroid", data)
        scores = router.score(data.examples.texts, data.examples.embedded)
        np.testing.assert_allclose(scores.share, scores.gate, atol=1e-7)

    def test_where_the_queries_outside_stand_among_the_exemplars_makes_no_difference(self) -> None:
        inside, outside = clusters.draw(5, seed=1), clusters.beyond(5, seed=2)
        routers = [
            train_router("knn", clusters.training_set(clusters.both(*order)))
            for order in ((inside, outside), (outside, inside))
        ]
        assert routers[0].files() == routers[1].files()
        assert list(routers[1].known.texts) == inside.texts

    def test_what_is_given_stays_as_it_was(self) -> None:
        examples, held_out = (
            clusters.both(clusters.draw(12, seed=1), clusters.beyond(5, seed=2)),
            clusters.draw(3, seed=3),
        )
        around = clusters.world()
        before = [examples.owner.copy(), embedded(examples).vectors.copy(), embedded(examples).layers.copy()]
        before += [embedded(held_out).layers.copy(), around.topic.copy(), around.embedded.vectors.copy()]
        train_router("ensemble", clusters.training_set(examples, held_out=held_out, around=around))
        after = [examples.owner, embedded(examples).vectors, embedded(examples).layers]
        after += [embedded(held_out).layers, around.topic, around.embedded.vectors]
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)


class TestWordsAlone:
    def test_vectors_are_neither_needed_nor_kept(self) -> None:
        data = clusters.training_set(clusters.draw(3, seed=1), around=clusters.world())
        router = train_router("heuristic", data)
        assert router.encoder is None
        assert (router.known.vectors.shape, len(router.known.background)) == ((12, 0), 0)
        bare = replace(data, examples=replace(data.examples, embedded=None), world=None)
        assert train_router("heuristic", bare).files() == router.files()

    def test_vectors_that_are_not_numbers_do_no_harm(self) -> None:
        examples = clusters.draw(3, seed=1)
        embedded(examples).vectors[:] = np.nan
        train_router("heuristic", clusters.training_set(examples, held_out=examples))

    def test_a_keyword_of_one_of_two_experts_says_that_a_query_is_covered(self) -> None:
        """An exemplar without its expert has only one left to choose, and is no more certain for that."""
        drawn = clusters.draw(20, seed=1)
        examples = drawn.take(np.flatnonzero(drawn.owner < 2))
        router = train_router("heuristic", clusters.training_set(examples, names=clusters.NAMES[:2]))
        one, none = router.score(["north wind", "something"], None).coverage
        assert one > none + 0.1

    def test_one_exemplar_is_enough(self) -> None:
        router = train_router("heuristic", clusters.training_set(clusters.draw(1, seed=1)))
        assert router.metrics["held_out"] == 4


def spoiled(examples: Examples, place: int, part: str = "vectors") -> Examples:
    """One number of one query is none."""
    parts = {"vectors": embedded(examples).vectors.copy(), "layers": embedded(examples).layers.copy()}
    parts[part][place].reshape(-1)[3] = np.nan
    return replace(examples, embedded=Embedded(**parts))


class TestWhatCannotBeTrainedOn:
    EXAMPLES = clusters.draw(3, seed=1)
    FOREIGN = of_vectors(np.eye(2, 5, dtype=np.float32))

    def test_an_unknown_kind_is_named_with_those_there_are(self) -> None:
        with pytest.raises(UnknownKind, match=r"'oracle'; there are: .*ensemble, .*random"):
            train_router("oracle", clusters.training_set(self.EXAMPLES))

    @pytest.mark.parametrize("part", ["vectors", "layers"])
    def test_the_exemplar_whose_vector_is_not_all_numbers_is_named(self, part: str) -> None:
        data = clusters.training_set(spoiled(self.EXAMPLES, 4, part))
        with pytest.raises(CannotTrain, match=rf"^exemplar 5 \('{self.EXAMPLES.texts[4]}'\) has a vector"):
            train_router("knn", data)

    def test_so_is_the_held_out_query(self) -> None:
        data = clusters.training_set(self.EXAMPLES, held_out=spoiled(clusters.draw(2, seed=2), 7))
        with pytest.raises(CannotTrain, match=r"^held-out query 8 \("):
            train_router("knn", data)

    def test_a_long_text_is_shortened_in_the_message(self) -> None:
        examples = spoiled(replace(self.EXAMPLES, texts=["x" * 100_000] * 12), 0)
        with pytest.raises(CannotTrain) as caught:
            train_router("knn", clusters.training_set(examples))
        assert len(str(caught.value)) < 150

    def test_so_is_the_expert_whose_passage_is_not_all_numbers(self) -> None:
        passages = np.full((2, 16), np.inf, np.float32)
        data = clusters.training_set(self.EXAMPLES)
        data = replace(data, experts=[*data.experts[:3], ExpertProfile("west", passages=passages)])
        with pytest.raises(CannotTrain, match="a passage of expert 'west'"):
            train_router("knn", data)

    @pytest.mark.parametrize("what", ["exemplar", "held-out query"])
    def test_without_vectors_only_words_can_be_trained(self, what: str) -> None:
        bare = replace(self.EXAMPLES, embedded=None)
        examples, held_out = (bare, None) if what == "exemplar" else (self.EXAMPLES, bare)
        with pytest.raises(CannotTrain, match=f"no {what} has a vector"):
            train_router("knn", clusters.training_set(examples, held_out=held_out))

    def test_nor_can_a_world_with_a_vector_that_is_not_all_numbers_be_used(self) -> None:
        around = clusters.world()
        around.embedded.vectors[3, 3] = np.nan
        with pytest.raises(CannotTrain, match="world"):
            train_router("knn", clusters.training_set(self.EXAMPLES, around=around))

    @pytest.mark.parametrize("what", ["passages", "world", "held-out"])
    def test_vectors_of_another_encoder_are_refused(self, what: str) -> None:
        data = clusters.training_set(self.EXAMPLES)
        given: dict[str, TrainingSet] = {
            "passages": replace(
                data, experts=[*data.experts[:3], ExpertProfile("west", passages=self.FOREIGN.vectors)]
            ),
            "world": replace(data, world=World(["a", "b"], np.array([0, 0]), self.FOREIGN)),
            "held-out": replace(data, held_out=Examples(["a", "b"], np.array([0, 1]), self.FOREIGN)),
        }
        with pytest.raises(CannotTrain, match=what):
            train_router("knn", given[what])


class TestOddExemplars:
    @pytest.mark.parametrize("kind", ["knn", "neural", "ensemble"])
    @pytest.mark.parametrize("n_experts", [1, 2, 3])
    @pytest.mark.filterwarnings("ignore:Number of distinct clusters")
    def test_a_dozen_exemplars_that_mean_the_same_can_be_trained_on(self, kind: str, n_experts: int) -> None:
        owner: NDArray[np.int64] = np.repeat(np.arange(n_experts), 12)
        vectors = np.eye(n_experts, 4, dtype=np.float32)[owner]
        examples = Examples([f"text {n}" for n in range(len(owner))], owner, of_vectors(vectors))
        router = train_router(kind, clusters.training_set(examples, names=clusters.NAMES[:n_experts]))
        scores = router.score(examples.texts, examples.embedded)
        np.testing.assert_array_equal(scores.share.argmax(axis=1), owner)

    @pytest.mark.parametrize("n_experts", [1, 2, 4])
    def test_a_world_that_is_about_something_else_stays_the_world(self, n_experts: int) -> None:
        """However few experts there are to be compared with; of ten topics each expert owns one."""
        drawn = clusters.draw(10, seed=1, spread=0.2)
        examples = drawn.take(np.flatnonzero(drawn.owner < n_experts))
        names = clusters.NAMES[:n_experts]
        router = train_router("knn", clusters.training_set(examples, around=clusters.world(), names=names))
        assert OUTSIDE not in router.known.owner
        assert (router.metrics["adopted"], len(router.known.background)) == (6 * n_experts, 60 - 6 * n_experts)
