"""Routers are trained, measured against each other and calibrated, each time as a version of its own."""

from pathlib import Path
from typing import Any

import pytest

from experts.errors import UnknownKind
from experts.routing.router import RouterModel, load_router
from storage import expert_versions, feedback, versions
from storage.versions import RouterView
from tasks.routers import needs_vectors
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.training import candidate, configure, failure, labelled, live, put, result, spoil, story, train

NAMES = ("alpha", "beta")


@pytest.fixture
def taught(bench: Bench) -> Bench:
    """Two experts with twenty exemplars each; no router yet."""
    for name in NAMES:
        put(bench, name, exemplars=20)
    return bench


def trained(bench: Bench, kind: str = "heuristic", **params: Any) -> int:
    number: int = result(bench, "train_router", kind=kind, **params)["router_version"]
    return number


def version(bench: Bench, number: int) -> RouterView:
    return bench.store(versions.router, number)


def stored(bench: Bench, number: int) -> RouterModel:
    view = version(bench, number)
    folder: Path = bench.runtime.store.fetch_tree(view.artefact, view.artefact_sha256)
    return load_router(folder)


def asked(n: int, *names: str | None) -> list[tuple[str, str | None]]:
    """``n`` queries of each, by name."""
    return [(f"asking {number} about {name}", name) for number in range(n) for name in names]


@pytest.mark.parametrize("kind", ["centroid", "ensemble", "knn", "neural"])
def test_most_kinds_read_embeddings(kind: str) -> None:
    assert needs_vectors(kind) is True


@pytest.mark.parametrize("kind", ["heuristic", "random"])
def test_some_kinds_read_only_words(kind: str) -> None:
    assert needs_vectors(kind) is False


def test_what_is_no_kind_reads_nothing() -> None:
    with pytest.raises(UnknownKind, match=r"^unknown router kind 'psychic'"):
        needs_vectors("psychic")


# --- training -----------------------------------------------------------------------------------------------------


def test_a_trained_router_is_stored_and_routes_nothing(taught: Bench) -> None:
    found = result(taught, "train_router", kind="heuristic")

    view = version(taught, found["router_version"])
    assert (view.kind, view.state, view.encoder, view.experts) == ("heuristic", "trained", None, list(NAMES))
    assert found == {"router_version": view.id, "state": "trained", "metrics": view.metrics}
    assert (view.metrics["exemplars"], view.metrics["adopted"], view.metrics["accuracy"]) == (40, 0, 1.0)
    assert stored(taught, view.id).metrics == view.metrics
    assert stored(taught, view.id).experts == NAMES
    assert taught.store(versions.live_router) is None


def test_retired_experts_and_candidates_are_left_out_with_their_exemplars(taught: Bench) -> None:
    put(taught, "gamma", exemplars=20)
    candidate(taught, "delta")
    taught.store(expert_versions.retire, "gamma")

    number = trained(taught)

    assert version(taught, number).experts == list(NAMES)
    assert stored(taught, number).metrics["exemplars"] == 40


def test_without_a_kind_the_one_of_the_settings_is_trained(taught: Bench) -> None:
    configure(taught, kind="random")

    assert version(taught, trained(taught, None)).kind == "random"  # type: ignore[arg-type]


def test_a_router_of_vectors_is_of_the_encoder_it_was_trained_with(taught: Bench) -> None:
    configure(taught, world=False)

    view = version(taught, trained(taught, "centroid"))

    assert (view.kind, view.encoder, view.metrics["adopted"]) == ("centroid", "hashing", 0)
    assert stored(taught, view.id).known.vectors.shape == (40, 384)


def test_the_world_is_read_where_the_settings_say_so(taught: Bench) -> None:
    put(taught, "gamma", exemplars=20)
    configure(taught, world=True)

    known = stored(taught, trained(taught, "centroid")).known

    assert known.n_own == 60
    assert len(known.owner) - 60 + len(known.background) > 1000


def test_a_router_can_be_promoted_as_soon_as_it_is_trained(taught: Bench) -> None:
    first = trained(taught, promote=True)
    found = result(taught, "train_router", kind="random", promote=True)

    assert (found["router_version"], found["state"]) == (live(taught).id, "live")
    assert version(taught, first).state == "retired"


def test_the_promotion_is_told_with_what_was_measured(taught: Bench) -> None:
    job = train(taught, "train_router", kind="heuristic", promote=True)

    metrics = live(taught).metrics
    assert story(taught, job)[-1] == (
        f"router 1 is live: 100.0% of held-out exemplars right, calibration error {metrics['ece']:.3f}"
    )
    assert taught.store.values("SELECT data FROM job_event ORDER BY id DESC LIMIT 1") == [metrics]


def test_labelled_queries_are_learned_from_beside_the_catalogue(taught: Bench) -> None:
    configure(taught, world=False)
    queries = labelled(taught, [*asked(4, *NAMES), ("bread and butter", None)])

    known = stored(taught, trained(taught, "centroid", data=queries)).known

    assert known.n_own == 48
    assert sorted(text for text in known.texts if text.startswith("asking")) == sorted(t for t, _ in asked(4, *NAMES))
    assert [known.experts[place] for place in known.owner[-8:]] == list(NAMES) * 4
    assert known.outside_texts == ["bread and butter"]


def test_a_labelled_query_that_is_an_exemplar_already_counts_once(taught: Bench) -> None:
    queries = labelled(taught, [("question 3 about alpha", "alpha"), *asked(1, "beta"), *asked(1, "beta")])

    assert version(taught, trained(taught, data=queries)).metrics["exemplars"] == 41


def test_a_labelled_query_of_an_expert_that_is_not_stored_is_named(taught: Bench) -> None:
    queries = labelled(taught, asked(1, "delta"))

    state, code, message = failure(train(taught, "train_router", data=queries))

    assert (state, code) == ("failed", "bad_data")
    assert message is not None
    assert message.endswith("belongs to 'delta', which the router does not know: ['alpha', 'beta']")
    assert taught.store(versions.routers) == []


def test_a_library_that_cannot_be_read_is_left_out_and_told(bench: Bench) -> None:
    for name in NAMES:
        put(bench, name, engine="extractive", documents=2, exemplars=20)
    train(bench)
    configure(bench, world=False)
    whole = stored(bench, trained(bench, "centroid")).known
    assert whole.library.tolist() == [0, 0, 1, 1]
    spoil(bench, "knowledge/alpha")

    job = train(bench, "train_router", kind="centroid")

    assert job.state == "succeeded"
    assert next(line for line in story(bench, job) if "cannot be read and is left out" in line).startswith("alpha: ")
    assert stored(bench, 3).known.library.tolist() == [1, 1]


# --- what a router is made from -----------------------------------------------------------------------------------


def contents(bench: Bench, kind: str, **params: Any) -> str:
    return version(bench, trained(bench, kind, **params)).content_sha256


@pytest.mark.parametrize("kind", ["heuristic", "centroid"])
def test_the_same_content_has_the_same_hash(taught: Bench, kind: str) -> None:
    configure(taught, world=False)

    assert contents(taught, kind) == contents(taught, kind)


@pytest.mark.parametrize(
    "settings", [{"gate_weight": 0.5}, {"seed": 1}, {"world": True}], ids=["gate weight", "seed", "world"]
)
def test_settings_of_training_are_part_of_the_content(taught: Bench, settings: dict[str, Any]) -> None:
    configure(taught, world=False)
    before = contents(taught, "heuristic")
    configure(taught, **settings)

    assert contents(taught, "heuristic") != before


def test_everything_a_router_is_made_from_is_part_of_the_content(taught: Bench) -> None:
    found = [contents(taught, "heuristic"), contents(taught, "random")]
    found.append(contents(taught, "heuristic", data=labelled(taught, asked(1, "alpha"))))
    found.append(contents(taught, "heuristic", data=labelled(taught, asked(1, None))))
    put(taught, "alpha", exemplars=21)
    found.append(contents(taught, "heuristic"))
    put(taught, "alpha", exemplars=21, keywords=["alpha", "first"])
    found.append(contents(taught, "heuristic"))
    put(taught, "gamma", exemplars=20)
    found.append(contents(taught, "heuristic"))

    assert len(set(found)) == len(found)


# --- measuring ----------------------------------------------------------------------------------------------------


def test_two_versions_are_measured_on_the_same_queries_and_against_each_other(taught: Bench) -> None:
    """Four queries both get right, six only the second, which knows one keyword more; two are of nobody."""
    first = trained(taught)
    put(taught, "beta", exemplars=20, keywords=["beta", "berry"])
    second = trained(taught)
    right = [("of alpha", "alpha"), ("and alpha", "alpha"), ("of beta", "beta"), ("and beta", "beta")]
    berries = [(f"berry {n}", "beta") for n in range(6)]
    queries = labelled(taught, [*right, *berries, ("bread", None), ("butter", None)])

    found = result(taught, "evaluate_routers", versions=[first, second], data=queries)

    assert found["queries"] == 12
    one, other = found["versions"][str(first)], found["versions"][str(second)]
    assert (one["n"], one["accuracy"], one["n_outside"]) == (10, 0.4, 2)
    assert (other["n"], other["accuracy"], other["macro_f1"], other["ci"]) == (10, 1.0, 1.0, [1.0, 1.0])
    assert one["macro_f1"] == 0.4  # alpha is chosen eight times and right twice, beta found twice of eight
    assert (found["paired"]["a"], found["paired"]["b"]) == (first, second)
    assert (found["paired"]["difference"], found["paired"]["p"]) == (-0.6, 0.03125)
    low, high = found["paired"]["ci"]
    assert -1 <= low < -0.6 < high <= 0


@pytest.mark.parametrize("times", [1, 3])
def test_only_two_versions_are_compared(taught: Bench, times: int) -> None:
    numbers = [trained(taught) for _ in range(times)]
    queries = labelled(taught, asked(2, *NAMES))

    job = train(taught, "evaluate_routers", versions=numbers, data=queries)

    assert job.result is not None
    assert "paired" not in job.result
    assert list(job.result["versions"]) == [str(number) for number in numbers]
    assert story(taught, job) == [f"router {number} measured on 4 queries" for number in numbers]


def test_measuring_changes_no_version(taught: Bench) -> None:
    number = trained(taught, promote=True)
    before = taught.store(versions.routers)

    result(taught, "evaluate_routers", versions=[number], data=labelled(taught, asked(2, *NAMES)))

    assert taught.store(versions.routers) == before


def test_without_a_file_the_lines_are_measured_whose_right_expert_people_have_said(taught: Bench) -> None:
    number = trained(taught, promote=True)
    run = taught.finalized(["what is alpha", "what is beta", "which alpha is it", "nobody judged this"])
    for custom_id, expert in (("q0", "alpha"), ("q1", "alpha"), ("q1", "beta"), ("q2", "beta")):
        taught.store(
            feedback.add, run, custom_id, positive=None, correct_expert=expert, correct_answer=None
        )  # of q1 the second counts

    found = result(taught, "evaluate_routers", versions=[number])

    assert found["queries"] == 3
    assert found["versions"][str(number)]["accuracy"] == round(2 / 3, 4)


@pytest.mark.parametrize(
    ("kind", "params"), [("evaluate_routers", {"versions": [1]}), ("calibrate_router", {"version": 1})]
)
def test_without_labelled_queries_nothing_can_be_measured(taught: Bench, kind: str, params: dict[str, Any]) -> None:
    trained(taught)

    assert failure(train(taught, kind, data=None, **params)) == (
        "failed",
        "bad_data",
        "no labelled queries: give --data FILE, or say of answered lines which expert is right",
    )


@pytest.mark.parametrize(
    ("kind", "params"), [("evaluate_routers", {"versions": [1]}), ("calibrate_router", {"version": 1})]
)
def test_a_label_the_router_does_not_know_is_named_with_its_query(
    taught: Bench, kind: str, params: dict[str, Any]
) -> None:
    trained(taught)
    queries = labelled(taught, [*asked(1, *NAMES), ("what is gamma", "gamma")])

    assert failure(train(taught, kind, data=queries, **params)) == (
        "failed",
        "bad_data",
        "query 3 belongs to 'gamma', which the router does not know: ['alpha', 'beta']",
    )


@pytest.mark.parametrize(
    ("kind", "params"), [("evaluate_routers", {"versions": [1]}), ("calibrate_router", {"version": 1})]
)
def test_a_router_of_another_encoder_is_not_measured(taught: Bench, kind: str, params: dict[str, Any]) -> None:
    configure(taught, world=False)
    trained(taught, "centroid")
    taught.store.sql("UPDATE router_version SET encoder = 'another'")

    assert failure(train(taught, kind, data=labelled(taught, asked(20, *NAMES)), **params)) == (
        "failed",
        "cannot_train",
        "router 1 is of encoder 'another', not of 'hashing'",
    )


def test_a_router_whose_files_were_changed_is_not_measured(taught: Bench) -> None:
    trained(taught)
    spoil(taught, "routers")

    job = train(taught, "evaluate_routers", versions=[1], data=labelled(taught, asked(2, *NAMES)))

    assert (job.state, job.error_code) == ("failed", "artefact_damaged")


# --- calibrating --------------------------------------------------------------------------------------------------


def doubtful() -> list[tuple[str, str | None]]:
    """Queries that look plain, and of which every other one belongs to the other expert; and ten of nobody."""
    plain = [(f"plain {n} about {name}", name) for n in range(20) for name in NAMES]
    swapped = [(f"odd {n} about {name}", other) for n in range(20) for name, other in (NAMES, NAMES[::-1])]
    return [*plain, *swapped, *[(f"bread {n}", None) for n in range(10)]]


def test_a_calibrated_router_is_a_new_version_with_the_same_scores(taught: Bench) -> None:
    number = trained(taught, promote=True)
    queries = labelled(taught, doubtful())

    found = result(taught, "calibrate_router", version=number, data=queries)

    assert (found["from"], found["router_version"], found["state"]) == (number, number + 1, "trained")
    assert found["before"]["accuracy"] == found["after"]["accuracy"] == 0.5
    assert found["before"]["ece"] > 0.45
    assert found["after"]["ece"] < 0.05
    assert live(taught).id == number
    old, new = stored(taught, number), stored(taught, number + 1)
    texts = ["what is alpha", "and beta", "bread"]
    before, after = old.score(texts, None), new.score(texts, None)
    assert after.share.tolist() == before.share.tolist()
    assert after.gate.tolist() == before.gate.tolist()
    assert max(abs(after.confidence[:2] - 0.5)) < 0.05 < min(before.confidence[:2] - 0.5)


def test_a_calibrated_router_says_what_it_was_calibrated_on(taught: Bench) -> None:
    number = trained(taught)
    result(taught, "calibrate_router", version=number, data=labelled(taught, doubtful()))

    old, new = version(taught, number), version(taught, number + 1)

    assert new.metrics == old.metrics | {"calibrated_on": 90}
    assert (new.kind, new.encoder, new.experts) == (old.kind, old.encoder, old.experts)
    assert new.content_sha256 != old.content_sha256


def test_the_same_calibration_has_the_same_content_and_another_one_another(taught: Bench) -> None:
    number = trained(taught)

    def content(rows: list[tuple[str, str | None]]) -> str:
        found = result(taught, "calibrate_router", version=number, data=labelled(taught, rows))
        return version(taught, found["router_version"]).content_sha256

    assert content(doubtful()) == content(doubtful()) != content(doubtful()[:-1])


def test_a_calibrated_router_can_be_promoted_at_once(taught: Bench) -> None:
    number = trained(taught, promote=True)

    found = result(taught, "calibrate_router", version=number, data=labelled(taught, doubtful()), promote=True)

    assert found["state"] == "live"
    assert live(taught).id == found["router_version"]
    assert version(taught, number).state == "retired"


def test_too_few_labelled_queries_are_refused(taught: Bench) -> None:
    number = trained(taught)
    queries = labelled(taught, [*asked(9, *NAMES), *[("bread", None)] * 9, ("what is alpha", "alpha")])

    assert failure(train(taught, "calibrate_router", version=number, data=queries)) == (
        "failed",
        "cannot_train",
        "19 labelled queries that an expert covers; 20 are the least to calibrate on",
    )
    assert len(taught.store(versions.routers)) == 1
