"""Every kind of encoder, engine, router, combiner and document, by name.

They are named by strings, so that a process imports only what it uses, and the command line imports none of them.
"""

from collections.abc import Mapping
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from typing import Any

from experts.errors import UnknownKind

HASHING = "hashing"
SENTENCE_TRANSFORMERS = "sentence-transformers"

ENCODERS = {
    HASHING: "experts.encoders.hashing:make",
    SENTENCE_TRANSFORMERS: "experts.encoders.sentence:make",
}

ENGINES = {
    "extractive": "experts.engines.extractive:make",
    "echo": "experts.engines.echo:make",
    "transformers": "experts.engines.generative:make",
    "openai": "experts.engines.remote:make",
}
# Engines that read the queries' embeddings, so that routing must make them.
ENGINES_WITH_VECTORS = ("extractive",)

# A file in this folder is a kind of router: its class `Router`, see experts.routing.kind.
_ROUTER_KINDS = Path(__file__).parent / "routing" / "kinds"
ROUTERS = {module.name: f"experts.routing.kinds.{module.name}:Router" for module in iter_modules([str(_ROUTER_KINDS)])}
# The kind that is trained where nothing else is said.
DEFAULT_ROUTER = "ensemble"

COMBINERS = {
    "weighted": "experts.combining:WeightedCombiner",
}

# The end of a file's name -> its `read(data, *, name, where) -> list[Document]`.
DOCUMENTS = {
    ".md": "experts.reading.text:read",
    ".txt": "experts.reading.text:read",
    ".html": "experts.reading.html:read",
    ".htm": "experts.reading.html:read",
    ".pdf": "experts.reading.pdf:read",
    ".jsonl": "experts.reading.jsonl:read",
}


def check(what: str, registry: Mapping[str, str], name: str) -> None:
    """Raise UnknownKind, with the names there are, unless ``name`` is registered."""
    if name not in registry:
        raise UnknownKind(what, name, list(registry))


def find(what: str, registry: Mapping[str, str], name: str) -> Any:
    """The object registered under ``name``. Raises UnknownKind."""
    check(what, registry, name)
    return resolve_name(registry[name])
