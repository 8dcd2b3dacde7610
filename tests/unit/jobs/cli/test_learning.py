"""``moe experts create | train | retrain | evaluate | versions | promote | rollback | retire``."""

import json
from pathlib import Path
from typing import Any

import pytest

from storage import catalogue
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.jobs.lines import rows
from tests.unit.jobs.trainer import (
    FIGURES,
    HELD_BACK,
    MATRIX,
    MEASURED,
    PASSED,
    Trainer,
    add_version,
    live_number,
    trainer,
    write_examples,
)
from tests.unit.storage.builders import Store
from worker.runtime import Runtime

__all__ = ["trainer"]

CREATE = ("experts", "create", "tax", "--domain", "taxes", "--data", "data.jsonl")


@pytest.fixture
def store(moe: Moe, client: Runtime, workdir: Path) -> Store:
    """Three experts serve, none of which has learned; 24 examples lie in ``data.jsonl``."""
    write_examples(workdir / "data.jsonl")
    return Store(client.engine)


def error(said_err: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(said_err)["error"]
    return found


# create, train, retrain


def test_an_expert_is_made_in_a_job(moe: Moe, store: Store) -> None:
    found = moe(*CREATE, "--json").json

    [(job, kind)] = store.rows("SELECT id, kind FROM job")
    assert (found, kind) == ({"job": job, "examples": 24, "duplicates": 0, "bad_rows": []}, "train_expert")
    assert store(catalogue.names) == ["alpha", "beta", "gamma"]


def test_the_job_to_follow_is_told(moe: Moe, store: Store) -> None:
    said = moe(*CREATE, code=0)
    [job] = store.values("SELECT id FROM job")
    assert (said.text, said.err) == (f"job {job} is queued; `moe jobs watch {job}` follows it\n", "")


def test_options_go_with_the_job(moe: Moe, store: Store, workdir: Path) -> None:
    write_examples(workdir / "held_out.jsonl", 10, first=90)
    more = "--validation held_out.jsonl --description Knows. --parent alpha --rank 4 --complex"
    words = ("--exemplar", "what do I owe", "--exemplar", "why", "--keyword", "tax", "--keyword", "duty")
    job = moe(*CREATE, *more.split(), *words, "--json").json["job"]

    found = store.value("SELECT params FROM job WHERE id = :id", id=job)
    card = found["card"]
    assert (card["description"], card["parent"], card["keywords"]) == ("Knows.", "alpha", ["tax", "duty"])
    assert (found["exemplars"], found["rank"], found["complex"]) == (["what do I owe", "why"], 4, True)
    assert found["validation"].startswith("training/given/")


def test_a_new_expert_is_waited_for_until_it_serves(moe: Moe, store: Store, trainer: Trainer) -> None:
    trainer.results["train_expert"] = PASSED

    found = moe(*CREATE, "--wait", "--json").json

    job, refresh = trainer.done
    assert found == {
        "job": job,
        "examples": 24,
        "duplicates": 0,
        "bad_rows": [],
        "expert": "tax",
        "version": 1,
        "state": "live",
        "promoted": True,
        "reasons": ["better than the base"],
        "refresh_job": refresh,
        "metrics": FIGURES | {"matrix": MATRIX},
    }


def test_what_a_new_expert_answers_is_told(moe: Moe, store: Store, trainer: Trainer) -> None:
    trainer.results["train_expert"] = PASSED

    said = moe(*CREATE, "--wait", code=0)

    job, refresh = trainer.done
    lines = [" ".join(line.split()) for line in said.text.splitlines()]
    assert lines == [
        "version examples exact base F1 base meaning base",
        "tax@1 40 0.75 0.25 0.875 0.375",
        "exact answers above the base: +0.500, 95 % interval +0.350 to +0.650; base unchanged",
        "on the examples of examples exact base",
        "beta 10 0.1 0.2",
        "tax@1 is live",
    ]
    assert said.err.splitlines() == [f"train_expert of job {job}", f"refresh of job {refresh}"]


def test_why_a_new_expert_is_held_back_is_told(moe: Moe, store: Store, trainer: Trainer) -> None:
    trainer.results["train_expert"] = HELD_BACK
    said = moe(*CREATE, "--wait", code=0)
    assert said.text.splitlines()[-1] == "tax@1 stays a candidate: not better than the base; F1 [0.1]"
    assert len(trainer.done) == 1


def test_a_base_that_was_changed_is_told(moe: Moe, store: Store, trainer: Trainer) -> None:
    trainer.results["train_expert"] = HELD_BACK | {"metrics": FIGURES | {"base_unchanged": False}}
    assert "; base CHANGED\n" in moe(*CREATE, "--wait", code=0).text


def test_a_training_that_failed_ends_in_code_1(moe: Moe, store: Store, trainer: Trainer) -> None:
    trainer.results["train_expert"] = "The loss is no number."
    said = moe(*CREATE, "--wait", "--json", code=1)
    [job] = trainer.done
    assert (said.out, error(said.err)["message"]) == (
        b"",
        f"job {job} failed (training_failed): The loss is no number.",
    )


def test_bad_rows_are_told_with_their_lines(moe: Moe, store: Store, workdir: Path) -> None:
    with (workdir / "data.jsonl").open("a") as file:
        file.write('{"question": "What is question 0?", "answer": "Answer 0."}\n')
        file.write('{"question": " ", "answer": "[x]"}\n["\\u001b"]\n')

    found = moe(*CREATE, "--json").json
    assert (found["examples"], found["duplicates"]) == (24, 1)
    assert found["bad_rows"] == [
        {"line": 26, "reason": "question: is empty"},
        {"line": 27, "reason": "is not a JSON object but a list"},
    ]

    moe("jobs", "cancel", str(found["job"]), code=0)
    said = moe(*CREATE, code=0)
    assert said.err == "1 rows repeat others and count once\n"
    assert said.text.splitlines()[:2] == [
        "line 26: the row question: is empty",
        "line 27: the row is not a JSON object but a list",
    ]


def test_of_very_many_bad_rows_some_are_told(moe: Moe, store: Store, workdir: Path) -> None:
    with (workdir / "data.jsonl").open("a") as file:
        file.write("[]\n" * 1500)
    lines = moe(*CREATE, code=0).text.splitlines()
    assert len(lines) == 22
    assert lines[20] == "and 1,480 more bad rows"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("create", "Tax", "--domain", "x", "--data", "data.jsonl"), "bad_input", "'Tax' is no name of an expert: "),
        (("create", "alpha", "--domain", "x", "--data", "data.jsonl"), "not_allowed", "alpha is there already; "),
        (("create", "tax", "--domain", " ", "--data", "data.jsonl"), "bad_input", "--domain: "),
        (("create", "tax", "--domain", "x", "--data", "missing"), "bad_input", "missing: no such file"),
        (("create", "tax", "--domain", "x", "--data", "few.jsonl"), "cannot_train", "2 usable examples are too few"),
        (("create", "tax", "--domain", "x", "--data", "bad.jsonl"), "bad_input", "bad.jsonl, line 1: the row is not"),
        (("train", "tax", "--data", "data.jsonl"), "not_found", "no expert 'tax'; there are: alpha, beta, gamma"),
        (("retrain", "alpha"), "not_allowed", "alpha has learned nothing yet; "),
        (("evaluate", "tax"), "not_found", "no expert 'tax'; there are: alpha, beta, gamma"),
        (("evaluate", "alpha@x"), "bad_input", "'alpha@x' names no version; write it as finance@3"),
        (("evaluate", "alpha@9"), "not_found", "no version of alpha '9'; there are: 1"),
        (("versions", "tax"), "not_found", "no expert 'tax'; there are: alpha, beta, gamma"),
        (("promote", "alpha", "99999999999999999999"), "not_found", "no version of alpha '99999999999999999999'"),
        (("rollback", "alpha"), "not_allowed", "no version of alpha was live before version 1"),
        (("retire", "tax"), "not_found", "no expert 'tax'; there are: alpha, beta, gamma"),
    ],
)
def test_what_cannot_be_done_ends_in_code_2(
    moe: Moe, store: Store, workdir: Path, arguments: tuple[str, ...], code: str, complaint: str
) -> None:
    write_examples(workdir / "few.jsonl", 2)
    (workdir / "bad.jsonl").write_text("[1]\n")
    said = moe("experts", *arguments, "--json", code=2)
    assert (said.out, error(said.err)["code"]) == (b"", code)
    assert error(said.err)["message"].startswith(complaint)
    assert store.rows("SELECT id FROM job") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "tax", "--domain", "x"),
        ("create", "tax", "--data", "data.jsonl"),
        ("train", "alpha"),
        ("train", "alpha", "--data", "data.jsonl", "--rank", "0"),
        ("train", "alpha", "--data", "data.jsonl", "--rank", "513"),
        ("promote", "alpha"),
        ("promote", "alpha", "0"),
        ("promote", "alpha", "latest"),
    ],
    ids=" ".join,
)
def test_arguments_that_are_missing_or_wrong_end_in_code_2(moe: Moe, store: Store, arguments: tuple[str, ...]) -> None:
    assert moe("experts", *arguments, code=2).out == b""
    assert store.rows("SELECT id FROM job") == []


def test_the_next_version_is_trained_and_then_trained_again(moe: Moe, store: Store) -> None:
    add_version(store, "alpha", live=True)

    trained = moe("experts", "train", "alpha", "--data", "data.jsonl", "--rank", "2", "--json").json
    assert {key: trained[key] for key in ("examples", "duplicates", "bad_rows")} == {
        "examples": 24,
        "duplicates": 0,
        "bad_rows": [],
    }
    busy = moe("experts", "retrain", "alpha", code=2).err
    assert busy.startswith(f"error: job {trained['job']} (train_expert, queued) works on expert:alpha; ")

    moe("jobs", "cancel", str(trained["job"]), code=0)
    retrained = moe("experts", "retrain", "alpha", "--json").json
    assert retrained == {"job": store.value("SELECT max(id) FROM job")}
    assert store.values("SELECT params FROM job ORDER BY id")[1] == {"mode": "retrain", "expert": "alpha", "rank": None}


def test_a_retraining_is_waited_for(moe: Moe, store: Store, trainer: Trainer) -> None:
    add_version(store, "alpha", live=True)
    trainer.results["train_expert"] = HELD_BACK | {"expert": "alpha", "version": 3}
    found = moe("experts", "retrain", "alpha", "--wait", "--json").json
    assert found == {"job": trainer.done[0]} | HELD_BACK | {"expert": "alpha", "version": 3}


# evaluate


def test_a_version_is_measured_and_its_figures_stand_on_top(moe: Moe, store: Store, trainer: Trainer) -> None:
    add_version(store, "alpha")
    trainer.results["evaluate_expert"] = MEASURED

    found = moe("experts", "evaluate", "alpha@2", "--json").json

    [job] = trainer.done
    assert found == {"job": job, **MEASURED}
    assert [
        found[key]
        for key in ("exact_match", "base_exact_match", "token_f1", "base_token_f1", "n", "ci", "base_unchanged")
    ] == [0.75, 0.25, 0.875, 0.375, 40, [0.35, 0.65], True]
    assert store.value("SELECT params FROM job") == {"expert": "alpha", "version": 2, "data": None}


def test_a_measurement_is_shown_with_wrong_answers(moe: Moe, store: Store, trainer: Trainer) -> None:
    trainer.results["evaluate_expert"] = MEASURED | {"similarity": 0.9, "base_similarity": 0.5}

    said = moe("experts", "evaluate", "alpha", "--data", "data.jsonl", code=0)

    lines = [" ".join(line.split()) for line in said.text.splitlines()]
    assert lines == [
        "version examples exact base F1 base meaning base",
        "tax@1 40 0.75 0.25 0.875 0.375 0.9 0.5",
        "exact answers above the base: +0.500, 95 % interval +0.350 to +0.650; base unchanged",
        "line expected answered",
        "7 x [y] z",
    ]
    assert said.err == f"evaluate_expert of job {trainer.done[0]}\n"


def test_a_measurement_that_failed_ends_in_code_1(moe: Moe, store: Store, trainer: Trainer) -> None:
    trainer.results["evaluate_expert"] = "version 1 of alpha has no adapter"
    said = moe("experts", "evaluate", "alpha", "--json", code=1)
    assert error(said.err)["message"].endswith("(training_failed): version 1 of alpha has no adapter")


# versions, promote, rollback, retire


def view(moe: Moe, expert: str, number: int) -> dict[str, Any]:
    [found] = [v for v in moe("experts", "versions", expert, "--json").json if v["version"] == number]
    return dict(found)


def test_versions_are_json(moe: Moe, store: Store) -> None:
    verdict = {"promote": False, "reasons": ["no better"]}
    add_version(store, "alpha", metrics=FIGURES, verdict=verdict, job_id=5)

    first, second = moe("experts", "versions", "alpha", "--json").json

    created = first.pop("created_at")
    assert first == {
        "expert": "alpha",
        "version": 2,
        "state": "candidate",
        "engine": "transformers",
        "adapter_sha256": "bb" * 32,
        "base_sha256": "cc" * 32,
        "metrics": FIGURES,
        "verdict": verdict,
        "job": 5,
        "promoted_at": None,
    }
    assert created > second["created_at"]
    assert (second["version"], second["state"], second["adapter_sha256"], second["metrics"]) == (1, "live", None, None)
    assert second["promoted_at"] is not None


def test_versions_are_a_table_with_why(moe: Moe, store: Store) -> None:
    verdict = {"promote": False, "reasons": ["no better", "F1 [0.1]"]}
    add_version(store, "alpha", metrics=FIGURES, verdict=verdict)

    header, newest, oldest = (line.split() for line in moe("experts", "versions", "alpha", code=0).text.splitlines())

    assert header == ["version", "state", "engine", "exact", "base", "F1", "adapter", "made", "why"]
    assert newest[:7] == ["2", "candidate", "transformers", "0.75", "0.25", "0.875", "bb" * 6]
    assert " ".join(newest[9:]) == "no better; F1 [0.1]"
    assert oldest[:3] == ["1", "live", "echo"]
    assert len(oldest) == 5


def test_a_version_goes_live_and_back(moe: Moe, store: Store) -> None:
    add_version(store, "alpha")
    assert moe("experts", "promote", "alpha", "2", code=0).text == "alpha@2 is live\n"
    assert live_number(store, "alpha") == 2
    assert moe("experts", "rollback", "alpha", code=0).text == "alpha@1 is live\n"
    assert live_number(store, "alpha") == 1
    assert moe("experts", "promote", "alpha", "2", "--json").json == view(moe, "alpha", 2)
    assert moe("experts", "rollback", "alpha", "--json").json == view(moe, "alpha", 1)
    assert store.rows("SELECT id FROM job") == []


def test_a_candidate_of_a_new_expert_goes_live_once_the_router_knows_it(
    moe: Moe, store: Store, trainer: Trainer
) -> None:
    add_version(store, "tax")
    said = moe("experts", "promote", "tax", "1", code=0)
    assert (said.text, said.err) == ("tax@1 is live\n", f"refresh of job {trainer.done[0]}\n")
    assert moe("experts", "promote", "tax", "1", "--json").json["state"] == "live"


def test_an_expert_is_retired_once(moe: Moe, store: Store, trainer: Trainer) -> None:
    said = moe("experts", "retire", "beta", code=0)
    assert (said.text, said.err) == ("beta is retired\n", f"refresh of job {trainer.done[0]}\n")
    assert moe("experts", "retire", "beta", code=0).text == "beta was retired already\n"
    assert moe("experts", "retire", "beta", "--json").json == {"expert": "beta", "retired": True, "job": None}
    assert moe("experts", "retire", "alpha", "--json").json == {
        "expert": "alpha",
        "retired": True,
        "job": trainer.done[1],
    }


def test_a_router_that_cannot_be_taught_is_told(moe: Moe, store: Store, trainer: Trainer) -> None:
    trainer.results["refresh"] = "No exemplars."
    said = moe("experts", "retire", "beta", code=1)
    assert said.err.endswith("failed (training_failed): No exemplars.\n")


# load


def test_while_every_expert_learns_there_is_no_router_to_wait_for(
    moe: Moe, bare_client: Runtime, workdir: Path
) -> None:
    folder = workdir / "catalogue" / "tax"
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text("name: tax\ntitle: Tax\ndescription: Knows tax.\nkeywords: [tax]\n")
    (folder / "exemplars.txt").write_text("what do I owe\n")
    write_examples(folder / "train.jsonl")

    found = moe("experts", "load", "catalogue", "--json").json

    [(learning, kind)] = rows(bare_client.engine, "SELECT id, kind FROM job")
    assert kind == "train_expert"
    assert found == {"experts": ["tax"], "changed": [], "learning": [learning], "job": None}


def test_experts_that_learn_are_told_when_a_catalogue_is_loaded(moe: Moe, client: Runtime, workdir: Path) -> None:
    folder = workdir / "catalogue" / "tax"
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text("name: tax\ntitle: Tax\ndescription: Knows tax.\nkeywords: [tax]\n")
    (folder / "exemplars.txt").write_text("what do I owe\n")
    write_examples(folder / "train.jsonl")

    found = moe("experts", "load", "catalogue", "--no-wait", "--json").json

    [(learning, of), (refresh, none)] = rows(client.engine, "SELECT id, subject FROM job ORDER BY id")
    assert (of, none) == ("expert:tax", None)
    assert found == {"experts": ["tax"], "changed": [], "learning": [learning], "job": refresh}
