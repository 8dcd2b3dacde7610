"""A base computes with an adapter, and without it again."""

from pathlib import Path

import pytest
import torch

from experts.errors import ModelUnusable
from experts.language.adapting import applied, make_weights
from experts.language.base import BaseSpec, load_base, weights_sha256

LAYER = "model.layers.1.mlp.down_proj"
IDS = torch.arange(5, 30)[None]


def test_an_adapter_does_what_adding_its_product_to_the_weights_does(folder: Path) -> None:
    base, merged = load_base(BaseSpec(str(folder))), load_base(BaseSpec(str(folder)))
    adapter = make_weights({LAYER: (torch.randn(3, 64), torch.randn(32, 3))}, 0.5)
    a, b = adapter.layers[LAYER]
    with torch.no_grad():
        merged.model.get_submodule(LAYER).weight += 0.5 * b @ a

    plain = base.model(IDS).logits
    with applied(base.model, adapter):
        adapted = base.model(IDS).logits

    assert torch.allclose(adapted, merged.model(IDS).logits, atol=1e-4)
    assert not torch.allclose(adapted, plain, atol=1e-2)
    assert torch.equal(base.model(IDS).logits, plain)
    assert weights_sha256(base.model) == base.sha256


def test_an_adapter_is_taken_off_when_something_fails(folder: Path) -> None:
    base = load_base(BaseSpec(str(folder)))
    adapter = make_weights({LAYER: (torch.randn(3, 64), torch.randn(32, 3))}, 0.5)
    plain = base.model(IDS).logits

    with pytest.raises(KeyError), applied(base.model, adapter):
        raise KeyError

    assert torch.equal(base.model(IDS).logits, plain)


def test_a_layer_the_base_has_not_is_refused_and_nothing_is_left_behind(folder: Path) -> None:
    base = load_base(BaseSpec(str(folder)))
    pair = (torch.randn(3, 64), torch.randn(32, 3))
    adapter = make_weights({LAYER: pair, "model.layers.9.mlp.down_proj": pair}, 0.5)
    plain = base.model(IDS).logits

    with pytest.raises(ModelUnusable, match=r"layers\.9"), applied(base.model, adapter):
        pass

    assert torch.equal(base.model(IDS).logits, plain)


def test_the_hash_of_an_adapter_is_of_numbers_names_and_scaling() -> None:
    a, b = torch.ones(2, 4), torch.ones(4, 2)
    hashes = {
        make_weights({"x": (a, b)}, 1.0).sha256,
        make_weights({"y": (a, b)}, 1.0).sha256,
        make_weights({"x": (a, b)}, 2.0).sha256,
        make_weights({"x": (a, b + 1e-6)}, 1.0).sha256,
    }

    assert len(hashes) == 4
    assert make_weights({"y": (a, b), "x": (a, b)}, 1.0).sha256 == make_weights({"x": (a, b), "y": (a, b)}, 1.0).sha256
