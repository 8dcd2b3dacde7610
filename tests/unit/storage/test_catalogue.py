"""Experts, their versions, exemplars and documents."""

import hashlib
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from storage import catalogue, expert_versions, versions
from storage.catalogue import NewDocument, NewExpert, StoredDocument
from storage.errors import NotFound
from storage.expert_versions import Adapter
from tests.unit.storage.builders import CARD, Store, answer, put_expert, route, shard_ids, start

DOCUMENTS = [NewDocument("b.md", "Second", "two"), NewDocument("a.md", "First", "one")]


def new(name: str = "alpha", **changes: Any) -> NewExpert:
    given: dict[str, Any] = {"engine": "echo", "card": CARD, "exemplars": ["why?"], "documents": DOCUMENTS}
    return NewExpert(name, **(given | changes))


def sha256(title: str, text: str) -> str:
    return hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()


def test_a_new_expert_is_stored_with_its_first_version(store: Store) -> None:
    assert store(catalogue.put_expert, new()) is True

    expert = store(catalogue.expert, "alpha")
    assert (expert.name, expert.serving, expert.version, expert.engine, expert.card) == (
        "alpha",
        False,
        1,
        "echo",
        CARD,
    )
    assert (expert.n_documents, expert.n_exemplars, expert.n_passages) == (2, 1, 0)
    assert (expert.knowledge_id, expert.knowledge, expert.artefact, expert.artefact_sha256) == (None, None, None, None)
    assert expert.version_id == store.value("SELECT id FROM expert_version")


def test_the_same_expert_again_changes_nothing(store: Store) -> None:
    store(catalogue.put_expert, new())
    before = store(catalogue.expert, "alpha"), store.rows("SELECT * FROM document ORDER BY id")

    reordered = dict(reversed(CARD.items()))
    assert store(catalogue.put_expert, new(card=reordered, documents=DOCUMENTS[::-1])) is False

    assert (store(catalogue.expert, "alpha"), store.rows("SELECT * FROM document ORDER BY id")) == before


@pytest.mark.parametrize(
    ("changes", "version"),
    [
        ({"engine": "extractive"}, 2),
        ({"card": {**CARD, "title": "Another"}}, 2),
        ({"exemplars": ["why?", "how?"]}, 1),
        ({"exemplars": []}, 1),
        ({"documents": [*DOCUMENTS, NewDocument("c", "Third", "three")]}, 1),
        ({"documents": [NewDocument("b.md", "Second", "changed"), DOCUMENTS[1]]}, 1),
        ({"documents": [NewDocument("b.md", "Changed", "two"), DOCUMENTS[1]]}, 1),
    ],
)
def test_every_change_is_noticed_and_card_and_engine_make_a_version(
    store: Store, changes: dict[str, Any], version: int
) -> None:
    store(catalogue.put_expert, new())

    assert store(catalogue.put_expert, new(**changes)) is True
    assert store(catalogue.put_expert, new(**changes)) is False

    assert store(catalogue.expert, "alpha").version == version


def test_documents_that_people_added_since_stay(store: Store) -> None:
    """Loading a catalogue again must not take away what `docs add` brought."""
    store(catalogue.put_expert, new())
    store(catalogue.put_documents, store(catalogue.expert, "alpha").id, [NewDocument("c", "Third", "three")])

    assert store(catalogue.put_expert, new(documents=DOCUMENTS[:1])) is False

    names = [document.name for document in store(catalogue.documents, store(catalogue.expert, "alpha").id)]
    assert names == sorted(["c", *(document.name for document in DOCUMENTS)])


def test_old_versions_are_kept_as_they_were(store: Store) -> None:
    for title in ("one", "two", "one"):
        store(catalogue.put_expert, new(card={"title": title}))

    assert store.rows("SELECT number, card FROM expert_version ORDER BY id") == [
        (1, {"title": "one"}),
        (2, {"title": "two"}),
        (3, {"title": "one"}),
    ]
    assert store(catalogue.expert, "alpha").version == 3


@pytest.mark.parametrize("changes", [{"engine": "extractive"}, {"card": {**CARD, "title": "Another"}}])
def test_the_next_version_keeps_the_adapter_and_its_figures(store: Store, changes: dict[str, Any]) -> None:
    """Those of the live version: a candidate beside it has no part in it, and the next number is free."""
    store(catalogue.put_expert, new())
    expert_id = store(catalogue.expert, "alpha").id
    live = Adapter("adapters/live", "tree", "aa", "base")
    given: dict[str, Any] = {"engine": "echo", "card": CARD}
    for adapter in (live, Adapter("adapters/candidate", "other tree", "cc", "base")):
        number = store(expert_versions.add_version, expert_id, adapter=adapter, metrics={"of": adapter.sha256}, **given)
        if adapter is live:
            store(expert_versions.promote, "alpha", number)

    assert store(catalogue.put_expert, new(**changes)) is True

    now = store(expert_versions.version, "alpha", None)
    assert (now.number, now.adapter, now.metrics, now.verdict) == (4, live, {"of": "aa"}, None)
    assert store(catalogue.expert, "alpha").adapter_sha256 == "aa"
    states = [view.state for view in store(expert_versions.versions, "alpha")]
    assert states == ["live", "candidate", "retired", "retired"]
    assert store(expert_versions.rollback, "alpha").number == 2


def test_a_catalogue_that_says_the_same_as_the_live_version_leaves_its_adapter_live(store: Store) -> None:
    store(catalogue.put_expert, new())
    expert_id = store(catalogue.expert, "alpha").id
    adapter = Adapter("adapters/2", "tree", "aa", "base")
    number = store(expert_versions.add_version, expert_id, engine="echo", card=CARD, adapter=adapter)
    store(expert_versions.promote, "alpha", number)

    assert store(catalogue.put_expert, new()) is False

    assert store(expert_versions.version, "alpha", None).number == number


def test_an_expert_that_has_only_candidates_gets_its_first_live_version_without_an_adapter(store: Store) -> None:
    expert_id = store(expert_versions.ensure_expert, "alpha")
    store(expert_versions.add_version, expert_id, engine="lora", card={}, adapter=Adapter("a", "tree", "aa", "base"))

    assert store(catalogue.put_expert, new()) is True

    expert = store(catalogue.expert, "alpha")
    assert (expert.version, expert.engine, expert.adapter_sha256) == (2, "echo", None)


def test_a_retired_expert_is_shown_as_such(store: Store) -> None:
    for name in ("alpha", "beta"):
        put_expert(store, name)
    store(expert_versions.retire, "beta")

    assert [(expert.name, expert.retired) for expert in store(catalogue.experts)] == [("alpha", False), ("beta", True)]
    assert store(catalogue.names) == ["alpha", "beta"]


@pytest.mark.parametrize("name", ["", "Alpha", "1alpha", "al-pha", "a/b", "../x", "a b", "alpha\n", "é", "a" * 51])
def test_a_name_that_is_not_plain_is_refused(store: Store, name: str) -> None:
    with pytest.raises(IntegrityError, match="name_is_plain"):
        store(catalogue.put_expert, new(name))


def test_an_unknown_expert_is_named_with_those_there_are(store: Store) -> None:
    for name in ("beta", "alpha"):
        put_expert(store, name)

    with pytest.raises(NotFound, match=r"^no expert 'gamma'; there are: alpha, beta$"):
        store(catalogue.expert, "gamma")


def test_experts_come_by_name_and_by_whether_they_serve(store: Store) -> None:
    for name in ("gamma", "alpha", "beta"):
        put_expert(store, name)
    store.sql("UPDATE expert SET serving = true WHERE name <> 'beta'")

    for serving, names in ((None, ["alpha", "beta", "gamma"]), (True, ["alpha", "gamma"]), (False, ["beta"])):
        assert store(catalogue.names, serving=serving) == names
        assert [expert.name for expert in store(catalogue.experts, serving=serving)] == names


def test_an_expert_without_a_version_cannot_serve(store: Store) -> None:
    store.sql("INSERT INTO expert (name) VALUES ('alpha')")

    with pytest.raises(IntegrityError, match="serving_needs_a_version"):
        store.sql("UPDATE expert SET serving = true")
    assert store(catalogue.names) == ["alpha"]
    assert store(catalogue.experts) == []


def test_an_expert_that_no_longer_serves_is_listened_for_until_its_work_is_done(store: Store) -> None:
    alpha = put_expert(store, "alpha")
    put_expert(store, "beta")
    store.sql("UPDATE expert SET serving = true WHERE name = 'beta'")
    (chunk_id,) = route(store, shard_ids(store, start(store, 2))[0], [alpha])

    assert store(catalogue.names_to_answer_for) == ["alpha", "beta"]
    answer(store, chunk_id)
    assert store(catalogue.names_to_answer_for) == ["beta"]


# --- exemplars ------------------------------------------------------------------------------------------------


def test_exemplars_are_replaced_as_a_whole_and_doubles_dropped(store: Store) -> None:
    expert = put_expert(store)

    assert store(catalogue.put_exemplars, expert.id, ["b", "a", "b"]) is True
    assert store(catalogue.exemplars) == [("alpha", "b"), ("alpha", "a")]
    assert store(catalogue.put_exemplars, expert.id, ["a", "b"]) is False
    assert store(catalogue.put_exemplars, expert.id, ["a", "c"]) is True
    assert store(catalogue.exemplars) == [("alpha", "a"), ("alpha", "c")]


def test_exemplars_of_no_expert_are_their_own_and_come_last(store: Store) -> None:
    expert = put_expert(store)
    store(catalogue.put_exemplars, None, ["weather", "shared"])
    store(catalogue.put_exemplars, expert.id, ["shared"])

    assert store(catalogue.put_exemplars, None, ["shared"]) is True
    assert store(catalogue.exemplars) == [("alpha", "shared"), (None, "shared")]
    assert store(catalogue.put_exemplars, None, []) is True
    assert store(catalogue.exemplars) == [("alpha", "shared")]


def test_an_exemplar_may_be_longer_than_an_index_entry(store: Store) -> None:
    expert = put_expert(store)
    long = "x" * 20_000

    store(catalogue.put_exemplars, expert.id, [long, long + "y"])

    assert store(catalogue.exemplars) == [("alpha", long), ("alpha", long + "y")]


# --- documents ------------------------------------------------------------------------------------------------


def test_documents_come_by_name_with_their_hash(store: Store) -> None:
    store(catalogue.put_expert, new())
    expert = store(catalogue.expert, "alpha")

    assert store(catalogue.documents, expert.id) == [
        StoredDocument("a.md", "First", "one", sha256("First", "one")),
        StoredDocument("b.md", "Second", "two", sha256("Second", "two")),
    ]


def test_added_documents_leave_the_others(store: Store) -> None:
    expert = put_expert(store)
    store(catalogue.put_documents, expert.id, DOCUMENTS)
    third = NewDocument("c.md", "Third", "three")

    assert store(catalogue.put_documents, expert.id, [third]) is True
    assert [document.name for document in store(catalogue.documents, expert.id)] == ["a.md", "b.md", "c.md"]
    assert store(catalogue.put_documents, expert.id, [third]) is False


def test_removed_documents_are_named_where_they_were_there(store: Store) -> None:
    alpha, beta = put_expert(store, "alpha"), put_expert(store, "beta")
    for expert in (alpha, beta):
        store(catalogue.put_documents, expert.id, DOCUMENTS)

    assert store(catalogue.remove_documents, alpha.id, ["b.md", "a.md", "nothing"]) == ["a.md", "b.md"]
    assert store(catalogue.remove_documents, alpha.id, ["a.md"]) == []
    assert len(store(catalogue.documents, beta.id)) == 2


# --- knowledge ------------------------------------------------------------------------------------------------


def build(store: Store, expert_id: int, content: str) -> int:
    return store(
        versions.add_knowledge,
        expert_id,
        content_sha256=content,
        artefact=f"knowledge/{content}",
        artefact_sha256=f"hash of {content}",
        n_documents=2,
        n_passages=7,
    )


def test_the_view_shows_the_live_knowledge(store: Store) -> None:
    expert = put_expert(store)
    build(store, expert.id, "one")
    build(store, expert.id, "two")

    expert = store(catalogue.expert, "alpha")
    assert (expert.knowledge, expert.artefact, expert.artefact_sha256) == (2, "knowledge/two", "hash of two")
    assert expert.n_passages == 7
    assert expert.knowledge_id == store.value("SELECT max(id) FROM knowledge")
