"""What every router promises: probabilities for every expert and query, trained and stored without surprises."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as read_tensors

from experts import kinds
from experts.encoders.base import Embedded, of_vectors
from experts.encoders.hashing import HashingEncoder
from experts.errors import CannotTrain, ModelUnusable
from experts.kinds import find
from experts.routing.base import Scores, TrainingSet
from experts.routing.router import RouterModel, load_router
from experts.routing.training import train_router
from tests.contracts import clusters
from tests.contracts.samples import EXEMPLARS, HOSTILE, LAW, ORDINARY, hostile, training_set
from tests.contracts.samples import OUTSIDE as OUTSIDERS

TOLERANCE = 1e-5
# Vectors are stored in 16 bit.
STORED = 2e-3
NAMES = tuple(EXEMPLARS)
NUMBERS = ("gate", "self_assessment", "share", "confidence", "coverage")

Ask = Callable[[Sequence[str]], Scores]


class Trained(NamedTuple):
    kind: str
    fresh: RouterModel
    folder: Path
    router: RouterModel


def write(files: Mapping[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def trained(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A router of this kind trained on a small set, and the same as it was stored and loaded."""
    fresh = train_router(kind, training_set())
    folder = write(fresh.files(), tmp_path_factory.mktemp("router") / "live-router")
    return Trained(kind, fresh, folder, load_router(folder))


def embedded_for(router: RouterModel, texts: Sequence[str]) -> Embedded | None:
    return HashingEncoder().embed(texts) if router.needs_vectors else None


@pytest.fixture(scope="module")
def ask(trained: Trained) -> Ask:
    """Score texts with the loaded router."""
    return lambda texts: trained.router.score(texts, embedded_for(trained.router, texts))


def assert_sound(scores: Scores, n: int, experts: Sequence[str]) -> None:
    """Everything a decision relies on."""
    for name in ("gate", "self_assessment", "share"):
        values = getattr(scores, name)
        assert (values.shape, values.dtype) == ((n, len(experts)), np.float32), name
        assert ((values >= 0) & (values <= 1)).all(), name
    for name in ("confidence", "coverage"):
        values = getattr(scores, name)
        assert (values.shape, values.dtype) == ((n,), np.float32), name
        assert ((values >= 0) & (values <= 1)).all(), name
    np.testing.assert_allclose(scores.gate.sum(axis=1), 1, atol=TOLERANCE)
    np.testing.assert_allclose(scores.share.sum(axis=1), 1, atol=TOLERANCE)
    assert len(scores.keywords) == len(scores.neighbours) == n
    for found in scores.keywords:
        assert set(found) <= set(experts)
    for neighbours in scores.neighbours:
        assert len(neighbours) <= 3
        assert all(near.expert is None or near.expert in experts for near in neighbours)
        assert [near.cosine for near in neighbours] == sorted((near.cosine for near in neighbours), reverse=True)


def assert_alike(found: Scores, expected: Scores, places: Sequence[int] | slice, atol: float = TOLERANCE) -> None:
    """``found`` is what ``expected`` says at these places."""
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name)[places], atol=atol, err_msg=name)
    chosen = np.arange(len(expected.coverage))[places]
    assert list(found.keywords) == [expected.keywords[place] for place in chosen]


def assert_identical(found: Scores, expected: Scores) -> None:
    for name in NUMBERS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert list(found.keywords) == list(expected.keywords)
    assert list(found.neighbours) == list(expected.neighbours)


class TestScores:
    def test_a_router_says_what_it_is_and_whom_it_knows(self, trained: Trained) -> None:
        for router in (trained.fresh, trained.router):
            assert (router.kind, router.experts) == (trained.kind, NAMES)
            assert router.encoder == ("hashing" if router.needs_vectors else None)

    def test_every_query_gets_probabilities_and_evidence(self, ask: Ask) -> None:
        assert_sound(ask(ORDINARY), len(ORDINARY), NAMES)

    def test_no_queries_get_empty_scores(self, ask: Ask) -> None:
        assert_sound(ask([]), 0, NAMES)

    def test_an_exemplar_goes_to_its_expert(self, trained: Trained, ask: Ask) -> None:
        examples = training_set(outside=()).examples
        assert (ask(examples.texts).share.argmax(axis=1) == examples.owner).all()

    def test_a_query_is_scored_the_same_alone_and_in_company_in_any_order(self, ask: Ask) -> None:
        """Of twenty queries on, neighbours are searched in another way."""
        texts = [*ORDINARY, *training_set().examples.texts, ORDINARY[0]]
        together = ask(texts)
        for place, text in enumerate(texts):
            assert_alike(ask([text]), together, [place])
        assert_alike(ask(texts[::-1]), together, slice(None, None, -1))

    @hostile
    def test_a_hostile_query_is_scored_and_leaves_its_neighbours_alone(self, ask: Ask, text: str) -> None:
        scores = ask([ORDINARY[0], text, ORDINARY[2]])
        assert_sound(scores, 3, NAMES)
        assert_alike(ask([ORDINARY[0], ORDINARY[2]]), scores, [0, 2])

    def test_the_same_queries_get_the_same_scores_every_time(self, ask: Ask) -> None:
        texts = [*ORDINARY, *HOSTILE.values()]
        assert_identical(ask(texts), ask(texts))

    def test_scoring_changes_neither_texts_nor_vectors(self, trained: Trained) -> None:
        texts, embedded = list(ORDINARY), HashingEncoder().embed(ORDINARY)
        trained.router.score(texts, embedded)
        assert texts == ORDINARY
        np.testing.assert_array_equal(embedded.vectors, HashingEncoder().encode(ORDINARY))
        np.testing.assert_array_equal(embedded.layers[:, 0], HashingEncoder().encode(ORDINARY))

    def test_vectors_made_for_the_engines_change_nothing_for_a_router_without(self, trained: Trained, ask: Ask) -> None:
        assert_identical(trained.router.score(ORDINARY, HashingEncoder().embed(ORDINARY)), ask(ORDINARY))

    @LAW
    @given(texts=st.lists(st.text(max_size=60) | st.sampled_from(ORDINARY), max_size=5))
    def test_whatever_the_queries_say_their_scores_are_sound(self, ask: Ask, texts: list[str]) -> None:
        assert_sound(ask(texts), len(texts), NAMES)

    def test_a_query_without_a_vector_is_refused(self, vectorial: str, trained: Trained) -> None:
        with pytest.raises(ModelUnusable, match=r"vectors of 384 numbers, .*\(hashing\)"):
            trained.router.score(ORDINARY, None)

    def test_vectors_of_another_length_are_refused(self, vectorial: str, trained: Trained) -> None:
        vectors = HashingEncoder().encode(ORDINARY)[:, :100]
        with pytest.raises(ModelUnusable, match=r"vectors of 384 numbers, .*\(hashing\)"):
            trained.router.score(ORDINARY, of_vectors(vectors))

    @pytest.mark.parametrize("shape", [(4, 384), (1, 100), (0, 384)], ids=str)
    def test_layers_of_another_encoder_are_refused(
        self, vectorial: str, trained: Trained, shape: tuple[int, int]
    ) -> None:
        vectors = HashingEncoder().encode(ORDINARY)
        layers = np.ones((len(ORDINARY), *shape), np.float32)
        with pytest.raises(ModelUnusable, match=r"layers of shape \(1, 384\), not " + rf"\({shape[0]}, {shape[1]}\)"):
            trained.router.score(ORDINARY, Embedded(vectors, layers))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("part", ["vectors", "layers"])
    def test_a_vector_that_is_not_all_numbers_is_refused(
        self, vectorial: str, trained: Trained, part: str, value: float
    ) -> None:
        embedded = HashingEncoder().embed(ORDINARY)
        parts = {"vectors": embedded.vectors.copy(), "layers": embedded.layers.copy()}
        parts[part][1].reshape(-1)[7] = value
        with pytest.raises(ModelUnusable, match="not all numbers"):
            trained.router.score(ORDINARY, Embedded(**parts))


class TestFiles:
    def test_a_loaded_router_scores_as_the_trained_one_did(self, trained: Trained) -> None:
        texts = [*ORDINARY, *HOSTILE.values(), *OUTSIDERS, *training_set().examples.texts]
        embedded = embedded_for(trained.fresh, texts)
        expected = trained.fresh.score(texts, embedded)
        found = trained.router.score(texts, embedded)
        assert_alike(found, expected, slice(None), atol=STORED)
        for row, wanted in zip(found.neighbours, expected.neighbours, strict=True):
            assert [near.cosine for near in row] == pytest.approx([near.cosine for near in wanted], abs=STORED)
        assert (trained.router.metrics, trained.router.gate_weight) == (trained.fresh.metrics, 0.6)
        for limit in (0.02, 0.1, 0.5):
            assert trained.router.risk(limit) == trained.fresh.risk(limit)

    def test_storing_a_loaded_router_gives_the_same_files_to_the_byte(self, trained: Trained) -> None:
        assert trained.router.files() == trained.fresh.files()

    def test_loading_from_another_place_gives_identical_scores(
        self, trained: Trained, ask: Ask, tmp_path: Path
    ) -> None:
        again = load_router(write(trained.router.files(), tmp_path / "another place"))
        texts = [*ORDINARY, *HOSTILE.values()]
        assert_identical(again.score(texts, embedded_for(again, texts)), ask(texts))

    def test_a_router_is_plain_json_and_safetensors(self, trained: Trained) -> None:
        files = trained.fresh.files()
        assert sorted(files) == ["router.json", "weights.safetensors"]
        assert json.loads(files["router.json"])["experts"] == list(NAMES)
        assert json.loads(files["router.json"])["metrics"] == trained.fresh.metrics
        assert len(read_tensors(files["weights.safetensors"])["known.owner"]) == 36

    @pytest.mark.parametrize("damaged", ["router.json", "weights.safetensors"])
    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: None,
            lambda content: b"",
            lambda content: content[:1],
            lambda content: content[:7],
            lambda content: content[: len(content) // 2],
            lambda content: content[:-1],
            lambda content: b"\xff\xfe\x00" * 100,
            lambda content: b"{}",
            lambda content: b"null",
            lambda content: b"[1, 2]",
            lambda content: b"\x89PNG\r\n\x1a\n" + b"\x00" * 64,
            lambda content: content[::-1],
        ],
        ids=["gone", "empty", "1 byte", "7 bytes", "half", "cut", "garbage", "{}", "null", "list", "image", "reversed"],
    )
    def test_a_damaged_file_makes_the_router_unusable_and_the_folder_is_named(
        self, trained: Trained, tmp_path: Path, damaged: str, damage: Callable[[bytes], bytes | None]
    ) -> None:
        content = damage(trained.fresh.files()[damaged])
        files = {name: kept for name, kept in trained.fresh.files().items() if name != damaged}
        folder = write(files if content is None else files | {damaged: content}, tmp_path / "live-router")
        with pytest.raises(ModelUnusable, match="router live-router"):
            load_router(folder)

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnusable, match="router live-router"):
            load_router(tmp_path / "live-router")

    @pytest.mark.parametrize("found", [1, 3, 99, None])
    def test_an_unknown_format_is_named(self, trained: Trained, tmp_path: Path, found: int | None) -> None:
        files = trained.fresh.files()
        about = json.loads(files["router.json"]) | {"format": found}
        folder = write(files | {"router.json": json.dumps(about).encode()}, tmp_path / "live-router")
        with pytest.raises(ModelUnusable, match=f"router live-router: format {found}, this program reads 2"):
            load_router(folder)

    def test_parts_of_two_routers_do_not_make_one(self, trained: Trained, kind: str, tmp_path: Path) -> None:
        """The weights are of a router with a fourth expert."""
        other = train_router(kind, clusters.training_set(clusters.draw(10, seed=1))).files()
        files = trained.fresh.files() | {"weights.safetensors": other["weights.safetensors"]}
        with pytest.raises(ModelUnusable, match="router live-router"):
            load_router(write(files, tmp_path / "live-router"))


class TestTraining:
    def test_training_again_gives_the_same_files_to_the_byte(self, trained: Trained) -> None:
        np.random.seed(7)  # whatever was drawn before does not matter
        assert train_router(trained.kind, training_set()).files() == trained.fresh.files()

    def test_what_was_measured_can_be_stored_as_json(self, trained: Trained) -> None:
        assert json.loads(json.dumps(trained.fresh.metrics, allow_nan=False)) == trained.fresh.metrics

    @pytest.mark.parametrize(
        ("outsiders", "around", "held_out"),
        list(product([False, True], repeat=3)),
        ids=lambda given: "+" if given else "-",
    )
    def test_outsiders_the_world_and_held_out_queries_may_each_be_given_or_not(
        self, kind: str, outsiders: bool, around: bool, held_out: bool
    ) -> None:
        examples = clusters.draw(10, seed=1)
        if outsiders:
            examples = clusters.both(examples, clusters.beyond(10, seed=2))
        data = clusters.training_set(
            examples,
            held_out=clusters.both(clusters.draw(5, seed=3), clusters.beyond(5, seed=4)) if held_out else None,
            around=clusters.world() if around else None,
        )
        router = train_router(kind, data)
        assert {key: router.metrics[key] for key in ("exemplars", "held_out")} == {
            "exemplars": 40,
            "held_out": 20 if held_out else 40,
        }
        # Four topics of six queries are the experts' own.
        assert (router.metrics["adopted"] >= 24) is (around and router.needs_vectors)
        assert (len(router.known.outside_texts), len(router.known.background) > 0) == (
            10 if outsiders else 0,
            around and router.needs_vectors,
        )
        assert_sound(router.score(examples.texts, examples.embedded), len(examples), clusters.NAMES)

    @pytest.mark.parametrize("outsiders", [False, True], ids=["nothing outside", "queries outside"])
    def test_a_single_expert_gets_everything(self, kind: str, outsiders: bool) -> None:
        drawn, beyond = clusters.draw(12, seed=1), clusters.beyond(12, seed=2)
        own = drawn.take(np.flatnonzero(drawn.owner == 0))
        examples = clusters.both(own, beyond) if outsiders else own
        router = train_router(kind, clusters.training_set(examples, names=clusters.NAMES[:1]))
        scores = router.score(drawn.texts, drawn.embedded)
        assert_sound(scores, len(drawn), clusters.NAMES[:1])
        np.testing.assert_array_equal(scores.gate, 1)
        np.testing.assert_array_equal(scores.share, 1)
        json.dumps(router.metrics, allow_nan=False)

    @pytest.mark.parametrize("n", [2, 3, 4])
    def test_a_few_exemplars_of_each_expert_are_enough(self, kind: str, n: int) -> None:
        examples = clusters.draw(n, seed=1)
        router = train_router(kind, clusters.training_set(examples))
        assert_sound(router.score(examples.texts, examples.embedded), len(examples), clusters.NAMES)

    def test_an_expert_with_too_few_exemplars_cannot_be_trained_and_is_named(self, kind: str) -> None:
        """Words need one, to be an expert at all; vectors need two, of which one is held out."""
        examples = clusters.draw(3, seed=1)
        for n in range(2 if find("router kind", kinds.ROUTERS, kind).needs_vectors else 1):
            few = np.flatnonzero(examples.owner == 2)[:n]
            short = examples.take(np.concatenate([np.flatnonzero(examples.owner != 2), few]))
            with pytest.raises(CannotTrain, match=f"expert 'south' has {n} exemplars"):
                train_router(kind, clusters.training_set(short))

    def test_without_an_expert_there_is_nothing_to_train(self, kind: str) -> None:
        data = TrainingSet([], clusters.beyond(4, seed=1), clusters.ENCODER)
        with pytest.raises(CannotTrain, match="no expert"):
            train_router(kind, data)

    def test_held_out_queries_that_nobody_covers_leave_the_measuring_to_the_exemplars(self, kind: str) -> None:
        data = clusters.training_set(clusters.draw(5, seed=1), held_out=clusters.beyond(4, seed=2))
        assert train_router(kind, data).metrics["held_out"] == 20

    def test_names_and_texts_in_any_script_survive(self, kind: str, tmp_path: Path) -> None:
        names = ("банк", "地球 / earth", 'code"\n', "👩\u200d👧")
        drawn = clusters.draw(3, seed=1)
        texts = [f"{text} \u202eمرحبا \x00" for text in drawn.texts]
        router = train_router(kind, clusters.training_set(replace(drawn, texts=texts), names=names))
        loaded = load_router(write(router.files(), tmp_path / "scripts"))
        assert loaded.experts == names
        assert list(loaded.known.texts) == texts
        found = loaded.score(
            ["платит банк", "地球", "code"], None if drawn.embedded is None else drawn.embedded.take(slice(3))
        )
        assert_sound(found, 3, names)
