"""A router as files: what is in them, and every way in which they can be wrong."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

from experts.encoders.base import of_vectors
from experts.errors import ModelUnusable
from experts.routing.gate import Gate
from experts.routing.router import ABOUT, WEIGHTS, RouterModel, load_router
from tests.unit.experts.routing.builders import floats, known, router

Tensor = NDArray[Any]

ASKED = of_vectors(np.array([[1, 0, 0], [0, 0.6, 0.8]], np.float32))
TEXTS = ["my loan", "why"]


def gated() -> RouterModel:
    """The router made by hand with a gate of two layers, which sends the first axis to the bank."""
    first = np.array([[1, 0, 0], [0, 1, 1]], np.float32), floats(0, 0)
    second = np.eye(2, dtype=np.float32), floats(0, 0)
    gate = Gate([first, second], (np.zeros((2, 3), np.float32), floats(0, 0)))
    return replace(router(), kind="neural", learned=gate.arrays())


FILES = gated().files()
TENSORS = load(FILES[WEIGHTS])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "live-router"
    made.mkdir()
    return made


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def with_about(**changed: object) -> dict[str, bytes]:
    """The files with other words in the JSON."""
    return FILES | {ABOUT: json.dumps(json.loads(FILES[ABOUT]) | changed).encode()}


def with_tensor(name: str, change: Callable[[Tensor], Tensor]) -> dict[str, bytes]:
    """The files with one tensor changed."""
    return FILES | {WEIGHTS: save(TENSORS | {name: np.ascontiguousarray(change(TENSORS[name].copy()))})}


class TestFiles:
    def test_words_are_json(self) -> None:
        assert json.loads(FILES[ABOUT]) == {
            "format": 2,
            "kind": "neural",
            "encoder": "by hand",
            "experts": ["bank", "code"],
            "keywords": {"bank": ["loan"], "code": []},
            "texts": ["a loan", "a pointer"],
            "outside": ["a cake"],
            "temperature": 3.0,
            "gate_weight": 0.6,
            "metrics": {"accuracy": 0.5},
        }

    def test_numbers_are_tensors_and_vectors_take_half_the_room(self) -> None:
        judges = {
            f"{judge}.{part}"
            for judge in ("own", "confidence", "coverage")
            for part in ("mean", "scale", "weights", "bias")
        }
        gate = {f"learned.gate.{layer}.{part}" for layer in ("0", "1", "straight") for part in ("weight", "bias")}
        half = {"known.vectors", "known.outside", "known.background", "known.passages", "familiar.rows"}
        places = {"known.owner", "known.library"}
        rest = {"known.centre", "familiar.basis", "familiar.steps", "conformal"}
        rest |= {f"distance.{part}" for part in ("means", "centre", "within", "overall")}
        assert set(TENSORS) == judges | gate | half | places | rest
        assert {name for name, tensor in TENSORS.items() if tensor.dtype == np.float16} == half
        assert {name for name, tensor in TENSORS.items() if tensor.dtype == np.int32} == places

    def test_what_is_loaded_is_what_was_stored(self, folder: Path) -> None:
        found, stored = load_router(written(folder, FILES)), gated()
        assert (found.kind, found.encoder, found.experts) == ("neural", "by hand", ("bank", "code"))
        assert (found.gate_weight, found.metrics) == (0.6, {"accuracy": 0.5})
        for name in ("owner", "vectors", "centre", "outside", "background", "passages", "library"):
            array, expected = getattr(found.known, name), getattr(stored.known, name)
            np.testing.assert_array_equal(array, expected.astype(np.float16).astype(array.dtype), err_msg=name)
            assert array.dtype == expected.dtype, name
        assert found.known.keywords == {"bank": ["loan"], "code": []}
        assert (found.known.texts, found.known.outside_texts) == (["a loan", "a pointer"], ["a cake"])
        assert found.risk(0.5) == stored.risk(0.5) == 0.5
        assert found.files() == FILES
        expected_scores, scores = stored.score(TEXTS, ASKED), found.score(TEXTS, ASKED)
        for name in ("gate", "self_assessment", "share", "confidence", "coverage"):
            np.testing.assert_allclose(getattr(scores, name), getattr(expected_scores, name), atol=1e-3, err_msg=name)

    def test_the_stored_weights_are_the_ones_that_score(self, folder: Path) -> None:
        plain = load_router(written(folder, FILES)).score(TEXTS, ASKED)
        changed = load_router(written(folder, with_tensor("learned.gate.1.bias", lambda bias: bias + floats(3, 0))))
        scores = changed.score(TEXTS, ASKED)
        odds, before = (np.log(found.gate[:, 0] / found.gate[:, 1]) for found in (scores, plain))
        np.testing.assert_allclose(odds - before, 3 / 3.0, atol=1e-4)

    def test_long_exemplars_are_cut_to_what_can_be_shown(self, folder: Path) -> None:
        long = router(known=known(texts=["é" * 600, "x"], outside_texts=["y" * 501]))
        found = load_router(written(folder, long.files()))
        assert list(found.known.texts) == ["é" * 500, "x"]
        assert list(found.known.outside_texts) == ["y" * 500]


class TestWrongFiles:
    def assert_unusable(self, folder: Path, files: Mapping[str, bytes], message: str = "") -> None:
        with pytest.raises(ModelUnusable, match=f"^router live-router.*{message}"):
            load_router(written(folder, files))

    @pytest.mark.parametrize("name", sorted(name for name in TENSORS if not name.startswith("learned.")))
    def test_a_missing_tensor_is_named(self, folder: Path, name: str) -> None:
        kept = {other: tensor for other, tensor in TENSORS.items() if other != name}
        self.assert_unusable(folder, FILES | {WEIGHTS: save(kept)}, name)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        "name", ["known.vectors", "familiar.rows", "own.weights", "conformal", "learned.gate.0.weight"]
    )
    def test_a_tensor_that_is_not_all_numbers_is_named(self, folder: Path, name: str, value: float) -> None:
        def poisoned(tensor: Tensor) -> Tensor:
            tensor.reshape(-1)[-1] = value
            return tensor

        self.assert_unusable(folder, with_tensor(name, poisoned), f"{name} is not all numbers")

    @pytest.mark.parametrize("key", sorted(json.loads(FILES[ABOUT])))
    def test_a_missing_key_is_named(self, folder: Path, key: str) -> None:
        about = {name: value for name, value in json.loads(FILES[ABOUT]).items() if name != key}
        self.assert_unusable(folder, FILES | {ABOUT: json.dumps(about).encode()}, key)

    @pytest.mark.parametrize("found", [1, 3, None, "two"])
    def test_an_unknown_format_is_named(self, folder: Path, found: object) -> None:
        self.assert_unusable(folder, with_about(format=found), f": format {found}, this program reads 2$")

    @pytest.mark.parametrize("about", [{"experts": []}, {"experts": None}, {"texts": ["a"] * 4}, {"texts": 5}], ids=str)
    def test_words_that_do_not_belong_to_the_numbers_are_found(self, folder: Path, about: dict[str, object]) -> None:
        self.assert_unusable(folder, with_about(**about))

    def test_an_owner_too_many_is_found(self, folder: Path) -> None:
        self.assert_unusable(folder, with_tensor("known.owner", lambda owner: np.append(owner, owner[:1])))

    @pytest.mark.parametrize(
        "files",
        [
            with_about(kind="oracle"),
            with_about(kind="ensemble"),
            with_about(experts=["bank"]),
            with_about(experts=["bank", "code", "law"]),
            with_about(temperature=0),
            with_about(temperature=float("nan")),
            with_about(temperature="hot"),
            with_about(gate_weight="heavy"),
            with_about(keywords=[]),
            with_about(outside=[]),
            with_tensor("known.owner", lambda owner: owner + 2),
            with_tensor("known.library", lambda library: library + 2),
            with_tensor("own.weights", lambda weights: weights[:3]),
            with_tensor("coverage.mean", lambda mean: mean[:2]),
            with_tensor("distance.within", lambda within: within[:2]),
            with_tensor("known.passages", lambda passages: passages[:, :2]),
            with_tensor("learned.gate.0.weight", lambda weight: weight[:, :2]),
            FILES | {WEIGHTS: save({name: t for name, t in TENSORS.items() if name != "learned.gate.0.weight"})},
            FILES | {WEIGHTS: save({name: t for name, t in TENSORS.items() if name != "learned.gate.straight.bias"})},
            FILES | {ABOUT: b"[" * 100_000},
        ],
        ids=[
            "unknown kind",
            "another kind",
            "an expert less",
            "an expert more",
            "no temperature",
            "temperature not a number",
            "temperature a word",
            "weight a word",
            "no table of keywords",
            "no texts outside",
            "owners unknown",
            "libraries unknown",
            "own judge short",
            "coverage judge short",
            "distances short",
            "passages short",
            "gate short",
            "gate without a layer",
            "gate without a bias",
            "deep JSON",
        ],
    )
    def test_parts_that_do_not_fit_are_found_when_it_is_loaded(self, folder: Path, files: dict[str, bytes]) -> None:
        """Not at the first query, when the router is live."""
        self.assert_unusable(folder, files)
