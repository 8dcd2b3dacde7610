"""The registries: every name leads somewhere, and a wrong one is answered with the right ones."""

from collections.abc import Mapping

import pytest

from experts import kinds
from experts.errors import UnknownKind
from experts.kinds import check, find

REGISTRIES = {
    "encoder": kinds.ENCODERS,
    "engine": kinds.ENGINES,
    "router": kinds.ROUTERS,
    "router trainer": kinds.ROUTER_TRAINERS,
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


def test_every_router_that_can_be_loaded_can_be_trained() -> None:
    assert kinds.ROUTERS.keys() == kinds.ROUTER_TRAINERS.keys()


def test_the_lists_of_who_needs_vectors_name_registered_kinds() -> None:
    assert set(kinds.ENGINES_WITH_VECTORS) <= kinds.ENGINES.keys()
    assert set(kinds.ROUTERS_WITHOUT_VECTORS) <= kinds.ROUTERS.keys()


def test_the_named_encoders_are_registered() -> None:
    assert {kinds.HASHING, kinds.SENTENCE_TRANSFORMERS} <= kinds.ENCODERS.keys()
