"""An adapter as files, and what is checked of such files before one number of them is used."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from experts.adapters.config import CONFIG, AdapterConfig, config_bytes, read_config, to_peft
from experts.adapters.fingerprint import Fingerprint, fingerprint_from
from experts.adapters.spec import LoraSpec, target_layers
from experts.adapters.tensors import WEIGHTS, layer_and_part, tensors_of, weights_of
from experts.errors import CannotTrain, ModelUnusable
from experts.language.adapting import AdapterWeights
from experts.language.base import Base

CARD = "card.json"
FORMAT = 1
_FILES = (CONFIG, WEIGHTS, CARD)
_MAX_TEXT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What a checked adapter is. ``card`` is its whole card, as written when it was trained."""

    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    num_parameters: int
    sha256: str
    base_name: str
    base_sha256: str
    metrics: Mapping[str, Any]
    fingerprint: Fingerprint
    card: Mapping[str, Any]


def adapter_files(
    base: Base,
    weights: AdapterWeights,
    spec: LoraSpec,
    fingerprint: Fingerprint,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The files of an adapter by name: PEFT's two, which PEFT can load, and the card that says what they are."""
    card = {
        "format": FORMAT,
        "base": {"name": Path(base.spec.name).name, "sha256": base.sha256},
        "sha256": weights.sha256,
        "spec": asdict(spec),
        "metrics": dict(metrics or {}),
        "fingerprint": asdict(fingerprint),
    }
    return {
        CONFIG: config_bytes(AdapterConfig(spec.rank, spec.alpha, spec.dropout, tuple(sorted(spec.target_modules)))),
        WEIGHTS: save(tensors_of(weights), metadata={"format": "pt"}),
        CARD: json.dumps(card, indent=2, allow_nan=False).encode(),
    }


def check_adapter(folder: Path, base: Base) -> AdapterInfo:
    """What the adapter in ``folder`` is. Raises ModelUnusable if it cannot be trusted, or is not for this base.

    In this order: the names of the files, the configuration, the card and whose base it names, names, types and shapes
    of the tensors from their header, and only then the numbers. The fingerprint is ``check_fingerprint``'s.
    """
    _check_names(folder)
    config = read_config(_text(folder, CONFIG))
    card = _card(folder)
    own = card["base"]["sha256"]
    if own != base.sha256:
        raise ModelUnusable(
            f"the adapter belongs to base {card['base']['name']!r} ({own[:12]}), and this one is {base.spec.name!r} "
            f"({base.sha256[:12]})"
        )
    _check_header(folder, config, base)
    weights = _weights(folder, config)
    if weights.sha256 != card["sha256"]:
        raise ModelUnusable(f"{WEIGHTS} is not what {CARD} was written for: its numbers have another sha256")
    return AdapterInfo(
        rank=config.rank,
        alpha=config.alpha,
        target_modules=config.target_modules,
        num_parameters=weights.num_parameters,
        sha256=weights.sha256,
        base_name=card["base"]["name"],
        base_sha256=own,
        metrics=card["metrics"],
        fingerprint=fingerprint_from(card["fingerprint"]),
        card=card,
    )


def state(folder: Path) -> AdapterWeights:
    """The numbers of an adapter that ``check_adapter`` found good. Raises ModelUnusable."""
    _check_names(folder)
    return _weights(folder, read_config(_text(folder, CONFIG)))


def load_into(peft_model: Any, folder: Path, name: str) -> None:
    """Add the adapter as ``name`` to a model of PEFT's, without PEFT reading the folder. Raises ModelUnusable."""
    config = read_config(_text(folder, CONFIG))
    peft_model.add_adapter(name, to_peft(config, inference=True))
    weights = _weights(folder, config)
    report: Any = set_peft_model_state_dict(peft_model, tensors_of(weights), adapter_name=name)
    if report.unexpected_keys:
        raise ModelUnusable(f"the model has no place for {report.unexpected_keys[0]!r} of the adapter")


def folder_sha256(files: Mapping[str, bytes]) -> str:
    """The sha256 of files by their names and bytes, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}\n".encode() + files[name])
    return digest.hexdigest()


def _check_names(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelUnusable(f"there is no folder {folder} with an adapter")
    there = {entry.name: entry for entry in folder.iterdir()}
    strange = sorted(set(there) - set(_FILES))
    if strange:
        raise ModelUnusable(
            f"the adapter's folder holds {strange[0]!r}; it holds {', '.join(_FILES)} and nothing else, "
            "since weights in other forms can run code when they are loaded"
        )
    missing = [name for name in _FILES if name not in there]
    if missing:
        raise ModelUnusable(f"the adapter lacks {', '.join(missing)}")
    linked = [name for name, entry in there.items() if entry.is_symlink() or not entry.is_file()]
    if linked:
        raise ModelUnusable(f"{linked[0]} of the adapter is no plain file")


def _text(folder: Path, name: str) -> bytes:
    if (folder / name).stat().st_size > _MAX_TEXT_BYTES:
        raise ModelUnusable(f"{name} of the adapter is larger than {_MAX_TEXT_BYTES} bytes")
    return (folder / name).read_bytes()


def _card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads(_text(folder, CARD))
        known = card["format"] == FORMAT
        whole = all(isinstance(card[key], dict) for key in ("base", "metrics", "fingerprint"))
        texts = all(isinstance(text, str) for text in (card["sha256"], card["base"]["name"], card["base"]["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelUnusable(f"{CARD} is not the card of an adapter: {error!r:.200}") from error
    if not known:
        raise ModelUnusable(f"{CARD} has format {card['format']!r:.40}; this program reads format {FORMAT}")
    if not whole or not texts:
        raise ModelUnusable(f"{CARD} is not the card of an adapter: a value has the wrong type")
    return dict(card)


def _check_header(folder: Path, config: AdapterConfig, base: Base) -> None:
    """Exactly the tensors the configuration promises, on this base. Nothing but the file's header is read."""
    try:
        layers = target_layers(base.model, config.target_modules)
    except CannotTrain as error:
        raise ModelUnusable(f"the adapter does not fit the base: {error}") from error
    expected = set()
    for name, layer in layers.items():
        expected |= {(name, "A", (config.rank, layer.in_features)), (name, "B", (layer.out_features, config.rank))}
    found = set()
    with _opened(folder) as file:
        for name in file.keys():  # noqa: SIM118  # the file is no mapping
            part = file.get_slice(name)
            if part.get_dtype() not in ("F32", "F16", "BF16"):
                raise ModelUnusable(f"{name!r:.200} in {WEIGHTS} holds {part.get_dtype()}, not floating-point numbers")
            found.add((*layer_and_part(name), tuple(part.get_shape())))
    wrong = sorted(found - expected) or sorted(expected - found)
    if wrong:
        where, half, shape = wrong[0]
        what = "has" if found - expected else "lacks"
        raise ModelUnusable(
            f"{WEIGHTS} does not fit the base: it {what} {half} of {where!r:.200} of shape {list(shape)}"
        )


def _opened(folder: Path) -> Any:
    try:
        return safe_open(folder / WEIGHTS, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelUnusable(f"{WEIGHTS} is not whole: {error}") from error


def _weights(folder: Path, config: AdapterConfig) -> AdapterWeights:
    with _opened(folder) as file:
        weights = weights_of({name: file.get_tensor(name) for name in file.keys()}, config.scaling)  # noqa: SIM118
    for name, pair in weights.layers.items():
        if not all(bool(torch.isfinite(half).all()) for half in pair):
            raise ModelUnusable(f"{WEIGHTS} holds numbers that are not finite, in {name!r}")
    return weights
