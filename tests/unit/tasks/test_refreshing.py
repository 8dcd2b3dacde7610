"""A refresh: indexes and router are brought in line with the stored catalogue, and no further."""

import pytest

from experts.routing.router import load_router
from storage import catalogue, expert_versions, versions
from storage.catalogue import ExpertView
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.training import (
    candidate,
    configure,
    failure,
    labelled,
    live,
    put,
    result,
    spoil,
    story,
    train,
)


def expert(bench: Bench, name: str) -> ExpertView:
    return bench.store(catalogue.expert, name)


def built(bench: Bench) -> tuple[list[str], int]:
    """The indexes that a refresh built, and the version that routes after it."""
    done = result(bench, "refresh")
    return done["indexes_built"], done["router_version"]


def refreshed(bench: Bench) -> int:
    """The version that routes after a refresh."""
    number: int = result(bench, "refresh")["router_version"]
    assert live(bench).id == number
    return number


def test_a_refresh_makes_a_router_live_and_its_experts_serve(bench: Bench) -> None:
    put(bench, "alpha")
    put(bench, "beta")

    assert built(bench) == ([], 1)

    view = live(bench)
    assert (view.id, view.kind, view.encoder, view.experts) == (1, "heuristic", None, ["alpha", "beta"])
    assert bench.store(catalogue.names, serving=True) == ["alpha", "beta"]


def test_progress_is_told_in_order(bench: Bench) -> None:
    put(bench, "alpha", engine="extractive", documents=2)
    put(bench, "beta", exemplars=20)

    assert story(bench, train(bench)) == [
        "alpha: indexed 2 documents, 2 passages",
        "alpha: only 3 exemplars; below 20 routing is unreliable",
        "training a router of kind heuristic on 23 queries of 2 experts",
        "learning from 23 exemplars, and 0 adopted from the world",
        "measuring on exemplars left out",
        f"router 1 is live: 100.0% of held-out exemplars right, calibration error {live(bench).metrics['ece']:.3f}",
    ]


def test_a_second_refresh_builds_nothing_again(bench: Bench) -> None:
    put(bench, "alpha", engine="extractive", documents=2)

    assert built(bench) == (["alpha"], 1)
    assert built(bench) == ([], 1)
    assert len(bench.store(versions.routers)) == 1


def test_a_new_document_is_indexed_and_other_experts_are_left_alone(bench: Bench) -> None:
    for name in ("alpha", "beta"):
        put(bench, name, engine="extractive", documents=1)
    train(bench)
    put(bench, "beta", engine="extractive", documents=2)

    assert result(bench, "refresh")["indexes_built"] == ["beta"]

    found = {e.name: (e.knowledge, e.n_documents) for e in bench.store(catalogue.experts)}
    assert found == {"alpha": (1, 1), "beta": (2, 2)}


def test_an_expert_without_documents_any_more_has_no_live_index(bench: Bench) -> None:
    put(bench, "alpha", engine="extractive", documents=1)
    train(bench)
    alpha = expert(bench, "alpha").id
    bench.store(catalogue.remove_documents, alpha, [d.name for d in bench.store(catalogue.documents, alpha)])

    train(bench)

    assert expert(bench, "alpha").knowledge is None


def test_libraries_of_engines_that_read_none_are_indexed_for_routers_that_do(bench: Bench) -> None:
    put(bench, "alpha", documents=1)
    put(bench, "beta")
    assert result(bench, "refresh")["indexes_built"] == []

    configure(bench, kind="centroid", world=False)

    assert built(bench) == (["alpha"], 2)
    assert (live(bench).kind, live(bench).encoder) == ("centroid", "hashing")


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "changed"])
def test_a_damaged_index_is_built_anew(bench: Bench, missing: bool) -> None:
    put(bench, "alpha", engine="extractive", documents=1)
    train(bench)
    spoil(bench, "knowledge", missing=missing)

    assert result(bench, "refresh")["indexes_built"] == ["alpha"]


@pytest.mark.parametrize(
    ("experts", "said"),
    [
        ([], "no expert is stored; load a catalogue first"),
        ([("alpha", 3), ("beta", 0)], "experts without exemplars cannot be routed to: beta"),
        ([("alpha", 0), ("beta", 0)], "experts without exemplars cannot be routed to: alpha, beta"),
    ],
)
def test_what_cannot_be_trained_fails_at_once_and_says_why(
    bench: Bench, experts: list[tuple[str, int]], said: str
) -> None:
    for name, exemplars in experts:
        put(bench, name, exemplars=exemplars)

    assert failure(train(bench)) == ("failed", "cannot_train", said)
    assert bench.store.value("SELECT attempts FROM job") == 1
    assert bench.store(versions.routers) == []


def test_an_unknown_router_kind_fails_with_those_there_are(bench: Bench) -> None:
    put(bench, "alpha")
    configure(bench, kind="psychic")

    state, code, message = failure(train(bench))

    assert (state, code) == ("failed", "unknown_kind")
    assert message is not None
    assert message.startswith("unknown router kind 'psychic'; there are: centroid, ensemble, heuristic, knn, neural")


# --- when a router is trained -------------------------------------------------------------------------------------


def test_a_changed_catalogue_gets_a_router_of_its_own(bench: Bench) -> None:
    put(bench, "alpha")
    assert refreshed(bench) == 1

    put(bench, "alpha", exemplars=4)
    assert refreshed(bench) == 2

    put(bench, "alpha", exemplars=4, keywords=["alpha", "first"])
    assert refreshed(bench) == 3

    put(bench, "beta")
    assert refreshed(bench) == 4
    assert live(bench).experts == ["alpha", "beta"]
    assert bench.store(catalogue.names, serving=True) == ["alpha", "beta"]


def test_another_kind_of_router_in_the_settings_is_trained(bench: Bench) -> None:
    put(bench, "alpha")
    refreshed(bench)
    configure(bench, kind="random")

    assert refreshed(bench) == 2
    assert live(bench).kind == "random"


def test_a_router_that_was_gone_back_from_does_not_come_back(bench: Bench) -> None:
    put(bench, "alpha")
    refreshed(bench)
    put(bench, "alpha", exemplars=4)
    refreshed(bench)
    bench.store(versions.rollback_router)

    assert refreshed(bench) == 1

    put(bench, "alpha", exemplars=5)
    assert refreshed(bench) == 3


def test_a_router_that_was_promoted_by_hand_stays(bench: Bench) -> None:
    put(bench, "alpha")
    refreshed(bench)
    other = result(bench, "train_router", kind="random")["router_version"]
    bench.store(versions.promote_router, other)

    assert refreshed(bench) == other


def test_a_catalogue_that_is_as_it_was_is_routed_as_it_was(bench: Bench) -> None:
    """Nobody has gone back from anything here; the catalogue itself has."""
    put(bench, "alpha", keywords=["alpha"])
    refreshed(bench)
    was = live(bench).content_sha256
    put(bench, "alpha", keywords=["alpha", "wrong"])
    refreshed(bench)
    assert live(bench).content_sha256 != was

    put(bench, "alpha", keywords=["alpha"])
    refreshed(bench)

    assert live(bench).content_sha256 == was


# --- labelled queries that were given to a training ---------------------------------------------------------------

GIVEN = [("asking about alpha", "alpha"), ("asking about beta", "beta"), ("bread and butter", None)]


@pytest.fixture
def given(bench: Bench) -> Bench:
    """Two experts, and a live router that was trained on labelled queries besides."""
    put(bench, "alpha")
    put(bench, "beta")
    refreshed(bench)
    result(bench, "train_router", data=labelled(bench, GIVEN), promote=True)
    return bench


def learned(bench: Bench) -> list[str]:
    """What the live router was shown that is no exemplar of the catalogue."""
    view = live(bench)
    known = load_router(bench.runtime.store.fetch_tree(view.artefact, view.artefact_sha256)).known
    return sorted(text for text in [*known.texts, *known.outside_texts] if not text.startswith("question"))


def test_labelled_queries_of_the_live_router_are_learned_from_again(given: Bench) -> None:
    before = live(given)
    assert refreshed(given) == before.id

    for exemplars in (4, 5):
        put(given, "alpha", exemplars=exemplars)
        job = train(given)
        assert f"3 labelled queries of router {live(given).id - 1} are kept" in story(given, job)
        assert learned(given) == sorted(text for text, _ in GIVEN)

    assert live(given).metrics["exemplars"] == before.metrics["exemplars"] + 2
    assert refreshed(given) == before.id + 2


def test_labelled_queries_of_an_expert_that_is_gone_are_left_out_and_told(given: Bench) -> None:
    given.store.sql("UPDATE expert SET name = 'gamma' WHERE name = 'beta'")

    job = train(given)

    assert "2 labelled queries of router 2 are kept; 1 are left out, of experts that are gone: beta" in story(
        given, job
    )
    assert learned(given) == ["asking about alpha", "bread and butter"]


def test_labelled_queries_of_a_retired_expert_are_left_out_and_told(given: Bench) -> None:
    given.store(expert_versions.retire, "beta")

    job = train(given)

    assert failure(job) == ("succeeded", None, None)
    assert "2 labelled queries of router 2 are kept; 1 are left out, of experts that are gone: beta" in story(
        given, job
    )
    assert live(given).experts == ["alpha"]
    assert given.store(catalogue.names, serving=True) == ["alpha"]


def test_labelled_queries_that_are_lost_are_told_and_keep_nobody_from_a_router(given: Bench) -> None:
    spoil(given, "labelled", missing=True)
    put(given, "alpha", exemplars=4)

    job = train(given)

    assert job.state == "succeeded"
    assert any(line.startswith("the labelled queries of router 2 cannot be read") for line in story(given, job))
    assert (live(given).id, learned(given)) == (3, [])


def test_who_goes_back_to_a_router_without_labelled_queries_gets_none_again(given: Bench) -> None:
    given.store(versions.rollback_router)
    put(given, "alpha", exemplars=4)

    assert (refreshed(given), learned(given)) == (3, [])


def test_a_router_of_another_kind_that_learned_from_labelled_queries_stays(given: Bench) -> None:
    other = result(given, "train_router", kind="random", data="labelled/queries.jsonl", promote=True)["router_version"]

    assert refreshed(given) == other


# --- experts that do not serve ------------------------------------------------------------------------------------


def test_a_retired_expert_is_neither_indexed_nor_routed_to_and_comes_back_whole(bench: Bench) -> None:
    for name in ("alpha", "beta"):
        put(bench, name, engine="extractive", documents=1)
    refreshed(bench)
    assert bench.store(expert_versions.retire, "beta")
    put(bench, "beta", engine="extractive", documents=2)

    assert built(bench) == ([], 2)

    assert live(bench).experts == ["alpha"]
    assert bench.store(catalogue.names, serving=True) == ["alpha"]
    bench.store(expert_versions.promote, "beta", 1)
    assert built(bench) == (["beta"], 3)
    assert live(bench).experts == ["alpha", "beta"]
    assert bench.store(catalogue.names, serving=True) == ["alpha", "beta"]


def test_without_any_expert_that_may_serve_nothing_is_trained(bench: Bench) -> None:
    put(bench, "alpha")
    refreshed(bench)
    bench.store(expert_versions.retire, "alpha")

    assert failure(train(bench)) == ("failed", "cannot_train", "no expert is stored; load a catalogue first")
    assert live(bench).id == 1


def test_a_candidate_is_neither_indexed_nor_routed_to(bench: Bench) -> None:
    put(bench, "alpha")
    candidate(bench, "beta")

    assert built(bench) == ([], 1)

    assert live(bench).experts == ["alpha"]
