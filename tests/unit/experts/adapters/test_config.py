"""Only plain LoRA is let in, whatever PEFT can do."""

import json
from typing import Any

import pytest
from peft import LoraConfig

from experts.adapters.config import AdapterConfig, config_bytes, read_config
from experts.errors import ModelUnusable

PLAIN = AdapterConfig(8, 16, 0.1, ("k_proj", "q_proj"))


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(config_bytes(PLAIN)), **values}).encode()


def test_what_is_written_is_read_and_peft_reads_it_too() -> None:
    assert read_config(config_bytes(PLAIN)) == PLAIN
    assert LoraConfig(**json.loads(config_bytes(PLAIN))).target_modules == {"k_proj", "q_proj"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "LOHA"),
        ("peft_type", None),
        ("task_type", "SEQ_CLS"),
        ("use_rslora", True),
        ("use_dora", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("auto_mapping", {"base_model_class": "X", "parent_library": "evil"}),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
        ("layers_to_transform", [0]),
        ("layer_replication", [[0, 1]]),
        ("fan_in_fan_out", True),
        ("megatron_core", "evil"),
        ("invented_tomorrow", True),
        ("r", 0),
        ("r", 100_000),
        ("r", True),
        ("r", "8"),
        ("lora_alpha", 0),
        ("lora_alpha", 1.5),
        ("lora_dropout", 1),
        ("lora_dropout", None),
        ("target_modules", ".*"),
        ("target_modules", []),
        ("target_modules", [7]),
    ],
)
def test_anything_but_plain_lora_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(ModelUnusable, match=key):
        read_config(changed(**{key: value}))


def test_a_key_of_another_version_that_is_not_set_does_no_harm() -> None:
    assert read_config(changed(invented_tomorrow=None)) == PLAIN


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(ModelUnusable, match=r"adapter_config\.json is not"):
        read_config(data)
