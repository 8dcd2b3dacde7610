"""A base is loaded whole, frozen and known by its weights, or it is refused with the reason."""

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from experts.errors import ModelUnusable
from experts.language.base import BaseSpec, load_base, weights_sha256
from tests.tiny_base import save_tiny_base, tiny_model


def test_a_base_is_frozen_and_in_eval_mode(folder: Path) -> None:
    base = load_base(BaseSpec(str(folder)))

    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training
    assert base.num_parameters == sum(p.numel() for p in base.model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_hash_of_the_files_is_the_hash_of_the_model_held_as_stored(tmp_path: Path, dtype: torch.dtype) -> None:
    base = load_base(BaseSpec(str(save_tiny_base(tmp_path / "base", dtype=dtype))))

    assert base.model.dtype == dtype
    assert weights_sha256(base.model) == base.sha256


def test_a_base_in_another_precision_is_the_same_base(folder: Path) -> None:
    stored, other = load_base(BaseSpec(str(folder))), load_base(BaseSpec(str(folder), dtype="bfloat16"))

    assert other.sha256 == stored.sha256
    assert weights_sha256(other.model) != stored.sha256


def test_weights_in_several_files_have_the_hash_of_the_same_weights_in_one(tmp_path: Path, folder: Path) -> None:
    split = tmp_path / "split"
    shutil.copytree(folder, split)
    (split / "model.safetensors").unlink()
    tiny_model().save_pretrained(split, max_shard_size="50KB")

    assert len(list(split.glob("*.safetensors"))) > 1
    assert load_base(BaseSpec(str(split))).sha256 == load_base(BaseSpec(str(folder))).sha256


def test_one_changed_weight_changes_the_hash() -> None:
    model = tiny_model()
    before = weights_sha256(model)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-6

    assert weights_sha256(model) != before


def test_an_adapter_around_the_model_changes_no_hash(folder: Path) -> None:
    base = load_base(BaseSpec(str(folder)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = get_peft_model(base.model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))

    assert weights_sha256(wrapped) == base.sha256
    assert weights_sha256(wrapped.unload()) == base.sha256


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused_by_its_name(folder: Path, missing: str) -> None:
    (folder / missing).unlink()

    with pytest.raises(ModelUnusable, match=missing.replace(".", r"\.")):
        load_base(BaseSpec(str(folder)))


def test_pickled_weights_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelUnusable, match=r"pytorch_model\.bin.*only safetensors"):
        load_base(BaseSpec(str(folder)))


def test_a_file_of_weights_that_was_cut_short_is_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ModelUnusable, match="cannot be loaded"):
        load_base(BaseSpec(str(folder)))


def test_a_missing_weight_is_named_and_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelUnusable, match=r"model\.layers\.0\.mlp\.up_proj\.weight"):
        load_base(BaseSpec(str(folder)))


def test_code_named_in_a_configuration_is_never_run(folder: Path) -> None:
    """A model type of its own, with a module to import for it."""
    (folder / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}')
    (folder / "evil.py").write_text("raise SystemExit('ran')")

    with pytest.raises(ModelUnusable, match="cannot be loaded"):
        load_base(BaseSpec(str(folder)))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (BaseSpec("x", dtype="int3"), "float32, bfloat16"),
        (BaseSpec("x", device="abacus"), "cuda:N"),
        (BaseSpec("not a/hub/id"), "neither a folder nor the id"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(spec: BaseSpec, reason: str) -> None:
    with pytest.raises(ModelUnusable, match=reason):
        load_base(spec)


def test_a_tokenizer_without_padding_pads_with_the_end(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(file.read_text().replace('"pad_token": "<pad>",', "").replace(',\n  "pad_token": "<pad>"', ""))

    tokenizer = load_base(BaseSpec(str(folder))).tokenizer

    assert (tokenizer.pad_token, tokenizer.padding_side) == ("<end>", "left")
