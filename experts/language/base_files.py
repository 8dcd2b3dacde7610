"""The files of a base: found in a folder or fetched from the hub, whole, and none among them that could run code."""

import json
from dataclasses import dataclass
from pathlib import Path

from experts.errors import ModelUnusable

# The name of the small base that comes with the program.
BUNDLED = "bundled"
_BUNDLED_FOLDER = Path(__file__).parent.parent / "pretraining" / "model"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Only these are fetched from a hub: no weights in other forms and no code.
_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt"]
_UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True, slots=True)
class BaseFiles:
    """A folder that holds a whole model, and its files of weights."""

    folder: Path
    weights: list[Path]


def find_files(name: str) -> BaseFiles:
    """The files of the folder or hub id ``name``. Raises ModelUnusable naming what is missing."""
    folder = _BUNDLED_FOLDER if name == BUNDLED else Path(name)
    folder = folder if folder.is_dir() else _fetch(name)
    if not (folder / "config.json").is_file():
        raise ModelUnusable(f"base {name!r} lacks config.json")
    weights = _weights(folder, name)
    missing = [file.name for file in weights if not file.is_file()]
    if missing:
        raise ModelUnusable(f"base {name!r} lacks {', '.join(missing)}")
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelUnusable(f"base {name!r} lacks a tokenizer (tokenizer.json, or tokenizer.model)")
    return BaseFiles(folder, weights)


def _weights(folder: Path, name: str) -> list[Path]:
    """The files the library will load: the single one before the parts."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        try:
            parts = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelUnusable(f"base {name!r}: {INDEX} is not an index of weights") from error
        return [folder / Path(str(part)).name for part in sorted(parts)]
    unsafe = sorted(file.name for file in folder.iterdir() if file.suffix in _UNSAFE)
    if unsafe:
        raise ModelUnusable(
            f"base {name!r} has its weights only as {unsafe[0]}; such files can run code when they are loaded, "
            "so only safetensors are read"
        )
    raise ModelUnusable(f"base {name!r} lacks {SINGLE}")


def _fetch(name: str) -> Path:
    """The hub's snapshot of ``name``, from the local cache if it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except HFValidationError as error:
        raise ModelUnusable(f"base {name!r} is neither a folder nor the id of a model on the hub") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnusable(f"base {name!r} is no folder here and cannot be fetched from the hub: {error}") from error
