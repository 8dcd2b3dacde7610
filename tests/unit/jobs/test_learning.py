"""Experts that learn, asked for from outside: jobs are queued, files checked, versions chosen."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from experts.adapters.data import Example
from experts.adapters.rows import BadRow
from experts.adapters.stored import from_lines
from experts.errors import CannotTrain, ExpertsError, UnknownKind
from experts.language.prompting import Turn
from jobs import learning
from jobs.errors import BadInput
from jobs.learning import Creation, exemplars_of, named
from storage import catalogue, expert_versions, job_control, jobs
from storage.errors import NotAllowed, NotFound
from storage.hints import JobHint
from tests.unit.jobs.lines import rows
from tests.unit.jobs.trainer import Sent, add_version, live_number, write_examples
from tests.unit.storage.builders import Store
from worker.runtime import Runtime


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def stack(client: Runtime, sent: Sent) -> Runtime:
    """Three experts serve, none of which has learned; what is sent is kept."""
    return replace(client, dispatcher=sent)  # type: ignore[arg-type]


@pytest.fixture
def store(stack: Runtime) -> Store:
    return Store(stack.engine)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A file of 24 examples."""
    return write_examples(tmp_path / "data.jsonl")


def new(data: str, **more: Any) -> Creation:
    return Creation(**({"name": "tax", "domain": "taxes", "data": data} | more))


def queued(stack: Runtime) -> list[tuple[Any, ...]]:
    return rows(stack.engine, "SELECT id, kind, subject, params, state FROM job ORDER BY id")


def params(stack: Runtime, job: int) -> dict[str, Any]:
    [(found,)] = rows(stack.engine, "SELECT params FROM job WHERE id = :id", id=job)
    return dict(found)


def stored_examples(stack: Runtime, place: str) -> list[Example]:
    with stack.store.open(place) as file:
        return from_lines(file)


def question(text: str) -> Example:
    return Example((Turn("user", text),), "An answer.", 1)


# Creating


def test_the_making_of_an_expert_is_a_job_and_nothing_else_is_stored(stack: Runtime, sent: Sent, data: str) -> None:
    job, given = learning.create(stack, new(data))

    assert (len(given.examples), given.bad, given.duplicates) == (24, [], 0)
    assert stored_examples(stack, given.place) == given.examples
    assert queued(stack) == [
        (
            job,
            "train_expert",
            "expert:tax",
            {
                "mode": "create",
                "expert": "tax",
                "engine": "transformers",
                "card": {
                    "title": "Taxes",
                    "description": "Learned answers about taxes.",
                    "parent": None,
                    "capabilities": [],
                    "keywords": [],
                    "limits": [],
                    "model": None,
                    "retrieval": False,
                    "adapter": True,
                },
                "exemplars": [f"What is question {i}?" for i in range(24)],
                "data": given.place,
                "validation": None,
                "rank": None,
                "complex": False,
            },
            "queued",
        )
    ]
    assert sent.hints == [JobHint(job)]
    assert Store(stack.engine)(catalogue.names) == ["alpha", "beta", "gamma"]


def test_what_a_person_says_of_a_new_expert_goes_with_it(stack: Runtime, data: str, tmp_path: Path) -> None:
    held_out = write_examples(tmp_path / "held_out.jsonl", 10, first=100)
    given = new(
        data,
        validation=held_out,
        description="Knows what is due.",
        exemplars=["what do I owe"],
        keywords=["Tax", "duty"],
        parent="alpha",
        rank=32,
        complex_domain=True,
    )

    found = params(stack, learning.create(stack, given)[0])

    card = found["card"]
    assert (card["description"], card["keywords"], card["parent"]) == ("Knows what is due.", ["tax", "duty"], "alpha")
    assert (found["exemplars"], found["rank"], found["complex"]) == (["what do I owe"], 32, True)
    assert [example.prompt[0].content for example in stored_examples(stack, found["validation"])] == [
        f"What is question {i}?" for i in range(100, 110)
    ]


def test_the_same_examples_lie_in_the_same_place(stack: Runtime, store: Store, data: str, tmp_path: Path) -> None:
    first = learning.create(stack, new(data))[1]
    again = learning.create(stack, new(write_examples(tmp_path / "copy.jsonl"), name="duty"))[1]
    other = learning.create(stack, new(write_examples(tmp_path / "other.jsonl", first=1), name="toll"))[1]
    assert first.place == again.place != other.place


@pytest.mark.parametrize("name", ["", "Tax", "9tax", "ta-x", "tax\n", "../tax", "t" * 51])
def test_what_is_no_name_is_refused(stack: Runtime, data: str, name: str) -> None:
    with pytest.raises(BadInput, match=r"is no name of an expert: lower-case letters, digits and _, at most 50"):
        learning.create(stack, new(data, name=name))
    assert queued(stack) == []


def test_an_unknown_engine_is_refused(stack: Runtime, data: str) -> None:
    with pytest.raises(UnknownKind, match=r"^unknown engine 'oracle'; there are: "):
        learning.create(stack, new(data, engine="oracle"))


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"domain": " "}, "domain"),
        ({"domain": "x" * 2001}, "domain"),
        ({"description": "x" * 2001}, "description"),
        ({"keywords": ["tax", "x"]}, "keyword"),
        ({"parent": "Money & More"}, "parent"),
        ({"exemplars": ["why", " "]}, "exemplar"),
        ({"exemplars": ["x" * 2001]}, "exemplar"),
    ],
    ids=["no domain", "a long domain", "a long description", "keyword", "parent", "no exemplar", "a long exemplar"],
)
def test_what_no_card_can_hold_is_refused(stack: Runtime, data: str, given: dict[str, Any], option: str) -> None:
    with pytest.raises(BadInput, match=rf"^--{option}: "):
        learning.create(stack, new(data, **given))
    assert queued(stack) == []


@pytest.mark.parametrize(
    ("domain", "title"), [(" taxes ", "Taxes"), ("EU tax law", "EU tax law"), ("éclairs", "Éclairs")]
)
def test_a_domain_keeps_its_letters_as_the_title(stack: Runtime, data: str, domain: str, title: str) -> None:
    assert params(stack, learning.create(stack, new(data, domain=domain))[0])["card"]["title"] == title


def test_an_expert_that_is_there_is_not_made_again(stack: Runtime, data: str) -> None:
    with pytest.raises(NotAllowed, match=r"^alpha is there already; `moe experts train alpha` makes its next version$"):
        learning.create(stack, new(data, name="alpha"))
    assert queued(stack) == []


def test_an_expert_that_is_being_made_is_busy_until_that_is_over(stack: Runtime, store: Store, data: str) -> None:
    first, _ = learning.create(stack, new(data))

    busy = rf"^job {first} \(train_expert, queued\) works on expert:tax; wait for it, or end it with `moe jobs cancel`$"
    with pytest.raises(NotAllowed, match=busy):
        learning.create(stack, new(data))

    store(job_control.stop, first, "cancel")
    assert learning.create(stack, new(data))[0] > first


# Files


def test_rows_that_are_no_examples_are_told_and_harm_no_other(stack: Runtime, data: str) -> None:
    with Path(data).open("a") as file:
        file.write('{"question": "What is question 0?", "answer": "Answer 0."}\n')
        file.write('not JSON\n\n{"question": "why"}\n{"question": "", "answer": "x"}\n[1]\n')

    _, given = learning.create(stack, new(data))

    assert (len(given.examples), given.duplicates) == (24, 1)
    assert [row.line for row in given.bad] == [26, 28, 29, 30]
    assert given.bad[0].reason.startswith("is not JSON: ")
    assert given.bad[2:] == [BadRow(29, "question: is empty"), BadRow(30, "is not a JSON object but a list")]


def test_a_file_without_any_example_is_refused_by_its_first_line(stack: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('\n{"question": "why"}\nx\n')
    with pytest.raises(BadInput, match=r"data\.jsonl, line 2: the row has none of the sets of keys a row may have"):
        learning.create(stack, new(str(path)))


@pytest.mark.parametrize("path", ["missing.jsonl", ".", ""])
def test_what_is_no_file_is_refused(stack: Runtime, workdir: Path, path: str) -> None:
    with pytest.raises(BadInput, match=r": no such file$"):
        learning.create(stack, new(path))


@pytest.mark.parametrize("n", [0, 1, 19])
def test_too_few_examples_are_refused(stack: Runtime, tmp_path: Path, n: int) -> None:
    path = write_examples(tmp_path / "few.jsonl", n)
    with pytest.raises(CannotTrain, match=rf"^{n} usable examples are too few to train on; at least 20 are needed$"):
        learning.create(stack, new(path))
    assert queued(stack) == []


def test_the_fewest_examples_are_a_setting(stack: Runtime, tmp_path: Path) -> None:
    settings = stack.settings
    few = settings.model_copy(update={"training": settings.training.model_copy(update={"min_examples": 2})})
    job, _ = learning.create(replace(stack, settings=few), new(write_examples(tmp_path / "few.jsonl", 2)))
    assert [row[0] for row in queued(stack)] == [job]


@pytest.mark.parametrize(
    ("n", "complaint"), [(9, "at least 10 are needed"), (None, "no such file")], ids=["too few", "missing"]
)
def test_bad_examples_to_measure_on_are_refused(
    stack: Runtime, data: str, tmp_path: Path, n: int | None, complaint: str
) -> None:
    path = tmp_path / "held_out.jsonl"
    if n is not None:
        write_examples(path, n)
    with pytest.raises((BadInput, ExpertsError), match=complaint):
        learning.create(stack, new(data, validation=str(path)))
    assert queued(stack) == []


def test_tables_are_read_as_well(stack: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("Question,Answer\n" + "".join(f'"Why {i},\nthen?",Because {i}.\n' for i in range(20)))
    _, given = learning.create(stack, new(str(path)))
    assert stored_examples(stack, given.place)[19].prompt[0].content == "Why 19,\nthen?"


# Exemplars


def test_questions_of_the_examples_become_exemplars_once_each() -> None:
    assert exemplars_of([question("a"), question(" b "), question("a"), question("b"), question(" ")]) == ["a", "b"]


def test_the_last_question_of_a_conversation_is_the_exemplar() -> None:
    turns = (Turn("system", "Be kind."), Turn("user", "Hello"), Turn("assistant", "Hi"), Turn("user", "Why?"))
    assert exemplars_of([Example(turns, "Because.", 1)]) == ["Why?"]


def test_exemplars_are_spread_evenly_and_are_at_most_two_hundred() -> None:
    found = exemplars_of([question(f"{i}") for i in range(500)])
    assert len(found) == 200
    assert found[0] == "0"
    assert {int(b) - int(a) for a, b in pairwise(found)} == {2, 3}


def test_a_long_question_is_cut_to_what_an_exemplar_may_be() -> None:
    assert exemplars_of([question("x" * 2001), question("x" * 2002)]) == ["x" * 2000]


# Training again


def test_the_next_version_is_trained_on_new_examples(stack: Runtime, sent: Sent, data: str, tmp_path: Path) -> None:
    held_out = write_examples(tmp_path / "held_out.jsonl", 10, first=50)

    job, given = learning.train(stack, "alpha", data, validation=held_out, rank=4, complex_domain=True)

    [(number, kind, subject, found, _)] = queued(stack)
    assert (number, kind, subject) == (job, "train_expert", "expert:alpha")
    assert found == {
        "mode": "train",
        "expert": "alpha",
        "data": given.place,
        "validation": found["validation"],
        "rank": 4,
        "complex": True,
    }
    assert len(stored_examples(stack, found["validation"])) == 10
    assert sent.hints == [JobHint(job)]


def test_an_unknown_expert_learns_nothing(stack: Runtime, data: str) -> None:
    unknown = r"^no expert 'tax'; there are: alpha, beta, gamma$"
    with pytest.raises(NotFound, match=unknown):
        learning.train(stack, "tax", data)
    with pytest.raises(NotFound, match=unknown):
        learning.retrain(stack, "tax")
    with pytest.raises(NotFound, match=unknown):
        learning.evaluate(stack, "tax")
    for move in (learning.versions, learning.rollback, learning.retire):
        with pytest.raises(NotFound, match=unknown):
            move(stack, "tax")
    assert queued(stack) == []


def test_an_expert_is_retrained_once_it_has_learned(stack: Runtime, store: Store, sent: Sent) -> None:
    with pytest.raises(
        NotAllowed, match=r"^alpha has learned nothing yet; `moe experts train alpha --data FILE` begin"
    ):
        learning.retrain(stack, "alpha")
    assert queued(stack) == []

    add_version(store, "alpha")
    job = learning.retrain(stack, "alpha", rank=2)

    assert queued(stack) == [
        (job, "train_expert", "expert:alpha", {"mode": "retrain", "expert": "alpha", "rank": 2}, "queued")
    ]
    assert sent.hints == [JobHint(job)]


def test_an_expert_of_which_no_version_went_live_learns_again(stack: Runtime, store: Store, data: str) -> None:
    add_version(store, "tax")
    with pytest.raises(NotAllowed, match=r"^tax is there already; `moe experts train tax` makes its next version$"):
        learning.create(stack, new(data))
    job, _ = learning.train(stack, "tax", data)
    assert params(stack, job)["mode"] == "train"


def test_one_expert_is_trained_once_at_a_time_and_others_beside_it(stack: Runtime, store: Store, data: str) -> None:
    add_version(store, "alpha", live=True)
    job, _ = learning.train(stack, "alpha", data)
    store(job_control.stop, job, "pause")
    for again in (lambda: learning.train(stack, "alpha", data), lambda: learning.retrain(stack, "alpha")):
        with pytest.raises(NotAllowed, match=rf"^job {job} \(train_expert, paused\) works on expert:alpha; "):
            again()
    learning.train(stack, "beta", data)
    assert [row[2] for row in queued(stack)] == ["expert:alpha", "expert:beta"]


# Measuring


@pytest.mark.parametrize(
    ("which", "found"),
    [("finance", ("finance", None)), ("finance@3", ("finance", 3)), ("finance@120", ("finance", 120))],
)
def test_a_version_is_named_by_its_number(which: str, found: tuple[str, int | None]) -> None:
    assert named(which) == found


@pytest.mark.parametrize("which", ["", "@", "@3", "finance@", "finance@0", "finance@-1", "finance@x", "finance@3@4"])
def test_what_names_no_version_is_refused(which: str) -> None:
    with pytest.raises(BadInput, match=r"names no version; write it as finance@3, or finance for the live one$"):
        named(which)


def test_a_measurement_is_a_job_beside_others(stack: Runtime, store: Store, sent: Sent, tmp_path: Path) -> None:
    add_version(store, "alpha")
    learning.retrain(stack, "alpha")
    path = write_examples(tmp_path / "one.jsonl", 1)

    first, second = learning.evaluate(stack, "alpha@2"), learning.evaluate(stack, "alpha", data=path)

    _, asked, live = queued(stack)
    assert asked[:4] == (first, "evaluate_expert", None, {"expert": "alpha", "version": 2, "data": None})
    place = live[3].pop("data")
    assert live[:4] == (second, "evaluate_expert", None, {"expert": "alpha", "version": None})
    assert len(stored_examples(stack, place)) == 1
    assert sent.hints[1:] == [JobHint(first), JobHint(second)]


def test_what_is_not_there_is_not_measured(stack: Runtime, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"^no version of alpha '2'; there are: 1$"):
        learning.evaluate(stack, "alpha@2")
    with pytest.raises(BadInput, match=r": no such file$"):
        learning.evaluate(stack, "alpha", data=str(tmp_path / "missing"))
    with pytest.raises(CannotTrain, match=r"^0 usable examples"):
        learning.evaluate(stack, "alpha", data=write_examples(tmp_path / "none.jsonl", 0))
    assert queued(stack) == []


# Versions


def test_versions_are_told_newest_first(stack: Runtime, store: Store) -> None:
    add_version(store, "alpha", verdict={"promote": False, "reasons": ["no better"]})
    found = learning.versions(stack, "alpha")
    assert [(view.number, view.state, view.engine) for view in found] == [
        (2, "candidate", "transformers"),
        (1, "live", "echo"),
    ]
    assert found[0].verdict == {"promote": False, "reasons": ["no better"]}


def test_a_version_of_an_expert_that_serves_goes_live_without_a_job(stack: Runtime, store: Store, sent: Sent) -> None:
    number = add_version(store, "alpha")
    view, job = learning.promote(stack, "alpha", number)
    assert (view.number, view.state, job) == (number, "live", None)
    assert live_number(store, "alpha") == number
    assert (queued(stack), sent.hints) == ([], [])


def test_the_first_version_of_an_expert_goes_live_with_a_job_that_teaches_the_router(
    stack: Runtime, store: Store, sent: Sent
) -> None:
    number = add_version(store, "tax")
    view, job = learning.promote(stack, "tax", number)
    assert (view.expert, view.state) == ("tax", "live")
    assert [row[:2] for row in queued(stack)] == [(job, "refresh")]
    assert [hint.job_id for hint in sent.hints if isinstance(hint, JobHint)] == [job]


def test_an_unknown_version_does_not_go_live(stack: Runtime, store: Store) -> None:
    with pytest.raises(NotFound, match=r"^no version of alpha '2'; there are: 1$"):
        learning.promote(stack, "alpha", 2)
    with pytest.raises(NotFound, match=r"^no expert 'tax'"):
        learning.promote(stack, "tax", 1)
    assert live_number(store, "alpha") == 1


def test_a_rollback_goes_to_the_version_before(stack: Runtime, store: Store) -> None:
    add_version(store, "alpha", live=True)
    assert learning.rollback(stack, "alpha").number == live_number(store, "alpha") == 1
    with pytest.raises(NotAllowed, match=r"^no version of alpha was live before version 1$"):
        learning.rollback(stack, "alpha")


def test_an_expert_is_retired_once_and_comes_back_with_a_promotion(stack: Runtime, store: Store, sent: Sent) -> None:
    job = learning.retire(stack, "beta")
    assert [row[:2] for row in queued(stack)] == [(job, "refresh")]
    assert [hint.job_id for hint in sent.hints if isinstance(hint, JobHint)] == [job]
    assert store(catalogue.expert, "beta").retired

    assert learning.retire(stack, "beta") is None
    assert len(sent.hints) == 1

    learning.promote(stack, "beta", 1)
    assert not store(catalogue.expert, "beta").retired


def test_the_last_expert_stays(stack: Runtime, store: Store) -> None:
    learning.retire(stack, "alpha")
    learning.retire(stack, "beta")
    with pytest.raises(NotAllowed, match=r"^gamma is the last expert; queries must go somewhere$"):
        learning.retire(stack, "gamma")
    assert not store(catalogue.expert, "gamma").retired


def test_an_expert_nobody_knows_is_not_the_last(bare_client: Runtime) -> None:
    with pytest.raises(NotFound, match=r"^no expert 'tax'$"):
        learning.retire(bare_client, "tax")


def test_one_refresh_serves_all_that_wait_for_it(stack: Runtime, store: Store) -> None:
    waiting = store(jobs.add_refresh)
    assert learning.retire(stack, "alpha") == learning.retire(stack, "beta") == waiting


def test_a_version_that_goes_live_leaves_its_candidates_as_they_were(stack: Runtime, store: Store) -> None:
    candidate, better = add_version(store, "alpha"), add_version(store, "alpha")
    learning.promote(stack, "alpha", better)
    learning.rollback(stack, "alpha")
    states = {view.number: view.state for view in store(expert_versions.versions, "alpha")}
    assert states == {1: "live", candidate: "candidate", better: "candidate"}
