"""The configuration file of an adapter, in PEFT's form, and the one plain kind of LoRA that is let in."""

import json
import math
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig

from experts.adapters.spec import MAX_RANK
from experts.errors import ModelUnusable

CONFIG = "adapter_config.json"
# Keys an adapter may set; whatever else PEFT knows, now or later, must be as it is when nobody sets it.
_FREE = frozenset(
    {"r", "lora_alpha", "lora_dropout", "target_modules", "base_model_name_or_path", "revision", "peft_version"}
    | {"inference_mode", "peft_type", "task_type"}
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What sets one plain LoRA adapter apart from another."""

    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]

    @property
    def scaling(self) -> float:
        """The factor of what the adapter adds."""
        return self.alpha / self.rank


def to_peft(config: AdapterConfig, *, inference: bool) -> LoraConfig:
    """The configuration as PEFT wants it."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules),
        inference_mode=inference,
    )


def config_bytes(config: AdapterConfig) -> bytes:
    """The file, as PEFT writes it."""
    return json.dumps(_plain(to_peft(config, inference=True)), indent=2, sort_keys=True).encode()


def read_config(data: bytes) -> AdapterConfig:
    """What the file says. Raises ModelUnusable for anything but plain LoRA on a causal language model.

    PEFT would import modules named in such a file, and computes some variants of LoRA in ways that plain serving gets
    wrong without noticing. So every key must have the value it has when nobody sets it.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelUnusable(f"{CONFIG} is not JSON") from error
    if not isinstance(found, dict):
        raise ModelUnusable(f"{CONFIG} is not a JSON object")
    for key, expected in (("peft_type", "LORA"), ("task_type", "CAUSAL_LM")):
        if found.get(key) != expected:
            raise ModelUnusable(f"{CONFIG}: {key} is {found.get(key)!r:.100}; only {expected} is let in")
    usual = _plain(LoraConfig())
    for key, value in found.items():
        if key not in _FREE and value != usual.get(key) and not (key not in usual and not value):
            raise ModelUnusable(f"{CONFIG}: {key} is {value!r:.100}; only plain LoRA is let in, where it is not set")
    return _checked(found)


def _checked(found: dict[str, Any]) -> AdapterConfig:
    rank, alpha, dropout = found.get("r"), found.get("lora_alpha"), found.get("lora_dropout", 0.0)
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ModelUnusable(f"{CONFIG}: r is {rank!r:.100}; it is a whole number from 1 to {MAX_RANK}")
    if type(alpha) is not int or not 1 <= alpha <= 16 * MAX_RANK:
        raise ModelUnusable(f"{CONFIG}: lora_alpha is {alpha!r:.100}; it is a whole number from 1 to {16 * MAX_RANK}")
    if type(dropout) not in (int, float) or not math.isfinite(dropout) or not 0 <= dropout < 1:
        raise ModelUnusable(f"{CONFIG}: lora_dropout is {dropout!r:.100}; it lies between 0 and 1")
    targets = found.get("target_modules")
    if not isinstance(targets, list) or not targets or not all(isinstance(name, str) and name for name in targets):
        raise ModelUnusable(f"{CONFIG}: target_modules is {targets!r:.100}; it is a list of names of layers")
    return AdapterConfig(rank, alpha, float(dropout), tuple(sorted(set(targets))))


def _plain(config: LoraConfig) -> dict[str, Any]:
    """The configuration in the types of JSON."""
    values: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]
    values = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    return {**values, "peft_type": "LORA"}
