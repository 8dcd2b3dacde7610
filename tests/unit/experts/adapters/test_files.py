"""An adapter goes to files and back, and nothing that was changed on the way is let in."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load, save_file

from experts.adapters.files import CARD, adapter_files, check_adapter, folder_sha256, load_into, state
from experts.adapters.fingerprint import take_fingerprint
from experts.adapters.tensors import WEIGHTS
from experts.adapters.training import Trained, lora_config
from experts.errors import ModelUnusable
from experts.language.adapting import applied
from experts.language.base import Base, BaseSpec, load_base, weights_sha256
from tests.tiny_base import save_tiny_base
from tests.unit.experts.adapters.learning import SPEC

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="session")
def files(base: Base, trained: Trained) -> dict[str, bytes]:
    return adapter_files(base, trained.weights, SPEC, take_fingerprint(base, trained.weights), {"exact": 0.9})


@pytest.fixture
def folder(files: dict[str, bytes], tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    made.mkdir()
    for name, data in files.items():
        (made / name).write_bytes(data)
    return made


def test_a_checked_adapter_is_the_one_that_was_trained(folder: Path, base: Base, trained: Trained) -> None:
    info = check_adapter(folder, base)

    assert (info.rank, info.alpha, info.base_sha256) == (8, 16, base.sha256)
    assert info.sha256 == state(folder).sha256 == trained.weights.sha256
    assert info.num_parameters == trained.trainable_parameters
    assert info.metrics == {"exact": 0.9}
    assert info.fingerprint == take_fingerprint(base, trained.weights)


def test_no_path_of_the_machine_that_trained_is_in_the_files(files: dict[str, bytes], base: Base) -> None:
    assert not any(str(Path(base.spec.name).parent).encode() in data for data in files.values())


def test_peft_computes_with_the_files_what_the_reference_does(folder: Path, base: Base, trained: Trained) -> None:
    ids = torch.arange(5, 60)[None]
    with applied(base.model, trained.weights), torch.inference_mode():
        expected = base.model(ids).logits
    wrapped = PeftModel.from_pretrained(base.model, folder)
    try:
        with torch.inference_mode():
            found = wrapped(ids).logits
    finally:
        wrapped.unload()

    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(base.model(ids).logits, expected, atol=1e-2)


def test_an_adapter_is_loaded_beside_others(folder: Path, base: Base, trained: Trained) -> None:
    ids = torch.arange(5, 60)[None]
    with applied(base.model, trained.weights), torch.inference_mode():
        expected = base.model(ids).logits
    wrapped = get_peft_model(base.model, lora_config(replace(SPEC, rank=2)), adapter_name="other")
    try:
        load_into(wrapped, folder, "loaded")
        wrapped.set_adapter("loaded")
        with torch.inference_mode():
            found = wrapped(ids).logits
    finally:
        wrapped.unload()
        base.model.requires_grad_(False)

    assert torch.allclose(found, expected, atol=1e-4)
    assert weights_sha256(base.model) == base.sha256


def extra(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(b"")  # type: ignore[return-value]


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def linked(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def pickled(folder: Path) -> None:
    found = load((folder / WEIGHTS).read_bytes())
    torch.save(found, folder / WEIGHTS)


def cut_short(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        found = load((folder / WEIGHTS).read_bytes())
        change(found)
        save_file(found, folder / WEIGHTS)

    return harm


def card(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        found = json.loads((folder / CARD).read_bytes())
        change(found)
        (folder / CARD).write_text(json.dumps(found))

    return harm


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (extra("adapter_model.bin"), r"'adapter_model\.bin'.*run code"),
        (extra("evil.py"), r"evil\.py"),
        (without(CARD), r"lacks card\.json"),
        (without(WEIGHTS), "lacks adapter_model"),
        (linked, "no plain file"),
        (pickled, "not whole"),
        (cut_short, "not whole"),
        (tensors(lambda t: t.pop(A)), "lacks A of 'model.layers.0.self_attn.q_proj'"),
        (tensors(lambda t: t.update({A: t[A][:4].clone()})), "has A of"),
        (tensors(lambda t: t.update({A: t[A].to(torch.int32)})), "I32"),
        (tensors(lambda t: t.update({A.replace("layers.0", "layers.9"): t[A].clone()})), "has A of 'model.layers.9"),
        (tensors(lambda t: t.update({"lm_head.weight": torch.ones(2)})), "'lm_head.weight'"),
        (tensors(lambda t: t[A].fill_(float("nan"))), "not finite"),
        (tensors(lambda t: t[A].mul_(1.01)), "another sha256"),
        (card(lambda c: c.update(format=2)), "format 2"),
        (card(lambda c: c.update(base={"name": "another", "sha256": "0" * 64})), "belongs to base 'another'"),
        (card(lambda c: c.pop("fingerprint")), "not the card"),
        (card(lambda c: c.update(fingerprint={})), "fingerprint cannot be read"),
        (card(lambda c: c.update(sha256=7)), "wrong type"),
        (lambda folder: (folder / CARD).write_text("["), "not the card"),
        (lambda folder: (folder / CARD).write_text(" " * 2_000_000), "larger than"),
    ],
)
def test_what_is_not_right_is_refused_with_the_reason(
    folder: Path, base: Base, harm: Callable[[Path], None], reason: str
) -> None:
    harm(folder)

    with pytest.raises(ModelUnusable, match=reason):
        check_adapter(folder, base)


def test_an_adapter_of_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    other = load_base(BaseSpec(str(save_tiny_base(tmp_path / "other", seed=1))))

    with pytest.raises(ModelUnusable, match="belongs to base"):
        check_adapter(folder, other)


def test_a_folder_that_is_not_there_is_said(base: Base, tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="no folder"):
        check_adapter(tmp_path / "nowhere", base)


def test_the_hash_of_files_is_of_their_names_and_bytes() -> None:
    one = folder_sha256({"a": b"1", "b": b"2"})

    assert folder_sha256({"b": b"2", "a": b"1"}) == one
    assert len({one, folder_sha256({"a": b"12", "b": b""}), folder_sha256({"a": b"1", "c": b"2"})}) == 3
