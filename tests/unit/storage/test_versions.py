"""Built knowledge and trained routers: the next becomes live in one move."""

from collections.abc import Sequence

import pytest

from storage import catalogue, versions
from storage.versions import RouterView
from tests.unit.storage.builders import Store, put_expert
from tests.unit.storage.test_catalogue import build


def promote(store: Store, experts: Sequence[str], content: str = "c") -> int:
    return store(
        versions.promote_router,
        kind="neural",
        encoder="minilm",
        artefact="routers/1",
        artefact_sha256="aa",
        content_sha256=content,
        experts=experts,
        metrics={"accuracy": 0.9},
    )


def test_knowledge_is_numbered_for_each_expert(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")

    assert [build(store, alpha.id, "one"), build(store, alpha.id, "two"), build(store, beta.id, "one")] == [1, 2, 1]
    assert store.rows("SELECT number, content_sha256, n_documents, n_passages FROM knowledge ORDER BY id") == [
        (1, "one", 2, 7),
        (2, "two", 2, 7),
        (1, "one", 2, 7),
    ]


def test_only_the_live_content_counts_as_built(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")
    assert store(versions.knowledge_is_built, alpha.id, "one") is False

    build(store, alpha.id, "one")
    assert store(versions.knowledge_is_built, alpha.id, "one") is True
    assert store(versions.knowledge_is_built, beta.id, "one") is False

    build(store, alpha.id, "two")
    assert store(versions.knowledge_is_built, alpha.id, "one") is False


def test_dropped_knowledge_is_kept_and_not_live(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")
    for expert in (alpha, beta):
        build(store, expert.id, "one")

    store(versions.drop_knowledge, alpha.id)

    assert [expert.knowledge for expert in store(catalogue.experts)] == [None, 1]
    assert store.value("SELECT count(*) FROM knowledge") == 2
    assert build(store, alpha.id, "two") == 2


def test_without_a_router_there_is_none(store: Store) -> None:
    assert store(versions.live_router) is None


def test_a_promoted_router_is_live_with_all_it_was_given(store: Store) -> None:
    number = promote(store, ["alpha", "beta"])

    assert store(versions.live_router) == RouterView(
        number, "neural", "live", "minilm", "routers/1", "aa", "c", ["alpha", "beta"], {"accuracy": 0.9}
    )


def test_the_router_before_is_retired(store: Store) -> None:
    first, second, third = (promote(store, ["alpha"]) for _ in range(3))

    assert store.rows("SELECT id, state FROM router_version ORDER BY id") == [
        (first, "retired"),
        (second, "retired"),
        (third, "live"),
    ]


@pytest.mark.parametrize("experts", [["alpha", "beta"], ["beta", "gamma"], ["nobody"], []])
def test_exactly_the_experts_of_the_live_router_serve(store: Store, experts: list[str]) -> None:
    for name in ("alpha", "beta", "gamma"):
        put_expert(store, name)
    promote(store, ["alpha", "beta"])

    promote(store, experts)

    assert store(catalogue.names, serving=True) == [name for name in experts if name != "nobody"]


def test_a_promotion_that_fails_leaves_the_router_before(store: Store) -> None:
    first = promote(store, [])
    store.sql("INSERT INTO expert (name) VALUES ('unready')")

    with pytest.raises(Exception, match="serving_needs_a_version"):
        promote(store, ["unready"])

    live = store(versions.live_router)
    assert live is not None
    assert live.id == first
