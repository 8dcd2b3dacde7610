"""The registries: every name leads somewhere, and a wrong one is answered with the right ones."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from experts import kinds
from experts.errors import UnknownKind
from experts.kinds import check, find
from experts.routing import kinds as router_kinds
from experts.routing.kind import Kind

REGISTRIES = {
    "encoder": kinds.ENCODERS,
    "engine": kinds.ENGINES,
    "router": kinds.ROUTERS,
    "combiner": kinds.COMBINERS,
    "kind of document": kinds.DOCUMENTS,
}
ENTRIES = [
    pytest.param(registry, name, id=f"{what} {name}") for what, registry in REGISTRIES.items() for name in registry
]


@pytest.mark.parametrize(("registry", "name"), ENTRIES)
def test_every_registered_name_leads_to_something_that_can_be_called(registry: Mapping[str, str], name: str) -> None:
    found = find("kind", registry, name)
    assert callable(found)
    module, _, attribute = registry[name].partition(":")
    assert (found.__module__, found.__name__) == (module, attribute)


@pytest.mark.parametrize("name", ["", "Extractive", "extractive ", "os:system", "experts.engines.echo:make"])
def test_an_unknown_name_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(UnknownKind) as caught:
        find("engine", {"extractive": "a:b", "echo": "c:d"}, name)
    assert str(caught.value) == f"unknown engine {name!r}; there are: echo, extractive"
    assert caught.value.code == "unknown_kind"


def test_checking_a_name_imports_nothing() -> None:
    check("engine", {"broken": "no.such.module:make"}, "broken")
    with pytest.raises(ModuleNotFoundError):
        find("engine", {"broken": "no.such.module:make"}, "broken")


def test_every_file_in_the_folder_of_router_kinds_is_one() -> None:
    """Putting it there registers it."""
    folder = Path(next(iter(router_kinds.__path__)))
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert kinds.ROUTERS.keys() == files
    assert {"centroid", "ensemble", "heuristic", "knn", "neural", "random"} <= files


@pytest.mark.parametrize("name", sorted(kinds.ROUTERS))
def test_every_kind_of_router_is_a_class_that_can_score(name: str) -> None:
    found = find("router kind", kinds.ROUTERS, name)
    assert issubclass(found, Kind)
    assert found.__abstractmethods__ == frozenset()


def test_only_those_that_read_words_or_nothing_need_no_vectors() -> None:
    without = {name for name in kinds.ROUTERS if not find("router kind", kinds.ROUTERS, name).needs_vectors}
    assert without == {"heuristic", "random"}


def test_the_kind_that_is_trained_by_default_is_registered() -> None:
    assert kinds.DEFAULT_ROUTER in kinds.ROUTERS


def test_the_list_of_engines_with_vectors_names_registered_kinds() -> None:
    assert set(kinds.ENGINES_WITH_VECTORS) <= kinds.ENGINES.keys()


def test_the_named_encoders_are_registered() -> None:
    assert {kinds.HASHING, kinds.SENTENCE_TRANSFORMERS} <= kinds.ENCODERS.keys()
