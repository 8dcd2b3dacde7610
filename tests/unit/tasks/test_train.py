from typing import Any

import pytest

from storage import catalogue, jobs, versions
from storage.catalogue import NewDocument, NewExpert
from tests.support.experts import card
from tests.unit.tasks.conftest import Bench


def put(bench: Bench, name: str, *, engine: str = "echo", documents: int = 0, exemplars: int = 3) -> None:
    texts = [f"question {n} about {name}" for n in range(exemplars)]
    library = [
        NewDocument(f"d{n}.md", f"Of {name} {n}", f"All that is known of {name}, part {n}.") for n in range(documents)
    ]
    bench.store(catalogue.put_expert, NewExpert(name, engine, card(name), texts, library))


def train(bench: Bench, kind: str = "refresh") -> Any:
    job_id = bench.store(jobs.add, kind)
    bench.run("train", job_id)
    return bench.store(jobs.view, job_id)


def test_a_refresh_makes_a_router_live_and_its_experts_serve(bench: Bench) -> None:
    put(bench, "alpha")
    put(bench, "beta")
    job = train(bench)
    assert job.state == "succeeded"
    assert job.result == {"indexes_built": [], "router_version": 1}
    live = bench.store(versions.live_router)
    assert live is not None
    assert (live.kind, live.experts) == ("heuristic", ["alpha", "beta"])
    assert bench.store(catalogue.names, serving=True) == ["alpha", "beta"]


def test_a_second_refresh_builds_nothing_again(bench: Bench) -> None:
    put(bench, "alpha", engine="extractive", documents=2)
    first, second = train(bench), train(bench)
    assert first.result == {"indexes_built": ["alpha"], "router_version": 1}
    assert second.result == {"indexes_built": [], "router_version": 1}


def test_a_job_that_ended_is_not_done_again(bench: Bench) -> None:
    put(bench, "alpha")
    job = train(bench)
    before = bench.everything()
    bench.run("train", job.id)
    assert bench.everything() == before


def test_a_new_document_is_indexed_and_the_others_experts_are_left_alone(bench: Bench) -> None:
    put(bench, "alpha", engine="extractive", documents=1)
    put(bench, "beta", engine="extractive", documents=1)
    train(bench)
    put(bench, "beta", engine="extractive", documents=2)
    job = train(bench)
    assert job.result["indexes_built"] == ["beta"]
    found = {expert.name: (expert.knowledge, expert.n_documents) for expert in bench.store(catalogue.experts)}
    assert found == {"alpha": (1, 1), "beta": (2, 2)}


def test_an_expert_without_documents_any_more_has_no_live_index(bench: Bench) -> None:
    put(bench, "alpha", engine="extractive", documents=1)
    train(bench)
    alpha = bench.store(catalogue.expert, "alpha").id
    bench.store(catalogue.remove_documents, alpha, [d.name for d in bench.store(catalogue.documents, alpha)])
    train(bench)
    assert bench.store(catalogue.expert, "alpha").knowledge is None


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_index_is_built_anew(bench: Bench, damage: str) -> None:
    put(bench, "alpha", engine="extractive", documents=1)
    train(bench)
    settings = bench.runtime.settings
    stored = sorted((settings.home / "artefacts" / "knowledge").rglob("*"))
    for file in [file for file in stored if file.is_file()]:
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(b"x" + file.read_bytes())
    for copy in sorted((settings.home / "cache").rglob("*"), reverse=True):
        copy.unlink() if copy.is_file() else copy.rmdir()
    assert train(bench).result["indexes_built"] == ["alpha"]


@pytest.mark.parametrize(
    ("experts", "said"),
    [
        ([], "no expert is stored; load a catalogue first"),
        ([("alpha", 3), ("beta", 0)], "experts without exemplars cannot be routed to: beta"),
    ],
)
def test_what_cannot_be_trained_fails_at_once_and_says_why(
    bench: Bench, experts: list[tuple[str, int]], said: str
) -> None:
    for name, exemplars in experts:
        put(bench, name, exemplars=exemplars)
    job = train(bench)
    assert (job.state, job.error_code, job.error_message) == ("failed", "cannot_train", said)
    assert bench.store.value("SELECT attempts FROM job") == 1


def test_an_unknown_kind_of_job_fails_and_is_named(bench: Bench) -> None:
    job = train(bench, "nonsense")
    assert (job.state, job.error_code) == ("failed", "unknown_job")
    assert "nonsense" in job.error_message


def test_an_unknown_router_kind_fails_with_those_there_are(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bench, "alpha")
    routing = bench.runtime.settings.routing.model_copy(update={"kind": "psychic"})
    changed = bench.runtime.settings.model_copy(update={"routing": routing})
    object.__setattr__(bench.runtime, "settings", changed)
    job = train(bench)
    assert (job.state, job.error_code) == ("failed", "unknown_kind")
    assert "neural" in job.error_message


def test_progress_is_told_in_order(bench: Bench) -> None:
    put(bench, "alpha", engine="extractive", documents=2)
    job = train(bench)
    story = [message for _, message in bench.store(jobs.events, job.id)]
    assert story == [
        "alpha: indexed 2 documents, 2 passages",
        "alpha: only 3 exemplars; below 20 routing is unreliable",
        "training a heuristic router on 3 exemplars of 1 experts",
        "router 1 is live",
    ]
