"""Built knowledge and trained routers: the next becomes live in one move, and the one before can come back."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from storage import catalogue, expert_versions, versions
from storage.errors import NotFound
from storage.versions import RouterView
from tests.unit.storage.builders import Store, put_expert
from tests.unit.storage.test_catalogue import build


def add(store: Store, experts: Sequence[str] = ("alpha",), **changes: Any) -> int:
    """A trained router; its version."""
    given: dict[str, Any] = {
        "kind": "neural",
        "encoder": "minilm",
        "artefact": "routers/1",
        "artefact_sha256": "aa",
        "content_sha256": "c",
        "metrics": {"accuracy": 0.9},
    }
    return store(versions.add_router, experts=experts, **(given | changes))


def promoted(store: Store, experts: Sequence[str] = ("alpha",)) -> int:
    """A trained router that went live; its version."""
    return store(versions.promote_router, add(store, experts)).id


def states(store: Store) -> dict[int, str]:
    return {view.id: view.state for view in store(versions.routers)}


def live(store: Store) -> int | None:
    view = store(versions.live_router)
    return None if view is None else view.id


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


# --- routers ------------------------------------------------------------------------------------------------------


def test_without_a_router_there_is_none(store: Store) -> None:
    assert store(versions.live_router) is None
    assert store(versions.routers) == []
    assert store(versions.router_of_content, "c") is None
    assert store(versions.rollback_router) is None


def test_a_trained_router_is_stored_with_all_it_was_given_and_routes_nothing(store: Store) -> None:
    put_expert(store, "alpha")

    number = add(store, ["alpha", "beta"])

    [view] = store(versions.routers)
    assert view == RouterView(
        id=number,
        kind="neural",
        state="trained",
        encoder="minilm",
        artefact="routers/1",
        artefact_sha256="aa",
        content_sha256="c",
        experts=["alpha", "beta"],
        metrics={"accuracy": 0.9},
        created_at=view.created_at,
        promoted_at=None,
    )
    assert store.value("SELECT created_at <= now() AND created_at > now() - interval '1 minute' FROM router_version")
    assert store(versions.live_router) is None
    assert store(catalogue.names, serving=True) == []


def test_a_router_without_an_encoder_may_be_stored(store: Store) -> None:
    number = add(store, encoder=None, metrics={})

    view = store(versions.router, number)
    assert (view.encoder, view.metrics) == (None, {})


def test_a_promoted_router_is_live_from_now_on(store: Store) -> None:
    number = add(store)
    before = store(versions.router, number)

    view = store(versions.promote_router, number)

    assert view.promoted_at is not None
    assert view == store(versions.live_router) == store(versions.router, number)
    assert (view.state, view.created_at) == ("live", before.created_at)
    assert store.value(
        "SELECT promoted_at > created_at AND promoted_at > now() - interval '1 minute' FROM router_version"
    )


def test_the_router_before_is_retired_and_a_trained_one_stays_as_it_is(store: Store) -> None:
    first, trained, third = promoted(store), add(store), promoted(store)

    assert states(store) == {first: "retired", trained: "trained", third: "live"}


def test_promoting_the_live_router_again_keeps_it_live(store: Store) -> None:
    first, second = promoted(store), promoted(store)

    assert store(versions.promote_router, second).state == "live"

    assert states(store) == {first: "retired", second: "live"}


def test_a_retired_router_can_be_promoted_again(store: Store) -> None:
    first = promoted(store)
    at_first = store(versions.router, first).promoted_at
    second = promoted(store)

    view = store(versions.promote_router, first)

    assert states(store) == {first: "live", second: "retired"}
    assert view.promoted_at is not None
    assert at_first is not None
    assert view.promoted_at > at_first


@pytest.mark.parametrize("experts", [["alpha", "beta"], ["beta", "gamma"], ["nobody"], []])
def test_exactly_the_experts_of_the_live_router_serve(store: Store, experts: list[str]) -> None:
    for name in ("alpha", "beta", "gamma"):
        put_expert(store, name)
    promoted(store, ["alpha", "beta"])

    promoted(store, experts)

    assert store(catalogue.names, serving=True) == [name for name in experts if name != "nobody"]


def test_an_expert_without_a_live_version_is_not_served(store: Store) -> None:
    """It may be one whose first version is still a candidate; the others of the router are served all the same."""
    put_expert(store, "alpha")
    candidate = store(expert_versions.ensure_expert, "beta")
    store(expert_versions.add_version, candidate, engine="echo", card={}, adapter=None)
    first = promoted(store, ["alpha", "beta"])

    assert (live(store), store(catalogue.names, serving=True)) == (first, ["alpha"])

    store(expert_versions.promote, "beta", 1)
    assert store(catalogue.names, serving=True) == ["alpha"]
    store(versions.promote_router, first)
    assert store(catalogue.names, serving=True) == ["alpha", "beta"]


def test_a_retired_expert_serves_until_the_next_promotion_and_no_longer(store: Store) -> None:
    for name in ("alpha", "beta"):
        put_expert(store, name)
    number = promoted(store, ["alpha", "beta"])

    store(expert_versions.retire, "beta")

    assert store(catalogue.names, serving=True) == ["alpha", "beta"]
    store(versions.promote_router, number)
    assert store(catalogue.names, serving=True) == ["alpha"]
    assert [(expert.name, expert.retired) for expert in store(catalogue.experts)] == [("alpha", False), ("beta", True)]


def test_a_promotion_that_fails_leaves_the_router_before(store: Store) -> None:
    put_expert(store, "alpha")
    first = promoted(store, [])
    # Whatever it is that goes wrong at the very last move.
    store.sql("ALTER TABLE expert ADD CONSTRAINT nobody_serves CHECK (NOT serving)")
    try:
        with pytest.raises(IntegrityError, match="nobody_serves"):
            promoted(store, ["alpha"])
    finally:
        store.sql("ALTER TABLE expert DROP CONSTRAINT nobody_serves")

    assert live(store) == first
    assert store(catalogue.names, serving=True) == []


@pytest.mark.parametrize("call", [versions.promote_router, versions.router])
def test_an_unknown_version_is_not_found_and_those_there_are_are_named(store: Store, call: Any) -> None:
    first, second = promoted(store), add(store)

    with pytest.raises(NotFound, match=rf"^no router version '{second + 1}'; there are: {second}, {first}$"):
        store(call, second + 1)

    assert states(store) == {first: "live", second: "trained"}


def test_of_many_versions_the_newest_twenty_are_named(store: Store) -> None:
    numbers = [add(store) for _ in range(21)]

    with pytest.raises(NotFound) as raised:
        store(versions.router, 0)

    assert str(raised.value) == f"no router version '0'; there are: {', '.join(map(str, numbers[:0:-1]))}"


def test_versions_are_listed_newest_first(store: Store) -> None:
    numbers = [add(store, content_sha256=f"c{n}") for n in range(3)]
    store(versions.promote_router, numbers[0])

    assert [(view.id, view.content_sha256, view.state) for view in store(versions.routers)] == [
        (numbers[2], "c2", "trained"),
        (numbers[1], "c1", "trained"),
        (numbers[0], "c0", "live"),
    ]


# --- going back ---------------------------------------------------------------------------------------------------


def test_rolling_back_makes_the_router_before_live_with_its_experts(store: Store) -> None:
    for name in ("alpha", "beta"):
        put_expert(store, name)
    first, second = promoted(store, ["alpha"]), promoted(store, ["alpha", "beta"])

    view = store(versions.rollback_router)

    assert view == store(versions.router, first)
    assert states(store) == {first: "live", second: "retired"}
    assert store(catalogue.names, serving=True) == ["alpha"]


def test_rolling_back_passes_over_routers_that_were_never_live(store: Store) -> None:
    first, trained, third = promoted(store), add(store), promoted(store)

    store(versions.rollback_router)

    assert states(store) == {first: "live", trained: "trained", third: "retired"}


def test_rolling_back_twice_goes_back_two_routers_and_no_further(store: Store) -> None:
    first, second, third = (promoted(store) for _ in range(3))

    went_to = [store(versions.rollback_router) for _ in range(3)]

    assert [None if view is None else view.id for view in went_to] == [second, first, None]
    assert states(store) == {first: "live", second: "retired", third: "retired"}


def test_a_first_router_has_none_before_it(store: Store) -> None:
    trained, first = add(store), promoted(store)

    assert store(versions.rollback_router) is None

    assert states(store) == {trained: "trained", first: "live"}


def test_after_a_rollback_the_next_promotion_is_taken_back_to_where_one_had_gone_back_to(store: Store) -> None:
    """Not to the router that people had gone back from."""
    first, second = promoted(store), promoted(store)
    store(versions.rollback_router)
    third = promoted(store)

    store(versions.rollback_router)

    assert states(store) == {first: "live", second: "retired", third: "retired"}


@pytest.mark.parametrize(
    ("order", "before"),
    [([0, 1, 0], 1), ([0, 2, 1], 2), ([1, 0], 1)],
    ids=["an old one again", "trained earlier, promoted later", "in the other order"],
)
def test_rolling_back_goes_by_when_routers_were_live(store: Store, order: list[int], before: int) -> None:
    numbers = [add(store) for _ in range(3)]
    for place in order:
        store(versions.promote_router, numbers[place])

    view = store(versions.rollback_router)

    assert view is not None
    assert view.id == numbers[before]


# --- by content ---------------------------------------------------------------------------------------------------


def test_the_newest_router_of_a_content_is_found_whatever_its_state(store: Store) -> None:
    add(store, content_sha256="other")
    first, second = add(store), add(store)
    add(store, content_sha256="newer")

    view = store(versions.router_of_content, "c")
    assert view == store(versions.router, second)

    for number in (first, second):
        store(versions.promote_router, number)
        assert store(versions.router_of_content, "c") == store(versions.router, second)


def test_a_content_that_was_never_trained_has_no_router(store: Store) -> None:
    add(store)

    assert store(versions.router_of_content, "d") is None
