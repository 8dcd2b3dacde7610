"""Versions of an expert: candidates wait, one is live, and the one before it can come back."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from storage import catalogue, expert_versions, versions
from storage.errors import NotAllowed, NotFound
from storage.expert_versions import Adapter, VersionView
from tests.unit.storage.builders import CARD, Store, at_once, claim_chunk, put_expert, route, shard_ids, start

ADAPTER = Adapter("adapters/alpha/2", "hash of its files", "hash of its numbers", "hash of the base")


@pytest.fixture
def alpha(store: Store) -> int:
    """An expert that has no version yet."""
    return store(expert_versions.ensure_expert, "alpha")


def add(store: Store, expert_id: int, **changes: Any) -> int:
    given: dict[str, Any] = {"engine": "lora", "card": CARD, "adapter": ADAPTER}
    return store(expert_versions.add_version, expert_id, **(given | changes))


def promoted(store: Store, expert_id: int, n: int = 1) -> list[int]:
    """The numbers of ``n`` more versions of alpha, each of which was live in its turn."""
    numbers = [add(store, expert_id) for _ in range(n)]
    for number in numbers:
        store(expert_versions.promote, "alpha", number)
    return numbers


def states(store: Store, expert: str = "alpha") -> dict[int, str]:
    return {view.number: view.state for view in store(expert_versions.versions, expert)}


def live(store: Store) -> int:
    return store(expert_versions.version, "alpha", None).number


# --- an expert that is new ----------------------------------------------------------------------------------------


def test_a_new_expert_has_no_version_and_serves_nothing(store: Store, alpha: int) -> None:
    assert store(expert_versions.ensure_expert, "alpha") == alpha
    assert store(expert_versions.versions, "alpha") == []
    assert (store(catalogue.names), store(catalogue.experts)) == (["alpha"], [])
    assert store(catalogue.names, serving=True) == []


def test_an_expert_that_is_there_keeps_what_it_has(store: Store) -> None:
    there = put_expert(store, "alpha")

    assert store(expert_versions.ensure_expert, "alpha") == there.id

    assert store(catalogue.expert, "alpha") == there


def test_an_expert_that_several_ask_for_at_once_is_one(store: Store) -> None:
    ids = at_once(store, [lambda connection: expert_versions.ensure_expert(connection, "alpha")] * 4)

    assert ids == store.values("SELECT id FROM expert") * 4


# --- candidates ---------------------------------------------------------------------------------------------------


def test_a_candidate_is_stored_with_all_it_was_given_and_changes_nothing(store: Store) -> None:
    before = put_expert(store, "alpha")
    metrics, verdict = {"f1": 0.75}, {"promote": False, "why": "Too few answers."}

    number = add(store, before.id, metrics=metrics, verdict=verdict, job_id=12)

    view = store(expert_versions.version, "alpha", number)
    assert view == VersionView(
        id=view.id,
        expert="alpha",
        number=2,
        state="candidate",
        engine="lora",
        card=CARD,
        adapter=ADAPTER,
        metrics=metrics,
        verdict=verdict,
        job_id=12,
        created_at=view.created_at,
        promoted_at=None,
    )
    assert store(catalogue.expert, "alpha") == before


def test_a_version_may_have_neither_adapter_nor_figures(store: Store, alpha: int) -> None:
    number = add(store, alpha, adapter=None)

    view = store(expert_versions.version, "alpha", number)
    assert (view.adapter, view.metrics, view.verdict, view.job_id) == (None, None, None, None)


@pytest.mark.parametrize("column", ["adapter", "adapter_tree_sha256", "adapter_sha256", "base_sha256"])
def test_an_adapter_without_its_hashes_is_refused(store: Store, alpha: int, column: str) -> None:
    add(store, alpha)

    with pytest.raises(IntegrityError, match="adapter_has_its_hashes"):
        store.sql(f"UPDATE expert_version SET {column} = NULL")


def test_versions_are_numbered_for_each_expert_and_listed_newest_first(store: Store, alpha: int) -> None:
    beta = store(expert_versions.ensure_expert, "beta")

    assert [add(store, alpha), add(store, alpha), add(store, beta), add(store, alpha)] == [1, 2, 1, 3]

    assert list(states(store)) == [3, 2, 1]
    assert states(store, "beta") == {1: "candidate"}


def test_versions_that_are_stored_at_once_get_numbers_of_their_own(store: Store, alpha: int) -> None:
    works = [
        partial(expert_versions.add_version, expert_id=alpha, engine="echo", card={}, adapter=None, job_id=job_id)
        for job_id in (1, 2, None, None)
    ]

    assert sorted(at_once(store, works)) == [1, 2, 3, 4]


def test_a_job_stores_its_version_once(store: Store, alpha: int) -> None:
    """Its worker may have died after the commit; what it stored first stays as it was."""
    assert add(store, alpha, job_id=5) == 1
    assert add(store, alpha, job_id=5, card={"title": "Another"}) == 1
    assert add(store, alpha, job_id=6) == 2
    assert add(store, store(expert_versions.ensure_expert, "beta"), job_id=5) == 1

    assert store(expert_versions.version, "alpha", 1).card == CARD
    assert list(states(store)) == [2, 1]


def test_a_job_that_two_workers_end_at_once_stores_its_version_once(store: Store, alpha: int) -> None:
    work = partial(expert_versions.add_version, expert_id=alpha, engine="echo", card={}, adapter=None, job_id=5)

    assert at_once(store, [work] * 4) == [1] * 4

    assert states(store) == {1: "candidate"}


# --- finding one --------------------------------------------------------------------------------------------------


def test_without_a_number_the_live_version_is_meant(store: Store, alpha: int) -> None:
    first, _ = promoted(store, alpha), add(store, alpha)

    assert store(expert_versions.version, "alpha", None) == store(expert_versions.version, "alpha", first[0])


def test_an_unknown_version_is_not_found_and_those_there_are_are_named(store: Store, alpha: int) -> None:
    for _ in range(21):
        add(store, alpha)
    newest = ", ".join(map(str, range(21, 1, -1)))

    with pytest.raises(NotFound, match=rf"^no version of alpha '22'; there are: {newest}$"):
        store(expert_versions.version, "alpha", 22)


@pytest.mark.parametrize("call", [partial(expert_versions.version, number=None), expert_versions.rollback])
def test_an_expert_without_a_live_version_says_so(store: Store, alpha: int, call: Callable[..., Any]) -> None:
    add(store, alpha)

    with pytest.raises(NotFound, match=r"^no live version of expert 'alpha'$"):
        store(call, expert="alpha")


@pytest.mark.parametrize(
    "call",
    [
        expert_versions.versions,
        partial(expert_versions.version, number=1),
        partial(expert_versions.promote, number=1),
        expert_versions.rollback,
        expert_versions.retire,
    ],
)
def test_an_unknown_expert_is_named_with_those_there_are(store: Store, call: Callable[..., Any]) -> None:
    for name in ("beta", "alpha"):
        put_expert(store, name)

    with pytest.raises(NotFound, match=r"^no expert 'gamma'; there are: alpha, beta$"):
        store(call, expert="gamma")


# --- promotion ----------------------------------------------------------------------------------------------------


def test_a_promoted_version_is_live_from_now_on(store: Store) -> None:
    expert = put_expert(store, "alpha")
    number = add(store, expert.id)

    view = store(expert_versions.promote, "alpha", number)

    assert view == store(expert_versions.version, "alpha", None)
    assert view.promoted_at is not None
    assert states(store) == {1: "retired", 2: "live"}
    now = store(catalogue.expert, "alpha")
    assert (now.version, now.version_id, now.engine, now.adapter_sha256) == (2, view.id, "lora", ADAPTER.sha256)


def test_a_promotion_serves_nobody_that_no_router_knows(store: Store, alpha: int) -> None:
    promoted(store, alpha)

    assert [(expert.name, expert.serving) for expert in store(catalogue.experts)] == [("alpha", False)]


def test_promoting_the_live_version_again_keeps_it_live(store: Store, alpha: int) -> None:
    promoted(store, alpha, 2)

    store(expert_versions.promote, "alpha", 2)

    assert states(store) == {1: "retired", 2: "live"}
    assert store(expert_versions.rollback, "alpha").number == 1


def test_a_version_that_is_not_there_leaves_the_live_one(store: Store, alpha: int) -> None:
    promoted(store, alpha)

    with pytest.raises(NotFound, match=r"^no version of alpha '2'; there are: 1$"):
        store(expert_versions.promote, "alpha", 2)

    assert live(store) == 1


def test_versions_of_others_stay_as_they_are(store: Store, alpha: int) -> None:
    put_expert(store, "beta")

    promoted(store, alpha)

    assert states(store, "beta") == {1: "live"}


def test_chunks_that_were_cut_before_go_on_with_their_version(store: Store) -> None:
    first = put_expert(store, "alpha")
    before, after = shard_ids(store, start(store))
    (old,) = route(store, before, [first])
    promoted(store, first.id)
    (new,) = route(store, after, [store(catalogue.expert, "alpha")])

    assert [(chunk.version, chunk.adapter) for chunk in (claim_chunk(store, old), claim_chunk(store, new))] == [
        (1, None),
        (2, ADAPTER),
    ]


def test_of_promotions_at_once_one_is_live_and_the_others_were(store: Store, alpha: int) -> None:
    numbers = [add(store, alpha) for _ in range(4)]

    at_once(store, [partial(expert_versions.promote, expert="alpha", number=number) for number in numbers])

    assert sorted(states(store).values()) == ["live", "retired", "retired", "retired"]
    # The order in which they were live is that in which they were promoted.
    by_time = store.values("SELECT number FROM expert_version ORDER BY promoted_at DESC")
    assert by_time == [live(store), *(store(expert_versions.rollback, "alpha").number for _ in range(3))]


# --- going back ---------------------------------------------------------------------------------------------------


def test_rolling_back_twice_goes_back_two_versions_and_no_further(store: Store, alpha: int) -> None:
    promoted(store, alpha, 3)

    assert [store(expert_versions.rollback, "alpha").number for _ in range(2)] == [2, 1]
    with pytest.raises(NotAllowed, match=r"^no version of alpha was live before version 1$"):
        store(expert_versions.rollback, "alpha")

    assert live(store) == 1


def test_rolling_back_passes_over_candidates(store: Store, alpha: int) -> None:
    promoted(store, alpha)
    add(store, alpha)
    promoted(store, alpha)

    view = store(expert_versions.rollback, "alpha")

    assert (view.number, view.state, view == store(expert_versions.version, "alpha", None)) == (1, "live", True)
    assert states(store)[2] == "candidate"


@pytest.mark.parametrize(
    ("order", "before"),
    [([1, 2, 1], 2), ([1, 3, 2], 3), ([2, 1], 2)],
    ids=["an old one again", "stored earlier, promoted later", "in the other order"],
)
def test_rolling_back_goes_by_when_versions_were_live(
    store: Store, alpha: int, order: Sequence[int], before: int
) -> None:
    for _ in range(3):
        add(store, alpha)
    for number in order:
        store(expert_versions.promote, "alpha", number)

    assert store(expert_versions.rollback, "alpha").number == before


def test_after_a_rollback_the_next_promotion_is_taken_back_to_where_one_had_gone_back_to(
    store: Store, alpha: int
) -> None:
    """Not to the version that people had gone back from."""
    promoted(store, alpha, 2)
    store(expert_versions.rollback, "alpha")
    promoted(store, alpha)

    assert store(expert_versions.rollback, "alpha").number == 1


def test_a_version_that_one_went_back_from_can_be_promoted_again(store: Store, alpha: int) -> None:
    promoted(store, alpha, 2)
    store(expert_versions.rollback, "alpha")

    assert store(expert_versions.promote, "alpha", 2).state == "live"
    assert store(expert_versions.rollback, "alpha").number == 1


def test_rollbacks_at_once_go_back_one_after_the_other(store: Store, alpha: int) -> None:
    promoted(store, alpha, 3)

    views = at_once(store, [partial(expert_versions.rollback, expert="alpha")] * 2)

    assert sorted(view.number for view in views) == [1, 2]
    assert live(store) == 1


def test_what_an_operator_puts_in_and_a_promotion_at_once_both_count(store: Store) -> None:
    """Whichever is last is live; neither takes the number of the other, and neither is lost."""
    expert = put_expert(store, "alpha")
    candidate = add(store, expert.id)

    def put(connection: Connection) -> object:
        return catalogue.put_expert(connection, catalogue.NewExpert("alpha", "echo", {"title": "New"}, [], []))

    def promote(connection: Connection) -> object:
        return expert_versions.promote(connection, "alpha", candidate)

    at_once(store, [put, promote])

    assert sorted(states(store)) == [1, 2, 3]
    assert sorted(states(store).values()) == ["live", "retired", "retired"]


# --- retirement ---------------------------------------------------------------------------------------------------


def test_an_expert_is_retired_once(store: Store) -> None:
    put_expert(store, "alpha")
    assert store(expert_versions.retire, "alpha") is True
    store.sql("UPDATE expert SET retired_at = '2020-01-01'")

    assert store(expert_versions.retire, "alpha") is False

    assert store.value("SELECT extract(year FROM retired_at) FROM expert") == 2020
    assert (store(catalogue.expert, "alpha").retired, states(store)) == (True, {1: "live"})


def test_an_expert_that_is_retired_several_times_at_once_is_retired_once(store: Store) -> None:
    put_expert(store, "alpha")

    assert sorted(at_once(store, [partial(expert_versions.retire, expert="alpha")] * 3)) == [False, False, True]


def test_a_promotion_makes_a_retired_expert_active_again(store: Store) -> None:
    expert = put_expert(store, "alpha")
    store(expert_versions.retire, "alpha")

    promoted(store, expert.id)
    router = store(
        versions.add_router,
        kind="heuristic",
        encoder=None,
        artefact="routers/1",
        artefact_sha256="aa",
        content_sha256="c",
        experts=["alpha"],
        metrics={},
    )
    store(versions.promote_router, router)

    assert store(catalogue.expert, "alpha").retired is False
    assert store(catalogue.names, serving=True) == ["alpha"]
