"""The base: one frozen causal language model, on which every expert is an adapter."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from experts.errors import ModelUnusable
from experts.language.base_files import find_files

DTYPES = ("auto", "float32", "bfloat16", "float16")
# How PEFT names what it adds to a model, and where it moves what was there.
_PEFT_PREFIX = "base_model.model."
_PEFT_WRAPPED = "base_layer"
_PEFT_ADDED = "lora_"


@dataclass(frozen=True, slots=True)
class BaseSpec:
    """Which model, and how it is held. ``threads`` is for the whole process; None leaves it."""

    name: str  # a local folder or a hub id
    dtype: str = "auto"  # auto (as stored) | float32 | bfloat16 | float16
    device: str = "cpu"  # cpu | cuda | cuda:N | auto (spread over what there is)
    load_in_8bit: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """A frozen model in eval mode and its tokenizer.

    ``sha256`` is of the weights as they are stored, so it is the same in every precision and on every device. Where the
    model is held as it is stored, ``weights_sha256(model)`` gives the same.
    """

    model: Any
    tokenizer: Any
    sha256: str
    spec: BaseSpec
    num_parameters: int

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device


def load_base(spec: BaseSpec) -> Base:
    """The model of ``spec``, frozen. Raises ModelUnusable if it is not there, not whole, or not safe to load."""
    if spec.dtype not in DTYPES:
        raise ModelUnusable(f"dtype {spec.dtype!r} of base {spec.name!r} is unknown; there are: {', '.join(DTYPES)}")
    _check_device(spec)
    if spec.threads:
        torch.set_num_threads(spec.threads)
    files = find_files(spec.name)
    tokenizer = _load_tokenizer(files.folder, spec.name)
    model = _load_model(files.folder, spec)
    model.requires_grad_(False)
    model.eval()
    return Base(model, tokenizer, stored_sha256(files.weights), spec, int(model.num_parameters()))


def weights_sha256(model: Any) -> str:
    """The sha256 of a model's own weights; what PEFT adds to a model, and how it renames it, changes nothing.

    Hashed are the parameters and the buffers that are stored with a model, in the order of their names: name, dtype,
    shape, bytes. A weight with two names (tied embeddings) counts once, under the first.
    """
    return tensors_sha256((name, tensor) for name, tensor in sorted(_own_weights(model).items()))


def stored_sha256(files: Iterable[Path]) -> str:
    """What ``weights_sha256`` gives for a model that is held as these safetensors files store it."""
    return tensors_sha256(_stored(files))


def _own_weights(model: Any) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters())  # tied weights once
    every = {id(tensor) for tensor in model.parameters()}
    stored = model.state_dict(keep_vars=True)
    buffers = {name: tensor for name, tensor in stored.items() if id(tensor) not in every}
    own = {}
    for name, tensor in {**parameters, **buffers}.items():
        parts = name.removeprefix(_PEFT_PREFIX).split(".")
        if isinstance(tensor, torch.Tensor) and not any(part.startswith(_PEFT_ADDED) for part in parts):
            own[".".join(part for part in parts if part != _PEFT_WRAPPED)] = tensor
    return own


def _stored(files: Iterable[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    where = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            where.update(dict.fromkeys(opened.keys(), file))
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as opened:
            yield name, opened.get_tensor(name)


def tensors_sha256(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The sha256 of tensors in the order given: name, dtype, shape and bytes of each."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)}\n".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_device(spec: BaseSpec) -> None:
    kind = spec.device.partition(":")[0]
    if kind not in ("cpu", "cuda", "auto"):
        raise ModelUnusable(
            f"device {spec.device!r} of base {spec.name!r} is unknown; there are: cpu, cuda, cuda:N, auto"
        )
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelUnusable(f"base {spec.name!r} is set to device {spec.device!r}, and this machine has no CUDA device")


def _load_tokenizer(folder: Path, name: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the library raises whatever its parts raise
        raise ModelUnusable(f"the tokenizer of base {name!r} cannot be loaded: {_first_line(error)}") from error
    if tokenizer.eos_token is None:
        raise ModelUnusable(f"the tokenizer of base {name!r} has no end-of-sequence token, so answers would never end")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _load_model(folder: Path, spec: BaseSpec) -> Any:
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loader: Any = AutoModelForCausalLM
    quantized: Any = BitsAndBytesConfig
    try:
        model, report = loader.from_pretrained(
            folder,
            dtype="auto" if spec.dtype == "auto" else getattr(torch, spec.dtype),
            device_map="auto" if spec.device == "auto" else {"": spec.device},
            quantization_config=quantized(load_in_8bit=True) if spec.load_in_8bit else None,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # the library raises whatever its parts raise
        raise ModelUnusable(f"base {spec.name!r} cannot be loaded: {_first_line(error)}") from error
    # The library would fill what is missing with random numbers and only log it.
    wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if wrong:
        raise ModelUnusable(f"base {spec.name!r} lacks weights or has them in another shape: {', '.join(wrong[:5])}")
    return model


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no text'}"
