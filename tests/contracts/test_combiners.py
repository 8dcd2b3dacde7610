"""What every combiner promises: one answer of at least one, and nothing lost or made up on the way."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts import kinds
from experts.combining import Combiner, ExpertAnswer, make_combiner
from tests.contracts import doubles
from tests.contracts.samples import LAW, hostile

SHARES = st.floats(0, 1, allow_nan=False)
ANSWERS = st.lists(
    st.builds(
        ExpertAnswer,
        expert=st.sampled_from(["bank", "code", "earth", "law", "medicine"]),
        weight=SHARES,
        text=st.text(max_size=20),
        answered=st.booleans(),
        confidence=SHARES,
        quality=SHARES,
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda answer: answer.expert,
)


@pytest.fixture(scope="module", params=sorted(kinds.COMBINERS | doubles.COMBINERS))
def combiner(request: pytest.FixtureRequest) -> Iterator[Combiner]:
    """Every registered combiner, and the double."""
    with pytest.MonkeyPatch.context() as patch:
        for name, target in doubles.COMBINERS.items():
            patch.setitem(kinds.COMBINERS, name, target)
        yield make_combiner(request.param)


@LAW
@given(answers=ANSWERS)
def test_the_answer_belongs_to_one_of_the_experts_and_the_others_are_kept(
    combiner: Combiner, answers: list[ExpertAnswer]
) -> None:
    combined = combiner.combine(answers)
    assert combined.expert in {answer.expert for answer in answers}
    others = {answer.expert: answer for answer in answers if answer.expert != combined.expert}
    assert {answer.expert: answer for answer in combined.alternatives} == others
    assert len(combined.alternatives) == len(others)
    assert 0 <= combined.confidence <= 1


@LAW
@given(answers=ANSWERS)
def test_there_is_an_answer_whenever_one_of_the_experts_has_one(
    combiner: Combiner, answers: list[ExpertAnswer]
) -> None:
    combined = combiner.combine(answers)
    assert combined.answered is any(answer.answered for answer in answers)
    given_by = next(answer for answer in answers if answer.expert == combined.expert)
    assert given_by.answered is combined.answered


@LAW
@given(answers=ANSWERS, random=st.randoms(use_true_random=False))
def test_the_order_in_which_the_answers_came_does_not_matter(
    combiner: Combiner, answers: list[ExpertAnswer], random: Random
) -> None:
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert combiner.combine(shuffled) == combiner.combine(answers)


@LAW
@given(answers=ANSWERS)
def test_combining_leaves_its_input_as_it_was(combiner: Combiner, answers: list[ExpertAnswer]) -> None:
    before = list(answers)
    combiner.combine(answers)
    assert answers == before
    assert combiner.combine(tuple(answers)) == combiner.combine(answers)


@pytest.mark.parametrize("answered", [True, False])
def test_a_single_answer_comes_out_as_it_went_in(combiner: Combiner, answered: bool) -> None:
    combined = combiner.combine([ExpertAnswer("bank", 0.0, "Pay it back.", answered, 0.25, 0.0)])
    assert (combined.text, combined.expert, combined.answered, combined.confidence) == (
        "Pay it back.",
        "bank",
        answered,
        0.25,
    )
    assert list(combined.alternatives) == []


@hostile
def test_a_hostile_text_comes_out_letter_for_letter(combiner: Combiner, text: str) -> None:
    answer = ExpertAnswer("bank", 0.7, text, True, 0.9, 0.8)
    said = combiner.combine([answer, replace(answer, expert="code", answered=False, text="I cannot say.")])
    assert (said.text, said.expert) == (text, "bank")
    assert said.alternatives[0].text == "I cannot say."
