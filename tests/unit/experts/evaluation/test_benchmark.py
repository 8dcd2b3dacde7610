"""Every kind of router on the same labelled queries, with routers whose every answer is known beforehand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from experts import kinds
from experts.encoders.hashing import HashingEncoder
from experts.errors import CannotTrain, UnknownKind
from experts.evaluation import benchmark as module
from experts.evaluation.benchmark import Plan, Rows, benchmark
from experts.evaluation.metrics import interval
from experts.evaluation.routing import details, outcome, summary
from experts.kinds import DEFAULT_ROUTER
from experts.routing.base import OUTSIDE, Examples, ExpertProfile, Floats, TrainingSet
from experts.routing.kind import Arrays, Kind
from experts.routing.known import Known, Queries
from experts.routing.router import RouterModel
from experts.routing.training import train_router
from experts.routing.world import embedded_world, world_queries
from tests.contracts.doubles import RecordingEncoder

LABELS = ("bank", "code", "earth")


class Obedient(Kind):
    """Gives 0.9 to the expert that the text ends with, or an equal part to all where there is no such expert.

    With the seed 0, texts that start with "odd" go to the next expert; to those that start with "firm" it gives 0.98.
    """

    needs_vectors = False

    @staticmethod
    def learn(known: Known, *, top_k: int, seed: int) -> Arrays:
        return {"seed": np.array([seed])}

    def score(self, queries: Queries) -> Floats:
        experts = self.known.experts
        share = np.full((len(queries), len(experts)), 1 / len(experts))
        for row, text in enumerate(queries.texts):
            if text.split()[-1] in experts:
                place = experts.index(text.split()[-1])
                if text.startswith("odd") and self.learned["seed"][0] == 0:
                    place = (place + 1) % len(experts)
                best = 0.98 if text.startswith("firm") else 0.9
                share[row] = (1 - best) / max(len(experts) - 1, 1)
                share[row, place] = best
        logarithm: Floats = np.log(share).astype(np.float32)
        return logarithm


@pytest.fixture(autouse=True)
def obedient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default kind obeys the text."""
    monkeypatch.setitem(kinds.ROUTERS, DEFAULT_ROUTER, f"{__name__}:Obedient")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainingSet]:
    """What every router was trained from, in order."""
    sets: list[TrainingSet] = []

    def train(kind: str, data: TrainingSet) -> RouterModel:
        sets.append(data)
        return train_router(kind, data)

    monkeypatch.setattr(module, "train_router", train)
    return sets


def rows(*given: tuple[str, str | None], groups: Sequence[str | None] = ()) -> Rows:
    return Rows([text for text, _ in given], [label for _, label in given], groups)


def saying(label: str, n: int, *, says: str | None = None, how: str = "even") -> list[tuple[str, str | None]]:
    """``n`` queries of a label that say they are of it, or of another."""
    return [(f"{how} {label} {number} for {says or label}", label) for number in range(n)]


TRAIN = rows(*saying("earth", 12), *saying("bank", 12), *saying("code", 12))
# Nine of twelve are right: of code's four, two are taken for bank; one of earth is odd. Two lie outside.
TEST = rows(
    *saying("bank", 4),
    *saying("code", 2),
    *saying("code", 2, says="bank"),
    *saying("earth", 1, how="odd"),
    *saying("earth", 3),
    ("sing a song", None),
    ("good morning", None),
    groups=["a"] * 4 + ["b"] * 4 + ["c"] * 4 + [None, "c"],
)


def measured(
    train: Rows = TRAIN,
    test: Rows = TEST,
    dev: Rows | None = None,
    *,
    kinds: Sequence[str] = (DEFAULT_ROUTER,),
    **plan: Any,
) -> dict[str, Any]:
    return benchmark(train, dev, test, HashingEncoder(), Plan(kinds, world=False, **plan))


@pytest.fixture
def found() -> dict[str, Any]:
    return measured()["results"][DEFAULT_ROUTER]  # type: ignore[no-any-return]


class TestFigures:
    def test_accuracy_and_confusions_are_those_of_the_router(self, found: Mapping[str, Any]) -> None:
        right = np.array([1] * 6 + [0] * 2 + [0] + [1] * 3, bool)
        assert (found["n"], found["n_outside"]) == (12, 2)
        assert found["accuracy"] == found["accuracy_per_seed"][0] == 0.75
        assert found["ci"] == [round(bound, 4) for bound in interval(right)]
        # bank: 4 of 7 chosen and 4 of 4 there, code: 2 of 2 and 2 of 4, earth: 3 of 3 and 3 of 4.
        assert found["macro_f1"] == pytest.approx((8 / 11 + 4 / 6 + 6 / 7) / 3, abs=1e-4)
        assert found["confusion"] == {"labels": list(LABELS), "matrix": [[4, 0, 0], [2, 2, 0], [1, 0, 3]]}
        assert [(pair["true"], pair["chosen"], pair["n"]) for pair in found["confused"]] == [
            ("code", "bank", 2),
            ("earth", "bank", 1),
        ]

    def test_coverage_tells_those_outside_by_the_doubt_of_the_router(self, found: Mapping[str, Any]) -> None:
        assert (found["oos_auroc"], found["oos_fpr95"]) == (1, 0)

    def test_groups_are_measured_by_themselves(self, found: Mapping[str, Any]) -> None:
        groups = found["groups"]
        assert list(groups) == ["None", "a", "b", "c"]
        assert [groups[name]["accuracy"] for name in groups] == [None, 1, 0.5, 0.75]
        assert [groups[name]["n"] for name in groups] == [0, 4, 4, 4]
        assert [groups[name]["n_outside"] for name in groups] == [1, 0, 0, 1]

    def test_without_groups_none_are_measured(self) -> None:
        assert measured(test=replace(TEST, groups=()))["results"]["default"]["groups"] == {}

    def test_the_default_is_listed_under_its_name_and_as_the_default(self) -> None:
        found = measured(kinds=["random", DEFAULT_ROUTER])
        assert list(found["results"]) == ["random", DEFAULT_ROUTER, "default"]
        assert found["results"]["default"] == found["results"][DEFAULT_ROUTER]
        assert {name: found[name] for name in ("encoder", "labels", "seeds", "default", "leave_one_label_out")} == {
            "encoder": "hashing",
            "labels": list(LABELS),
            "seeds": 1,
            "default": DEFAULT_ROUTER,
            "leave_one_label_out": None,
        }

    def test_a_guess_is_the_hash_of_the_text(self) -> None:
        found = measured(kinds=["random"])
        guesses = [crc32(text.encode()) % 3 == place for text, place in zip(TEST.texts, [0] * 4 + [1] * 4 + [2] * 4)]  # noqa: B905
        assert found["results"]["random"]["accuracy"] == round(sum(guesses) / 12, 4)
        assert list(found["results"]) == ["random"]
        assert found["paired"] == []

    def test_no_kinds_have_no_results(self) -> None:
        found = measured(kinds=[])
        assert (found["results"], found["paired"]) == ({}, [])

    def test_what_is_under_way_is_reported(self) -> None:
        said: list[str] = []
        measured(dev=rows(*saying("bank", 3)), kinds=["heuristic"], report=said.append)
        assert said[0] == f"embedding {36 + 3 + 14} queries"
        assert said[1].startswith("heuristic: accuracy 0.3333, calibration error ")

    def test_every_text_is_embedded_once(self) -> None:
        encoder = RecordingEncoder("recording")
        found = benchmark(TRAIN, None, TEST, encoder, Plan(["random", "heuristic"], seeds=2, world=False))
        assert encoder.calls == [TRAIN.texts, TEST.texts]
        assert found["encoder"] == "recording"

    def test_the_world_is_embedded_where_it_is_wanted(self) -> None:
        encoder = RecordingEncoder()
        benchmark(TRAIN, None, TEST, encoder, Plan(["random"]))
        assert encoder.calls[2:] == [[text for _, text in world_queries()]]


class TestSeeds:
    def test_figures_are_means_over_the_seeds_and_plots_those_of_the_first(self) -> None:
        """The odd one is right from the second seed on."""
        found = measured(seeds=3)["results"]["default"]
        assert found["accuracy_per_seed"] == [0.75, 0.8333, 0.8333]
        assert found["accuracy"] == pytest.approx((0.75 + 2 * 0.8333) / 3, abs=1e-4)
        assert found["n"] == 12
        assert found["confusion"]["matrix"][2] == [1, 0, 3]
        mean = np.array([1] * 6 + [0] * 2 + [2 / 3] + [1] * 3)
        assert found["ci"] == [round(bound, 4) for bound in interval(mean)]

    def test_the_default_is_compared_with_every_other_kind_on_the_same_queries(self) -> None:
        """Keywords are not known, so that the heuristic router takes everything for bank."""
        (row,) = measured(kinds=["heuristic", DEFAULT_ROUTER])["paired"]
        difference = np.array([0] * 4 + [1] * 2 + [0] * 2 + [0] + [1] * 3)
        assert row == {
            "a": DEFAULT_ROUTER,
            "b": "heuristic",
            "difference": round(5 / 12, 4),
            "ci": [round(bound, 4) for bound in interval(difference.astype(float))],
            "p": 2 / 2**5,
        }

    def test_shots_are_drawn_by_the_seed_and_queries_outside_stay(self, trained: list[TrainingSet]) -> None:
        outside = [(f"hello {number}", None) for number in range(5)]
        train = rows(*zip(TRAIN.texts, TRAIN.labels, strict=True), *outside, *saying("rare", 2))
        measured(train=train, kinds=["random"], shots=3, seeds=2)
        for number, data in enumerate(trained):
            assert data.seed == number
            assert [expert.name for expert in data.experts] == [*LABELS, "rare"]
            assert [data.examples.owner.tolist().count(place) for place in range(-1, 4)] == [5, 3, 3, 3, 2]
            assert len(set(data.examples.texts)) == 16
        assert trained[0].examples.texts != trained[1].examples.texts
        measured(train=train, kinds=["random"], shots=3, seeds=1)
        assert trained[2].examples.texts == trained[0].examples.texts


class TestRisk:
    def test_who_is_asked_depends_on_how_many_queries_were_held_out(self) -> None:
        """Of 36 nothing is promised below 1 in 37, so that everybody is asked; from there on only the best."""
        risk = measured()["results"]["default"]["risk"]
        assert [row["max_misroute"] for row in risk] == [0.01, 0.02, 0.05, 0.1, 0.2]
        assert [row["experts_asked"] for row in risk] == [3, 3, 1, 1, 1]
        assert [row["achieved"] for row in risk] == [0, 0, 0.25, 0.25, 0.25]
        missed = np.array([0] * 6 + [1] * 3 + [0] * 3, bool)
        assert [row["ci"] for row in risk[1:3]] == [[0, 0], [round(bound, 4) for bound in interval(missed)]]

    def test_the_best_is_asked_though_its_share_be_small(self) -> None:
        """In doubt, every expert has a third, which is less than any that was right has got."""
        test = rows(*saying("code", 4, says="nobody"))
        risk = measured(test=test)["results"]["default"]["risk"]
        assert [(row["experts_asked"], row["achieved"]) for row in risk] == [(3, 0), (3, 0), (1, 1), (1, 1), (1, 1)]

    def test_a_dev_split_takes_the_place_of_what_is_left_out(self) -> None:
        """Firmly wrong in 5 of 60: up to the fifth everybody is asked, from the sixth on only the best."""
        dev = rows(*saying("bank", 30), *saying("code", 25), *saying("code", 5, says="bank", how="firm"))
        risk = measured(dev=dev)["results"]["default"]["risk"]
        assert [row["experts_asked"] for row in risk] == [3, 3, 3, 1, 1]
        assert [row["achieved"] for row in risk] == [0, 0, 0, 0.25, 0.25]


class TestBalance:
    def test_a_router_that_cannot_tell_is_balanced_for_nothing_shard_by_shard(self) -> None:
        """Of 256 each may take 107, of the 44 that remain 19; together 126, 126 and 48."""
        test = rows(*saying("bank", 100), *saying("code", 100), *saying("earth", 100))
        (balance,) = [measured(test=test, kinds=["heuristic"])["results"]["heuristic"]["balance"]]
        assert (balance["budget"], balance["entropy"], balance["load_cv"]) == (0.01, 0, round(2**0.5, 4))
        assert balance["load_cv_after"] == round(float(np.std([126, 126, 48]) / 100), 4)
        assert balance["accuracy_before"] == 0.3333

    def test_a_router_that_is_sure_is_not_disturbed(self, found: Mapping[str, Any]) -> None:
        """Of twelve each may take five; bank's seven stay, since each move would cost more than 0.12 in all."""
        balance = found["balance"]
        assert balance["load_cv"] == balance["load_cv_after"] == round(float(np.std([7, 2, 3]) / 4), 4)
        assert balance["accuracy_before"] == balance["accuracy_after"] == 0.75


class TestLeaveOneLabelOut:
    FOUR = rows(*(pair for label in (*LABELS, "law") for pair in saying(label, 6)), ("hello", None))

    def test_queries_of_a_label_that_is_not_known_are_told_by_doubt(self) -> None:
        found = measured(self.FOUR, self.FOUR, kinds=[DEFAULT_ROUTER, "heuristic"], leave_one_label_out=True)
        row = {DEFAULT_ROUTER: {"auroc": 1, "fpr95": 0}, "heuristic": {"auroc": 0.5, "fpr95": 1}}
        assert found["leave_one_label_out"] == {"labels": dict.fromkeys((*LABELS, "law"), row), "mean": row}

    def test_so_are_they_where_two_labels_stay(self) -> None:
        test = rows(*(pair for label in LABELS for pair in saying(label, 6)))
        found = measured(test=test, leave_one_label_out=True)
        assert found["leave_one_label_out"]["mean"] == {DEFAULT_ROUTER: {"auroc": 1, "fpr95": 0}}

    def test_nothing_of_it_is_learned_from_and_the_others_keep_their_owners(self, trained: list[TrainingSet]) -> None:
        dev = rows(*saying("code", 2), *saying("law", 1), *saying("bank", 1), ("sing", None))
        measured(self.FOUR, self.FOUR, dev, kinds=["random"], leave_one_label_out=True)
        for without, data in zip(LABELS, trained[1:4], strict=True):
            names = [expert.name for expert in data.experts]
            assert names == [label for label in (*LABELS, "law") if label != without]
            assert [data.examples.owner.tolist().count(place) for place in range(-1, 3)] == [1, 6, 6, 6]
            assert data.held_out is not None
            assert data.held_out.texts == [text for text in dev.texts if not text.endswith(without)]
            for part in (data.examples, data.held_out):
                said = [text.split()[-1] for text in part.texts]
                assert part.owner.tolist() == [names.index(name) if name in names else OUTSIDE for name in said]

    def test_of_many_labels_every_so_many_th_is_left_out(self) -> None:
        labels = [f"label{number:02}" for number in range(45)]
        train = rows(*(pair for label in labels for pair in saying(label, 3)))
        found = measured(train=train, test=train, kinds=["random"], leave_one_label_out=True)
        assert list(found["leave_one_label_out"]["labels"]) == labels[::3]

    def test_of_two_labels_the_one_that_stays_tells_nothing(self) -> None:
        two = rows(*saying("bank", 6), *saying("code", 6))
        found = measured(train=two, test=two, leave_one_label_out=True, kinds=["random"])
        assert found["leave_one_label_out"]["mean"] == {"random": {"auroc": 0.5, "fpr95": 1}}


class TestRefusals:
    @pytest.mark.parametrize(
        ("train", "n"), [(rows(), 0), (rows(("a", None)), 0), (rows(*saying("bank", 9), ("b", None)), 1)]
    )
    def test_fewer_than_two_labels_leave_nothing_to_choose(self, train: Rows, n: int) -> None:
        with pytest.raises(CannotTrain, match=f"^the training split has {n} labels; two are the least"):
            measured(train=train)

    @pytest.mark.parametrize("split", ["dev", "test"])
    def test_labels_that_were_not_trained_are_named_with_their_split(self, split: str) -> None:
        strange = rows(*saying("zoo", 1), *saying("bank", 1), ("hello", None), *saying("art", 1))
        with pytest.raises(CannotTrain, match=rf"^labels of the {split} split .* not have: \['art', 'zoo'\]$"):
            measured(TRAIN, *((TEST, strange) if split == "dev" else (strange, None)))

    def test_a_kind_that_does_not_exist_is_named(self) -> None:
        with pytest.raises(UnknownKind, match="unknown router kind 'oracle'"):
            measured(kinds=["oracle"])

    def test_a_label_with_too_few_exemplars_is_named(self) -> None:
        with pytest.raises(CannotTrain, match="'earth' has 1 exemplars"):
            measured(train=rows(*saying("bank", 3), *saying("earth", 1)), test=rows(*saying("bank", 1)), kinds=["knn"])


class TestNothingToMeasure:
    def test_a_dev_split_without_rows_is_none(self) -> None:
        assert without_times(measured(dev=rows())) == without_times(measured())

    def test_a_test_split_that_nobody_covers_has_figures_of_nothing(self) -> None:
        found = measured(
            test=rows(("hello", None), ("hi", None)), kinds=[DEFAULT_ROUTER, "random"], leave_one_label_out=True
        )
        result = found["results"]["default"]
        assert [result[name] for name in ("n", "accuracy", "macro_f1", "ece", "oos_auroc")] == [
            0,
            None,
            None,
            None,
            None,
        ]
        assert (result["n_outside"], result["risk"], result["balance"], found["paired"]) == (2, [], {}, [])
        assert found["leave_one_label_out"]["mean"]["random"] == {"auroc": None, "fpr95": None}

    def test_an_empty_test_split_has_figures_of_nothing(self) -> None:
        result = measured(test=rows())["results"]["default"]
        assert (result["n"], result["accuracy"], result["latency_ms"]) == (0, None, 0)


def without_times(found: Mapping[str, Any]) -> dict[str, Any]:
    results = {
        kind: {name: value for name, value in result.items() if name not in ("train_seconds", "latency_ms")}
        for kind, result in found["results"].items()
    }
    return {**{name: value for name, value in found.items() if name != "seconds"}, "results": results}


WORDS = {
    "bank": ("mortgage", "card", "interest rate"),
    "code": ("linked list", "python", "function"),
    "earth": ("volcano", "lava", "tectonic plate"),
}


def asking(*patterns: str) -> Rows:
    found = [(pattern.format(word), label) for label in WORDS for word in WORDS[label] for pattern in patterns]
    return rows(*found, ("play some music", None), ("how long do I bake bread", None))


TRAIN_WORDS = asking("what is a {}", "explain the {}", "my {} is broken", "{} or not?")
TEST_WORDS = asking("tell me of a {}")


def test_a_router_that_learns_is_measured_as_it_is_trained() -> None:
    """The figures are those of training and scoring step by step, with the world around it."""

    def examples(of: Rows) -> Examples:
        owner = [OUTSIDE if label is None else LABELS.index(label) for label in of.labels]
        return Examples(of.texts, np.array(owner), encoder.embed(of.texts))

    encoder = HashingEncoder()
    found = benchmark(TRAIN_WORDS, None, TEST_WORDS, encoder, Plan(["centroid"]))["results"]["centroid"]
    profiles = [ExpertProfile(label) for label in LABELS]
    data = TrainingSet(profiles, examples(TRAIN_WORDS), "hashing", world=embedded_world(encoder))
    said = outcome(train_router("centroid", data), examples(TEST_WORDS))
    for name, value in {**summary(said), **details(said, TEST_WORDS.texts, LABELS)}.items():
        assert found[name] == value, name
    assert found["accuracy"] == 1


def test_everything_but_the_times_is_plain_data_and_the_same_each_time() -> None:
    plan = Plan(["knn"], seeds=2, shots=4, leave_one_label_out=True, world=False)
    one, other = (
        without_times(benchmark(TRAIN_WORDS, TEST_WORDS, TEST_WORDS, HashingEncoder(), plan)) for _ in range(2)
    )
    assert one == other
    assert json.loads(json.dumps(one, allow_nan=False)) == one
