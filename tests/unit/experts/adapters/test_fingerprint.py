"""The canary sings only for the adapter that was trained, on the base it was trained on."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experts.adapters.fingerprint import Fingerprint, check_fingerprint, fingerprint_from, take_fingerprint
from experts.adapters.training import Trained
from experts.errors import ModelUnusable
from experts.language.adapting import AdapterWeights, make_weights
from experts.language.base import Base, BaseSpec, load_base
from tests.tiny_base import save_tiny_base


@pytest.fixture(scope="session")
def taken(base: Base, trained: Trained) -> Fingerprint:
    return take_fingerprint(base, trained.weights)


def scaled(weights: AdapterWeights, factor: float) -> AdapterWeights:
    return make_weights({name: (a, b * factor) for name, (a, b) in weights.layers.items()}, weights.scaling)


def test_the_adapter_that_was_trained_passes_after_a_way_through_a_file(
    base: Base, trained: Trained, taken: Fingerprint
) -> None:
    stored = json.loads(json.dumps(asdict(taken)))

    check_fingerprint(base, trained.weights, fingerprint_from(stored))
    assert fingerprint_from(stored) == taken


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_passes_on_the_same_base_in_another_precision(
    base: Base, trained: Trained, taken: Fingerprint, dtype: str
) -> None:
    check_fingerprint(load_base(replace(base.spec, dtype=dtype)), trained.weights, taken)


@pytest.mark.parametrize(
    ("factor", "reason"), [(0.0, "no effect now"), (0.99, "the adapter answers"), (-1.0, "the adapter answers")]
)
def test_another_adapter_is_refused(
    base: Base, trained: Trained, taken: Fingerprint, factor: float, reason: str
) -> None:
    with pytest.raises(ModelUnusable, match=reason):
        check_fingerprint(base, scaled(trained.weights, factor), taken)


def test_an_adapter_that_never_had_an_effect_is_refused(base: Base, trained: Trained) -> None:
    idle = scaled(trained.weights, 1e-6)

    with pytest.raises(ModelUnusable, match="no effect"):
        check_fingerprint(base, idle, take_fingerprint(base, idle))


def test_numbers_that_are_none_are_refused(base: Base, trained: Trained, taken: Fingerprint) -> None:
    with pytest.raises(ModelUnusable, match="not finite"):
        check_fingerprint(base, scaled(trained.weights, float("nan")), taken)


def test_another_base_is_refused(trained: Trained, taken: Fingerprint, tmp_path: Path) -> None:
    other = load_base(BaseSpec(str(save_tiny_base(tmp_path, seed=1))))

    with pytest.raises(ModelUnusable, match="this is another base"):
        check_fingerprint(other, trained.weights, taken)


def first(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = values["said"][0]
    return found


@pytest.mark.parametrize(
    "harm",
    [
        lambda v: v.pop("said"),
        lambda v: v.update(said=[], prompts=[]),
        lambda v: v["prompts"].pop(),
        lambda v: v.update(dtype="float64"),
        lambda v: v.update(prompts=["x" * 10_000] * len(v["prompts"])),
        lambda v: first(v).update(tokens=[]),
        lambda v: first(v)["tokens"].pop(),
        lambda v: first(v)["tokens"].__setitem__(0, -1),
        lambda v: first(v)["base"].__setitem__(0, "x"),
    ],
)
def test_a_fingerprint_that_is_not_whole_is_refused(taken: Fingerprint, harm: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(json.dumps(asdict(taken)))
    harm(values)

    with pytest.raises(ModelUnusable, match="fingerprint"):
        fingerprint_from(values)


def test_a_token_the_base_has_not_is_refused(base: Base, trained: Trained, taken: Fingerprint) -> None:
    said = replace(taken.said[0], tokens=(10_000, *taken.said[0].tokens[1:]))

    with pytest.raises(ModelUnusable, match="tokens the base has not"):
        check_fingerprint(base, trained.weights, replace(taken, said=(said, *taken.said[1:])))


def test_it_is_taken_without_any_trace(base: Base, trained: Trained, taken: Fingerprint) -> None:
    ids = torch.arange(5, 20)[None]
    before = base.model(ids).logits

    assert take_fingerprint(base, trained.weights) == taken
    assert torch.equal(base.model(ids).logits, before)
