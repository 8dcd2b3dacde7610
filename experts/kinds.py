"""Every kind of encoder, engine, router, combiner and document, by name.

They are named by strings, so that a process imports only what it uses, and the command line imports none of them.
"""

from collections.abc import Mapping
from pkgutil import resolve_name
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
}
# Engines that read the queries' embeddings, so that routing must make them.
ENGINES_WITH_VECTORS = ("extractive",)

# kind -> its `load(folder) -> Router`, and its `train(TrainingSet) -> TrainedRouter`.
ROUTERS = {
    "neural": "experts.routing.neural:load",
    "heuristic": "experts.routing.heuristic:load",
    "random": "experts.routing.random_choice:load",
}
ROUTER_TRAINERS = {
    "neural": "experts.routing.neural_training:train",
    "heuristic": "experts.routing.heuristic:train",
    "random": "experts.routing.random_choice:train",
}
# Kinds that are trained and run without embeddings.
ROUTERS_WITHOUT_VECTORS = ("heuristic", "random")

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
