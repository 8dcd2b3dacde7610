"""Hints: small, comparable, and each of them known to the sweeper."""

from dataclasses import FrozenInstanceError, fields
from typing import get_args

import pytest

from storage import sweeping
from storage.hints import AnswerHint, ChordHint, CombineHint, FinalizeHint, Hint, JobHint, PlanHint, RouteHint
from tests.unit.storage.builders import Store

EVERY = [
    PlanHint(1),
    RouteHint(1, False),
    AnswerHint(1, "alpha", False),
    ChordHint(1, (AnswerHint(1, "alpha", False),), False),
    CombineHint(1, False),
    FinalizeHint(1),
    JobHint(1),
]


def test_every_kind_is_here() -> None:
    assert [type(hint) for hint in EVERY] == list(get_args(Hint))


@pytest.mark.parametrize("hint", EVERY, ids=lambda hint: type(hint).__name__)
def test_a_hint_never_changes(hint: Hint) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(hint, fields(hint)[0].name, 2)


def test_hints_of_different_kinds_differ_also_with_the_same_number() -> None:
    assert len(set(EVERY)) == len(EVERY)


@pytest.mark.parametrize(
    "hint", [hint for hint in EVERY if not isinstance(hint, ChordHint)], ids=lambda hint: type(hint).__name__
)
def test_a_hint_for_a_row_that_is_gone_is_marked_without_harm(store: Store, hint: Hint) -> None:
    """A chord is never sent again; its chunks are."""
    store(sweeping.mark_published, [hint])
