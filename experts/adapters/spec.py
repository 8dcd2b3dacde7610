"""How an adapter is made: its size and its training."""

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from experts.errors import CannotTrain

# What an expert of a difficult domain gets on top.
_MORE_RANK = 8
MAX_RANK = 512
# Trainable parameters that are sensible on a base of seven thousand million.
BUDGET_7B = (10_000_000, 50_000_000)


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """A plain LoRA adapter and how it is trained. Raises CannotTrain for values that make no sense.

    ``learning_rate`` is for large bases; a base of a million parameters learns best with 1e-2. ``batch_size`` counts
    examples of one optimiser step, ``max_length`` tokens of prompt and answer, ``evaluations`` how often the validation
    loss is taken (with a checkpoint each), ``patience`` how many of them may bring nothing better before training ends.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    learning_rate: float = 2e-4
    epochs: float = 3.0
    batch_size: int = 16
    max_length: int = 1024
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    evaluations: int = 10
    patience: int = 3
    max_seconds: float | None = None
    seed: int = 0
    budget: tuple[int, int] | None = None  # trainable parameters, at least and at most

    def __post_init__(self) -> None:
        limits = {
            "rank": (1, MAX_RANK),
            "alpha": (1, 16 * MAX_RANK),
            "dropout": (0, 0.9),
            "learning_rate": (1e-8, 1),
            "epochs": (1e-3, 10_000),
            "batch_size": (1, 4096),
            "max_length": (8, 1_000_000),
            "warmup": (0, 1),
            "weight_decay": (0, 1),
            "max_grad_norm": (1e-6, 1e6),
            "evaluations": (1, 1000),
            "patience": (1, 1000),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise CannotTrain(f"{name} of the adapter is {value}; it lies between {low} and {high}")
        if not self.target_modules:
            raise CannotTrain("target_modules of the adapter names no module, so nothing would be trained")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise CannotTrain(f"max_seconds of the adapter is {self.max_seconds}; it is more than 0, or none")


# Below so many parameters a base counts as small.
SMALL = 100_000_000


def suggested(num_parameters: int) -> LoraSpec:
    """What has been found to work on bases of this size, where nobody says otherwise; measured: see DECISIONS.md."""
    if num_parameters >= SMALL:
        return LoraSpec()
    return LoraSpec(
        rank=8,
        alpha=16,
        target_modules=("q_proj", "k_proj", "v_proj", "o_proj"),
        learning_rate=1e-2,
        epochs=40,
        batch_size=32,
        max_length=512,
    )


def for_complex_domain(spec: LoraSpec) -> LoraSpec:
    """The same with a larger rank and twice the alpha, for a domain that a small adapter cannot hold."""
    return replace(spec, rank=spec.rank + _MORE_RANK, alpha=2 * spec.alpha)


def target_layers(model: Any, target_modules: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The linear layers an adapter changes, by their full names. Raises CannotTrain naming a target without any."""
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    found = {name: layer for name, layer in linear.items() if name.rpartition(".")[2] in target_modules}
    missing = sorted(set(target_modules) - {name.rpartition(".")[2] for name in found})
    if missing:
        there = sorted({name.rpartition(".")[2] for name in linear})
        raise CannotTrain(f"the base has no layers named {', '.join(missing)}; it has: {', '.join(there)}")
    return found


def trainable_parameters(model: Any, spec: LoraSpec) -> int:
    """How many parameters an adapter on ``model`` has: rank x (inputs + outputs) for each layer. Raises CannotTrain."""
    layers = target_layers(model, spec.target_modules).values()
    return sum(spec.rank * (layer.in_features + layer.out_features) for layer in layers)


def check_budget(model: Any, spec: LoraSpec) -> int:
    """The number of trainable parameters; raises CannotTrain if it lies outside the budget of ``spec``."""
    count = trainable_parameters(model, spec)
    if spec.budget is not None and not spec.budget[0] <= count <= spec.budget[1]:
        low, high = spec.budget
        per_rank = count // spec.rank
        raise CannotTrain(
            f"rank {spec.rank} would train {count:,} parameters, and the budget is {low:,} to {high:,}; "
            f"on these layers that is rank {max(1, math.ceil(low / per_rank))} to {high // per_rank}"
        )
    return count
