"""What every router promises: probabilities for every expert and query, trained and stored without surprises."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as read_tensors

from experts import kinds
from experts.encoders.base import Vectors
from experts.errors import ModelUnusable
from experts.routing.base import Calibration, Router, Scores, TrainedRouter, TrainingSet, load_router, train_router
from experts.routing.decide import Load, Policy, decide
from tests.contracts.samples import EXEMPLARS, HOSTILE, LAW, ORDINARY, OUTSIDE, embed, hostile, training_set
from tests.doubles import routers as doubles

TOLERANCE = 1e-4
NAMES = tuple(EXEMPLARS)

Ask = Callable[[Sequence[str]], Scores]


class Trained(NamedTuple):
    kind: str
    result: TrainedRouter
    folder: Path
    router: Router


def unembedded(data: TrainingSet) -> TrainingSet:
    """The same without vectors: what kinds that need none are given."""
    experts = [replace(expert, vectors=None, passages=None) for expert in data.experts]
    return replace(data, experts=experts, outside_vectors=None, encoder=None)


def train(kind: str, data: TrainingSet) -> TrainedRouter:
    """Train as the training worker does; a double that only loads is given a heuristic router's files."""
    if kind in kinds.ROUTERS_WITHOUT_VECTORS or kind not in kinds.ROUTER_TRAINERS:
        data = unembedded(data)
    return train_router(kind if kind in kinds.ROUTER_TRAINERS else "heuristic", data)


def write(files: Mapping[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module", params=sorted(kinds.ROUTERS | doubles.ROUTERS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Every registered router, trained on a small set, and the double."""
    with pytest.MonkeyPatch.context() as patch:
        for name, target in doubles.ROUTERS.items():
            patch.setitem(kinds.ROUTERS, name, target)
        result = train(request.param, training_set())
        folder = write(result.files, tmp_path_factory.mktemp("router") / "live")
        yield Trained(request.param, result, folder, load_router(request.param, folder))


def vectors_for(router: Router, texts: Sequence[str]) -> Vectors | None:
    return embed(texts) if router.needs_vectors else None


@pytest.fixture(scope="module")
def ask(trained: Trained) -> Ask:
    return lambda texts: trained.router.score(texts, vectors_for(trained.router, texts))


def assert_sound(scores: Scores, n: int, experts: Sequence[str]) -> None:
    """Shapes, types, ranges and evidence of scores for ``n`` queries."""
    for array in (scores.gate, scores.self_assessment):
        assert array.shape == (n, len(experts))
        assert array.dtype == np.float32
        assert ((array >= 0) & (array <= 1)).all()
    assert scores.coverage.shape == (n,)
    assert scores.coverage.dtype == np.float32
    assert ((scores.coverage >= 0) & (scores.coverage <= 1)).all()
    np.testing.assert_allclose(scores.gate.sum(axis=1), 1, atol=1e-5)
    assert len(scores.keywords) == n
    assert all(set(found) <= set(experts) for found in scores.keywords)
    assert len(scores.neighbours) == n
    for neighbours in scores.neighbours:
        assert {near.expert for near in neighbours} <= {*experts, None}
        cosines = [near.cosine for near in neighbours]
        assert cosines == sorted(cosines, reverse=True)


def assert_alike(found: Scores, expected: Scores, places: Sequence[int] | slice = slice(None)) -> None:
    """``found`` is what ``expected`` says at these places."""
    for name in ("gate", "self_assessment", "coverage"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name)[places], atol=TOLERANCE)
    chosen = np.arange(len(expected.coverage))[places]
    assert list(found.keywords) == [expected.keywords[place] for place in chosen]
    texts = [[near.text for near in neighbours] for neighbours in found.neighbours]
    assert texts == [[near.text for near in expected.neighbours[place]] for place in chosen]


def assert_identical(found: Scores, expected: Scores) -> None:
    for name in ("gate", "self_assessment", "coverage"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert list(found.keywords) == list(expected.keywords)
    assert list(found.neighbours) == list(expected.neighbours)


def test_a_router_says_whom_it_knows_and_what_it_needs(trained: Trained) -> None:
    assert trained.router.experts == NAMES
    assert isinstance(trained.router.calibration, Calibration)
    registered = trained.kind in kinds.ROUTER_TRAINERS
    assert trained.router.needs_vectors is (registered and trained.kind not in kinds.ROUTERS_WITHOUT_VECTORS)


def test_every_query_gets_probabilities_and_evidence(ask: Ask) -> None:
    assert_sound(ask(ORDINARY), len(ORDINARY), NAMES)


def test_no_queries_get_empty_scores(ask: Ask) -> None:
    assert_sound(ask([]), 0, NAMES)


def test_a_query_is_scored_the_same_alone_and_in_company_in_any_order(ask: Ask) -> None:
    texts = [*ORDINARY, ORDINARY[0]]
    together = ask(texts)
    for place, text in enumerate(texts):
        assert_alike(ask([text]), together, [place])
    assert_alike(ask(texts[::-1]), together, slice(None, None, -1))


@hostile
def test_a_hostile_query_is_scored_and_leaves_its_neighbours_alone(ask: Ask, text: str) -> None:
    scores = ask([ORDINARY[0], text, ORDINARY[2]])
    assert_sound(scores, 3, NAMES)
    alone = ask([ORDINARY[0], ORDINARY[2]])
    np.testing.assert_allclose(scores.gate[[0, 2]], alone.gate, atol=TOLERANCE)
    np.testing.assert_allclose(scores.self_assessment[[0, 2]], alone.self_assessment, atol=TOLERANCE)
    np.testing.assert_allclose(scores.coverage[[0, 2]], alone.coverage, atol=TOLERANCE)


def test_the_same_queries_get_the_same_scores_every_time(ask: Ask) -> None:
    texts = [*ORDINARY, *HOSTILE.values()]
    assert_identical(ask(texts), ask(texts))


def test_scoring_changes_neither_texts_nor_vectors(trained: Trained) -> None:
    texts, vectors = list(ORDINARY), vectors_for(trained.router, ORDINARY)
    before = None if vectors is None else vectors.copy()
    trained.router.score(texts, vectors)
    assert texts == ORDINARY
    if vectors is not None and before is not None:
        np.testing.assert_array_equal(vectors, before)


def test_vectors_that_were_made_for_the_engines_change_nothing_for_a_router_without(trained: Trained, ask: Ask) -> None:
    assert_identical(trained.router.score(ORDINARY, embed(ORDINARY)), ask(ORDINARY))


def test_scores_can_be_decided_on(trained: Trained, ask: Ask) -> None:
    texts = [*ORDINARY, *HOSTILE.values(), *OUTSIDE]
    loads = {name: Load(at * 400, 512) for at, name in enumerate(NAMES)}
    decisions = decide(NAMES, texts, ask(texts), loads, Policy(), trained.router.calibration)
    assert len(decisions) == len(texts)
    for decision in decisions:
        assert 1 <= len(decision.experts) <= 2
        assert sum(weight for _, weight in decision.experts) == pytest.approx(1, abs=2e-4)
        assert 0 <= decision.confidence <= 1
        assert decision.reason.encode().endswith(b".")
        json.dumps(decision.explanation, allow_nan=False)


def test_a_router_is_plain_json_and_safetensors(trained: Trained) -> None:
    for name, content in trained.result.files.items():
        if name.endswith(".safetensors"):
            assert read_tensors(content)
        else:
            assert name.endswith(".json")
            json.loads(content.decode("utf-8"))


def test_what_was_measured_can_be_stored_as_json(trained: Trained) -> None:
    assert json.loads(json.dumps(trained.result.metrics, allow_nan=False)) == trained.result.metrics


def test_training_again_gives_the_same_files_to_the_byte(trained: Trained) -> None:
    assert train(trained.kind, training_set()) == trained.result


def test_loading_again_from_another_place_gives_the_same_scores(trained: Trained, ask: Ask, tmp_path: Path) -> None:
    again = load_router(trained.kind, write(trained.result.files, tmp_path / "another place"))
    texts = [*ORDINARY, *HOSTILE.values()]
    assert again.experts == trained.router.experts
    assert again.calibration == trained.router.calibration
    assert_identical(again.score(texts, vectors_for(again, texts)), ask(texts))


@pytest.mark.parametrize("damage", [None, b"", b"{", b"\xff\xfe\x00"], ids=repr)
def test_a_router_with_a_missing_or_damaged_file_is_unusable(
    trained: Trained, tmp_path: Path, damage: bytes | None
) -> None:
    for damaged in trained.result.files:
        folder = write(trained.result.files, tmp_path / Path(damaged).stem)
        if damage is None:
            (folder / damaged).unlink()
        else:
            (folder / damaged).write_bytes(damage)
        with pytest.raises(ModelUnusable):
            load_router(trained.kind, folder)


@pytest.mark.parametrize("outside", [(), OUTSIDE], ids=["nothing outside", "queries outside"])
def test_a_single_expert_gets_everything(trained: Trained, tmp_path: Path, outside: Sequence[str]) -> None:
    result = train(trained.kind, training_set(NAMES[:1], outside=outside))
    router = load_router(trained.kind, write(result.files, tmp_path / "one"))
    scores = router.score(ORDINARY, vectors_for(router, ORDINARY))
    assert_sound(scores, len(ORDINARY), NAMES[:1])
    np.testing.assert_array_equal(scores.gate, 1)
    json.dumps(result.metrics, allow_nan=False)


@LAW
@given(texts=st.lists(st.text(max_size=60) | st.sampled_from(ORDINARY), max_size=5))
def test_whatever_the_queries_say_their_scores_are_sound(ask: Ask, texts: list[str]) -> None:
    assert_sound(ask(texts), len(texts), NAMES)
