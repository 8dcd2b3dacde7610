"""The size of an adapter, and what is refused before a training begins."""

from dataclasses import replace
from typing import Any

import pytest
from peft import get_peft_model

from experts.adapters.spec import LoraSpec, check_budget, for_complex_domain, trainable_parameters
from experts.adapters.training import lora_config
from experts.errors import CannotTrain
from tests.tiny_base import tiny_model
from tests.unit.experts.adapters.learning import SPEC


@pytest.mark.parametrize("targets", [("q_proj",), ("q_proj", "v_proj", "down_proj")])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_parameters_are_counted_as_peft_makes_them(targets: tuple[str, ...]) -> None:
    spec = LoraSpec(rank=5, target_modules=targets)
    model = tiny_model()

    counted = trainable_parameters(model, spec)

    assert counted == get_peft_model(model, lora_config(spec)).get_nb_trainable_parameters()[0]


def test_a_complex_domain_gets_a_larger_adapter() -> None:
    larger = for_complex_domain(SPEC)

    assert larger == replace(SPEC, rank=SPEC.rank + 8, alpha=2 * SPEC.alpha)


def test_an_adapter_outside_its_budget_is_refused_with_the_ranks_that_fit() -> None:
    model = tiny_model()
    spec = LoraSpec(rank=16, target_modules=("q_proj",))  # 128 parameters a rank

    assert check_budget(model, replace(spec, budget=(2_048, 2_048))) == 2_048
    with pytest.raises(CannotTrain, match=r"would train 2,048 parameters.*rank 1 to 7"):
        check_budget(model, replace(spec, budget=(100, 1_000)))


def test_a_target_that_the_base_has_not_is_named_with_those_it_has() -> None:
    with pytest.raises(CannotTrain, match=r"named c_attn; it has: down_proj, .*q_proj"):
        trainable_parameters(tiny_model(), LoraSpec(target_modules=("q_proj", "c_attn")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0},
        {"alpha": -1},
        {"dropout": 1.0},
        {"learning_rate": float("nan")},
        {"learning_rate": 0.0},
        {"epochs": float("inf")},
        {"batch_size": 0},
        {"max_length": 1},
        {"patience": 0},
        {"target_modules": ()},
        {"max_seconds": 0.0},
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(CannotTrain, match=next(iter(wrong))):
        LoraSpec(**wrong)
