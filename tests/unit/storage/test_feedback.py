"""What people say of answers, and the questions no expert covers."""

from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from storage import feedback
from storage.errors import NotAllowed, NotFound
from storage.feedback import Gap
from storage.runs import RunView
from tests.unit.storage.builders import Store, accepted, ended, rejected, start


def judge(store: Store, run: RunView, custom_id: str, **said: Any) -> str:
    given: dict[str, Any] = {"positive": None, "correct_expert": None, "correct_answer": None}
    return store(feedback.add, run, custom_id, **(given | said))


@pytest.mark.parametrize(
    "said", [{"positive": True}, {"positive": False}, {"correct_expert": "beta"}, {"correct_answer": "No."}]
)
def test_what_was_said_is_stored_with_the_expert_that_was_shown(store: Store, said: dict[str, Any]) -> None:
    run = ended(store)

    assert judge(store, run, "q2", **said) == "alpha"

    row = tuple(said.get(name) for name in ("positive", "correct_expert", "correct_answer"))
    assert store.rows("SELECT run_id, idx, expert, positive, correct_expert, correct_answer FROM feedback") == [
        (run.id, 2, "alpha", *row)
    ]


def test_a_line_may_be_judged_by_several_people(store: Store) -> None:
    run = ended(store)
    for positive in (True, False):
        judge(store, run, "q0", positive=positive)

    assert store.values("SELECT positive FROM feedback ORDER BY id") == [True, False]


def test_saying_nothing_is_refused(store: Store) -> None:
    run = ended(store)

    with pytest.raises(IntegrityError, match="says_something"):
        judge(store, run, "q0")


def test_an_unknown_line_is_not_found(store: Store) -> None:
    run = ended(store)
    ended(store, [*accepted(9)])

    with pytest.raises(NotFound, match=r"^no line with custom_id 'q8'"):
        judge(store, run, "q8", positive=True)


def test_a_line_without_an_answer_cannot_be_judged(store: Store) -> None:
    failed = ended(store, [*accepted(2), rejected(3)], failing=[0])
    unfinished = start(store)

    for run in (failed, unfinished):
        with pytest.raises(NotAllowed, match=rf"^line 'q0' of run {run.public_id} has no answer to judge$"):
            judge(store, run, "q0", positive=True)
    assert store.value("SELECT count(*) FROM feedback") == 0


# --- corrections ----------------------------------------------------------------------------------------------


def test_nothing_is_corrected_where_nobody_named_an_expert(store: Store) -> None:
    run = ended(store)
    assert store(feedback.corrected) == []

    judge(store, run, "q0", positive=False)
    judge(store, run, "q1", correct_answer="No.")

    assert store(feedback.corrected) == []


def test_corrections_of_all_runs_are_the_lines_texts_with_their_right_experts(store: Store) -> None:
    first, second = ended(store), ended(store)
    judge(store, second, "q1", correct_expert="beta")
    judge(store, first, "q3", correct_expert="gamma", positive=False)
    judge(store, first, "q0", correct_expert="alpha", correct_answer="Yes.")

    assert store(feedback.corrected) == [("question 0", "alpha"), ("question 3", "gamma"), ("question 1", "beta")]


def test_of_several_corrections_of_a_line_the_last_counts(store: Store) -> None:
    run, other = ended(store), ended(store)
    for expert in ("gamma", "alpha", "beta"):
        judge(store, run, "q1", correct_expert=expert)
    judge(store, run, "q1", positive=True)  # names no expert, and takes nothing back
    judge(store, other, "q1", correct_expert="delta")

    assert store(feedback.corrected) == [("question 1", "beta"), ("question 1", "delta")]


def test_corrections_go_with_their_run(store: Store) -> None:
    run = ended(store)
    judge(store, run, "q1", correct_expert="beta")

    store.sql("DELETE FROM run")

    assert store(feedback.corrected) == []


def test_right_answers_are_those_of_the_expert_that_should_have_given_them(store: Store) -> None:
    run = ended(store)
    judge(store, run, "q3", correct_answer="Three.", positive=False)
    judge(store, run, "q0", correct_answer="Nought.")
    judge(store, run, "q1", correct_answer="One.", correct_expert="beta")
    judge(store, run, "q2", positive=True, correct_expert="beta")

    assert store(feedback.answers, "alpha") == [("question 0", "Nought."), ("question 3", "Three.")]
    assert store(feedback.answers, "beta") == [("question 1", "One.")]
    assert store(feedback.answers, "gamma") == []


def test_of_several_right_answers_to_a_line_the_last_counts(store: Store) -> None:
    run, other = ended(store), ended(store)
    for said in ("First.", "Second."):
        judge(store, run, "q1", correct_answer=said)
    judge(store, run, "q1", positive=False)  # gives no answer, and takes none back
    judge(store, other, "q1", correct_answer="Another.")

    assert store(feedback.answers, "alpha") == [("question 1", "Second."), ("question 1", "Another.")]


# --- gaps -----------------------------------------------------------------------------------------------------


def outside(store: Store, run: RunView, coverage: dict[int, float]) -> None:
    for idx, covered in coverage.items():
        store.sql(
            "UPDATE decision SET in_scope = false, coverage = :covered WHERE run_id = :run AND idx = :idx",
            run=run.id,
            idx=idx,
            covered=covered,
        )


def test_the_gaps_of_a_run_come_least_covered_first(store: Store) -> None:
    run, other = ended(store), ended(store)
    outside(store, run, {0: 0.5, 2: 0.25, 3: 0.5})
    outside(store, other, {0: 0.0})
    store.sql("UPDATE decision SET experts = '[]' WHERE run_id = :run AND idx = 3", run=run.id)

    assert store(feedback.gaps, run_id=run.id, limit=9) == [
        Gap(run.public_id, "q2", "question 2", 0.25, "alpha", run.created_at),
        Gap(run.public_id, "q0", "question 0", 0.5, "alpha", run.created_at),
        Gap(run.public_id, "q3", "question 3", 0.5, None, run.created_at),
    ]


def test_the_gaps_of_all_runs_come_newest_run_first(store: Store) -> None:
    first, second = ended(store), ended(store)
    outside(store, first, {0: 0.0})
    outside(store, second, {1: 0.5, 3: 0.25})

    gaps = store(feedback.gaps, run_id=None, limit=9)

    assert [(gap.run, gap.custom_id) for gap in gaps] == [
        (second.public_id, "q1"),
        (second.public_id, "q3"),
        (first.public_id, "q0"),
    ]
    assert store(feedback.gaps, run_id=None, limit=2) == gaps[:2]


def test_previews_have_no_gaps(store: Store) -> None:
    run = ended(store)
    outside(store, run, {0: 0.0})
    store.sql("UPDATE run SET kind = 'preview'")

    assert store(feedback.gaps, run_id=run.id, limit=9) == []
