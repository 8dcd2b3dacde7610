"""The encoder of a benchmark is the one that was described, on every core."""

import os
from typing import Any

import pytest

from experts import kinds
from experts.encoders.base import EncoderSpec
from experts.encoders.hashing import HashingEncoder
from experts.errors import ModelUnusable
from experts.evaluation.encoding import encoder


class Described(HashingEncoder):
    """Keeps its description."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec


@pytest.fixture(autouse=True)
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.ENCODERS, kinds.SENTENCE_TRANSFORMERS, f"{__name__}:Described")


def spec_of(fields: dict[str, Any]) -> EncoderSpec:
    made = encoder(fields)
    assert isinstance(made, Described)
    return made.spec


def test_hashing_needs_no_model() -> None:
    assert type(encoder({"name": "hashing"})) is HashingEncoder


@pytest.mark.parametrize(("cores", "threads"), [(7, 7), (1, 1), (None, 1)])
def test_it_runs_on_every_core_whatever_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, threads: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    fields = {"name": "some-model", "dtype": "float16", "device": "cpu", "batch_size": 3, "threads": 99}
    assert spec_of(fields) == EncoderSpec("some-model", "float16", "cpu", 3, threads)
    assert fields["threads"] == 99


def test_what_is_not_said_is_as_everywhere() -> None:
    assert spec_of({}) == EncoderSpec(threads=os.cpu_count() or 1)


def test_a_field_that_no_encoder_has_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        encoder({"name": "hashing", "colour": "blue"})


def test_a_model_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.ENCODERS, kinds.SENTENCE_TRANSFORMERS, f"{__name__}:refuse")
    with pytest.raises(ModelUnusable, match="no-such-model"):
        encoder({"name": "no-such-model"})


def refuse(spec: EncoderSpec) -> None:
    raise ModelUnusable(f"encoder {spec.name!r} cannot be loaded")
