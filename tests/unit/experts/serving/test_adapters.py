"""Batches of several adapters: the same numbers as PEFT's, and the base untouched."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor

from experts.adapters.tensors import tensors_of
from experts.errors import ModelUnusable
from experts.language.adapting import AdapterWeights, applied, make_weights
from experts.language.base import weights_sha256
from experts.serving.adapters import AdapterLayers, Group
from tests.tiny_base import tiny_model
from tests.unit.experts.serving.builders import ALL, QKV, adapter

LENGTH = 6
WAYS = {
    "one": ["a"] * 4,
    "two": ["a", "a", "b", "b"],
    "base too": ["a", None, None, "b"],
    "many small": ["a", "b", "c", "d", "e", None, "f"],
    "large and small": ["a"] * 4 + ["b", "c", "d", "e"],
    "an adapter twice": ["a", "b", "a", "c", "b", "d"],
}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def logits(model: Any, n: int) -> Tensor:
    torch.manual_seed(7)
    with torch.inference_mode():
        found: Tensor = model(input_ids=torch.randint(5, 261, (n, LENGTH))).logits
    return found


def grouped(names: Sequence[str | None]) -> list[Group]:
    return [Group(name, LENGTH * at, LENGTH * (at + 1)) for at, name in enumerate(names) if name]


def joined(groups: Sequence[Group]) -> list[Group]:
    """Neighbours of one adapter as one group."""
    found: list[Group] = []
    for group in groups:
        if found and found[-1].adapter == group.adapter and found[-1].stop == group.start:
            found[-1] = found[-1]._replace(stop=group.stop)
        else:
            found.append(group)
    return found


def peft_logits(weights: dict[str, AdapterWeights], names: Sequence[str | None]) -> Tensor:
    """What PEFT's own mixed batches give."""
    configs = {
        f"x{name}": LoraConfig(  # PEFT warns of names that are part of its own
            r=held.rank,
            lora_alpha=int(held.scaling * held.rank),
            target_modules=sorted({layer.rpartition(".")[2] for layer in held.layers}),
        )
        for name, held in weights.items()
    }
    first, *others = configs
    peft_model = get_peft_model(tiny_model(), configs[first], adapter_name=first)
    for name in others:
        peft_model.add_adapter(name, configs[name])
    for name, held in weights.items():
        set_peft_model_state_dict(peft_model, tensors_of(held), adapter_name=f"x{name}")
    torch.manual_seed(7)
    ids = torch.randint(5, 261, (len(names), LENGTH))
    chosen = [f"x{name}" if name else "__base__" for name in names]
    with torch.inference_mode():
        found: Tensor = peft_model.eval()(input_ids=ids, adapter_names=chosen).logits
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("names", WAYS.values(), ids=WAYS.keys())
def test_a_mixed_batch_gives_what_peft_gives(model: Any, names: list[str | None]) -> None:
    """Adapters of different ranks, scalings and layers in one batch."""
    kinds: list[dict[str, Any]] = [
        {"rank": 4, "targets": QKV},
        {"rank": 8, "targets": ALL, "scaling": 0.5},
        {"rank": 2, "targets": ("q_proj", "v_proj", "down_proj"), "scaling": 3.0},
    ]
    weights = {
        name: adapter(model, at, **kinds[at % 3]) for at, name in enumerate(sorted({name for name in names if name}))
    }
    layers = AdapterLayers(model)
    try:
        for name, held in weights.items():
            layers.add(name, held)
        layers.use(joined(grouped(names)))
        torch.testing.assert_close(logits(model, len(names)), peft_logits(weights, names), atol=2e-5, rtol=1e-4)
    finally:
        layers.detach()


def test_one_adapter_gives_what_the_plain_formula_gives(model: Any) -> None:
    weights, layers = adapter(model, 3, targets=ALL), AdapterLayers(model)
    with applied(model, weights):
        expected = logits(model, 3)
    layers.add("a", weights)
    layers.use([Group("a", 0, 3 * LENGTH)])
    found = logits(model, 3)
    layers.detach()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(found, logits(model, 3), atol=1e-2)


def test_rows_without_an_adapter_are_the_base_bit_for_bit(model: Any) -> None:
    before, layers = logits(model, 4), AdapterLayers(model)
    layers.add("a", adapter(model, 1, targets=ALL))
    layers.use([Group("a", LENGTH, 2 * LENGTH)])
    mixed = logits(model, 4)
    layers.use([])
    unused = logits(model, 4)
    layers.detach()
    assert torch.equal(mixed[[0, 2, 3]], before[[0, 2, 3]])
    assert not torch.equal(mixed[1], before[1])
    assert torch.equal(unused, before)


def test_the_base_is_what_it_was_after_adapters_come_and_go(model: Any) -> None:
    before, hashed, layers = logits(model, 2), weights_sha256(model), AdapterLayers(model)
    for seed in range(3):
        layers.add(seed, adapter(model, seed, targets=ALL))
    layers.use([Group(0, 0, 3), Group(2, 3, 12)])
    logits(model, 2)
    assert weights_sha256(model) == hashed
    layers.detach()
    assert weights_sha256(model) == hashed
    assert torch.equal(logits(model, 2), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_an_adapter_that_was_removed_cannot_be_used(model: Any) -> None:
    layers = AdapterLayers(model)
    layers.add("a", adapter(model, 1))
    layers.remove("a")
    with pytest.raises(KeyError):
        layers.use([Group("a", 0, 1)])
    with pytest.raises(KeyError):
        layers.remove("a")
    layers.detach()


def test_an_adapter_put_back_under_its_name_with_other_numbers_is_the_new_one(model: Any) -> None:
    """Stacks of small groups are kept between passes, and must not outlive what they were made of."""
    names = ["a", "b", "c", "d", "e"]
    layers = AdapterLayers(model)
    for at, name in enumerate(names):
        layers.add(name, adapter(model, at))
    layers.use(grouped(names))
    first = logits(model, 5)
    layers.remove("c")
    layers.add("c", adapter(model, 99))
    layers.use(grouped(names))
    second = logits(model, 5)
    layers.detach()
    torch.testing.assert_close(second[[0, 1, 3, 4]], first[[0, 1, 3, 4]])
    assert not torch.allclose(second[2], first[2], atol=1e-2)


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        ("model.layers.9.self_attn.q_proj", ((4, 32), (32, 4))),
        ("model.embed_tokens", ((4, 32), (32, 4))),
        ("model.layers.0.self_attn.q_proj", ((4, 64), (32, 4))),
        ("model.layers.0.self_attn.q_proj", ((4, 32), (16, 4))),
        ("model.layers.0.self_attn.q_proj", ((4, 32), (32, 8))),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_whole(
    model: Any, layer: str, shapes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    good = adapter(model, 1).layers
    layers = AdapterLayers(model)
    with pytest.raises(ModelUnusable, match=layer.rpartition(".")[2]):
        layers.add("a", make_weights({**good, layer: (torch.ones(shapes[0]), torch.ones(shapes[1]))}, 1.0))
    assert "a" not in layers
    assert not any(module._forward_hooks for module in model.modules())
