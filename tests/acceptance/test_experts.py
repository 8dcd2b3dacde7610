"""Experts that come, learn and stay while workers run; the real encoder, the default router, the extractive engine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.acceptance.conftest import StackMaker
from tests.acceptance.harness import Stack, count, finish, outputs, stack_on, submit, wait_for, write_batch
from tests.support.experts import NAMES
from tests.support.servers import Backends

ROLES = ("control", "router", "expert", "training", "beat")

SUBJECTS = {
    "birds": [
        "The common swift sleeps on the wing and can stay in the air for ten months without landing.",
        "A wren builds several nests, and the female chooses one of them and lines it with feathers.",
        "Barn owls hunt by ear, because one ear sits higher than the other and tells them the height of a sound.",
    ],
    "bridges": [
        "A suspension bridge carries its deck on cables that hang between towers and are anchored at both ends.",
        "Expansion joints let the deck of a bridge grow in summer and shrink in winter without cracking.",
        "The keystone is set last in a stone arch, and only then can the wooden centring be taken away.",
    ],
}
QUESTIONS = {
    "birds": [
        "how long can a swift stay in the air",
        "why do wrens make several nests",
        "how does an owl find a mouse",
    ],
    "bridges": [
        "what holds up a suspension bridge",
        "why are there gaps in the road of a bridge",
        "what is a keystone",
    ],
}


def write_catalogue(folder: Path, names: list[str]) -> Path:
    """A catalogue of small experts with documents; the queries are not those of the tests."""
    for name in names:
        documents = folder / name / "documents"
        documents.mkdir(parents=True)
        card = {"name": name, "title": name.title(), "description": f"Knows {name}.", "keywords": [name, name[:-1]]}
        (folder / name / "card.yaml").write_text(json.dumps(card))
        queries = [
            f"{word} {name}" for word in ("tell me about", "facts on", "which kinds of", "history of", "why are")
        ]
        (folder / name / "exemplars.txt").write_text("\n".join(queries) + "\n")
        for number, note in enumerate(SUBJECTS[name]):
            (documents / f"note-{number}.md").write_text(f"# Note {number} on {name}\n\n{note}\n")
    (folder / "outside.txt").write_text("how do I bake bread\nplay some music\nbook a table for two\n")
    return folder


@pytest.fixture
def real(tmp_path: Path, backends: Backends) -> Any:
    """A stack with the settings of production for what it computes with."""
    settings = {
        "MOE_ENCODER__NAME": "all-MiniLM-L6-v2",
        "MOE_ROUTING__KIND": "ensemble",
        "MOE_ENGINE__ANSWER_THRESHOLD": "0.2",
        "MOE_PIPELINE__LEASE_SECONDS": "10",
    }
    with stack_on(tmp_path, backends, **settings) as stack:
        yield stack


def loaded(stack: Stack, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = stack.moe_json("experts", "load", str(folder))
    return found


def ask(stack: Stack, question: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.moe_json("ask", question, "--top-k", "1")
    return found


def test_questions_are_routed_by_meaning_and_answered_with_citations(real: Stack, tmp_path: Path) -> None:
    real.start(*ROLES)
    result = loaded(real, write_catalogue(tmp_path / "catalogue", ["birds", "bridges"]))
    assert sorted(result["indexes_built"]) == ["birds", "bridges"]
    again = loaded(real, tmp_path / "catalogue")
    assert (again["changed"], again["indexes_built"], again["router_version"]) == ([], [], result["router_version"])

    client = real.client()
    asked = [(name, question) for name in SUBJECTS for question in QUESTIONS[name]]
    run = finish(
        client, submit(client, write_batch(tmp_path / "b.jsonl", [question for _, question in asked]), top_k=1)
    )

    found = outputs(client, run)
    assert [found[f"q{n}"]["moe"]["experts"][0]["name"] for n in range(6)] == [name for name, _ in asked]
    for n, (name, _) in enumerate(asked):
        passport = found[f"q{n}"]["moe"]
        said = found[f"q{n}"]["response"]["body"]["choices"][0]["message"]["content"]
        assert passport["answered"], (asked[n], said)
        assert passport["router_version"] == result["router_version"]
        quotes = re.findall(r"(.+?) \[(\d)\](?: |$)", said)
        assert quotes
        for quote, number in quotes:
            passage = passport["passages"][int(number) - 1]
            document = SUBJECTS[name][int(passage["document"].removeprefix("note-"))]
            assert quote in document[passage["start"] : passage["end"]]


def test_documents_come_and_go_while_everything_runs(real: Stack, tmp_path: Path) -> None:
    real.start(*ROLES)
    loaded(real, write_catalogue(tmp_path / "catalogue", ["birds", "bridges"]))
    question = "what does the hoopoe do with its crest when it lands"
    assert "hoopoe" not in (ask(real, question)["text"] or "").lower()
    page = tmp_path / "hoopoe.html"
    page.write_text("<title>The hoopoe</title><p>The hoopoe raises its crest for a moment when it lands.")

    added = real.moe_json("experts", "docs", "add", "birds", str(page))

    assert (added["documents"], added["indexes_built"]) == (["hoopoe"], ["birds"])
    reply = ask(real, question)
    said = "The hoopoe raises its crest for a moment when it lands."
    assert reply["text"] == f"{said} [1]"
    assert [(p["document"], p["start"], p["end"]) for p in reply["passages"]] == [("hoopoe", 0, len(said))]
    again = loaded(real, tmp_path / "catalogue")  # does not take away what people added
    assert (again["changed"], again["indexes_built"]) == ([], [])
    assert "hoopoe" in [document["name"] for document in real.moe_json("experts", "docs", "list", "birds")]
    real.moe_json("experts", "docs", "remove", "birds", "hoopoe")
    assert "hoopoe" not in (ask(real, question)["text"] or "").lower()
    unknown = real.moe("experts", "docs", "remove", "birds", "hoopoe", check=False)
    assert unknown.returncode == 2
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"not a pdf")
    assert real.moe("experts", "docs", "add", "birds", str(page), str(bad), check=False).returncode == 2
    assert len(real.moe_json("experts", "docs", "list", "birds")) == 3  # nothing of it was stored


def test_a_new_expert_is_served_without_a_restart_and_after_one(make_stack: StackMaker) -> None:
    stack = make_stack()
    stack.start(*ROLES)
    client = stack.client()
    assert ask(stack, "about alpha")["experts"][0]["name"] == "alpha"
    catalogue = stack.home / "catalogue"
    (catalogue / "delta").mkdir(parents=True)
    (catalogue / "delta" / "card.yaml").write_text(
        "name: delta\ntitle: Delta\ndescription: Knows delta.\nengine: echo\nkeywords: [delta]\n"
    )
    (catalogue / "delta" / "exemplars.txt").write_text("tell me about delta\n")

    loaded(stack, catalogue)

    assert ask(stack, "a question about delta")["experts"][0]["name"] == "delta"
    stack.kill("expert")
    stack.kill("router")
    stack.start("router", "expert")
    reply = ask(stack, "a question about delta")
    assert (reply["experts"][0]["name"], reply["text"]) == ("delta", "a question about delta")
    listed = {expert["name"]: expert["serving"] for expert in stack.moe_json("experts", "list")}
    assert listed == dict.fromkeys((*NAMES, "delta"), True)
    assert count(client.engine, "SELECT count(*) FROM router_version WHERE state = 'live'") == 1


def test_a_catalogue_with_a_mistake_changes_nothing(make_stack: StackMaker) -> None:
    stack = make_stack()
    catalogue = write_catalogue(stack.home / "catalogue", ["birds", "bridges"])
    (catalogue / "bridges" / "card.yaml").write_text("name: bridges\ntitle: Bridges\nkeywords: [bridge]\n")

    refused = stack.moe("experts", "load", str(catalogue), check=False)

    assert refused.returncode == 2
    assert "card.yaml: description: Field required" in " ".join(refused.stderr.split())
    assert [expert["name"] for expert in stack.moe_json("experts", "list")] == list(NAMES)


def test_a_knowledge_base_that_was_tampered_with_fails_its_lines_and_no_worker(real: Stack, tmp_path: Path) -> None:
    """The lines say so; the worker lives, and the other experts' lines are answered."""
    real.start("training", "control", "router", "beat")
    loaded(real, write_catalogue(tmp_path / "catalogue", ["birds", "bridges"]))
    client = real.client()
    (vectors,) = (tmp_path / "artefacts" / "knowledge" / "birds").rglob("vectors.safetensors")
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(data)
    real.start("expert", MOE_HOME=str(tmp_path))
    for cached in (tmp_path / "cache").rglob("*"):
        if cached.is_file() and "birds" in str(cached):
            cached.unlink()

    asked = [question for name in SUBJECTS for question in QUESTIONS[name]]
    run = finish(client, submit(client, write_batch(tmp_path / "b.jsonl", asked), top_k=1))

    assert (run.n_ok, run.n_error) == (3, 3)
    assert {line["moe"]["experts"][0]["name"] for line in outputs(client, run).values()} == {"bridges"}
    wait_for(lambda: real.moe_json("status")["workers"], "the workers to reply")


def test_a_router_that_was_tampered_with_fails_lines_with_its_name(make_stack: StackMaker) -> None:
    stack = make_stack()
    (about,) = (stack.home / "artefacts" / "routers").rglob("router.json")
    about.write_text(about.read_text().replace("alpha", "alpho"))
    stack.start("control", "router", "expert", "beat")
    client = stack.client()

    run = finish(client, submit(client, write_batch(stack.home / "b.jsonl", ["about alpha", "about beta"]), top_k=1))

    assert (run.n_ok, run.n_error) == (0, 2)
    causes = stack.moe_json("batch", "failures", run.public_id)
    assert [(cause["code"], cause["lines"]) for cause in causes] == [("routing_failed", 2)]
    assert "sha256" in causes[0]["message"]
    assert count(client.engine, "SELECT count(*) FROM shard") == 1  # nothing was halved


def test_a_router_of_another_encoder_is_not_used(make_stack: StackMaker) -> None:
    stack = make_stack()
    client = stack.client()
    with client.engine.begin() as connection:
        connection.execute(text("UPDATE router_version SET encoder = 'another-encoder'"))
    stack.start("control", "router", "expert", "beat")

    run = finish(client, submit(client, write_batch(stack.home / "b.jsonl", ["about alpha"]), top_k=1))

    assert run.n_error == 1
    (cause,) = stack.moe_json("batch", "failures", run.public_id)
    assert "was trained with encoder 'another-encoder', not with 'hashing'" in cause["message"]
