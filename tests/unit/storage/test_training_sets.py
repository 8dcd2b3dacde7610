"""Training sets: the newest of each purpose is in use, and those before it stay stored."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
from sqlalchemy.exc import IntegrityError

from storage import expert_versions, training_sets
from storage.training_sets import NewSet, Purpose, StoredSet
from tests.unit.storage.builders import Store

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


@pytest.fixture
def alpha(store: Store) -> int:
    """An expert that has no version yet, as one is that is about to be trained."""
    return store(expert_versions.ensure_expert, "alpha")


def new(sha256: str = "aa", purpose: Purpose = "train", n_examples: int = 40) -> NewSet:
    return NewSet(purpose, f"sets/{sha256}", sha256, n_examples)


def hashes(store: Store, purpose: Purpose = "train", expert: str | None = None) -> dict[str, str]:
    return {found.expert: found.sha256 for found in store(training_sets.newest, purpose=purpose, expert=expert)}


def test_a_set_is_stored_with_all_it_was_given(store: Store, alpha: int) -> None:
    store(training_sets.add, alpha, new("ff", "evaluation", 12), job_id=7)

    (found,) = store(training_sets.newest, purpose="evaluation")
    assert found == StoredSet(found.id, "alpha", "evaluation", "sets/ff", "ff", 12, found.created_at)
    assert store.rows("SELECT job_id, created_at > now() - interval '1 minute' FROM training_set") == [(7, True)]


def test_the_newest_is_in_use_and_those_before_it_stay(store: Store, alpha: int) -> None:
    for sha256 in ("aa", "bb", "cc"):
        store(training_sets.add, alpha, new(sha256))

    assert hashes(store) == {"alpha": "cc"}
    assert store.values("SELECT sha256 FROM training_set ORDER BY id") == ["aa", "bb", "cc"]


def test_what_is_the_newest_already_is_not_stored_again(store: Store, alpha: int) -> None:
    for sha256 in ("aa", "aa", "bb", "bb", "aa"):
        store(training_sets.add, alpha, new(sha256))

    assert store.values("SELECT sha256 FROM training_set ORDER BY id") == ["aa", "bb", "aa"]
    assert hashes(store) == {"alpha": "aa"}


def test_purposes_and_experts_have_sets_of_their_own(store: Store, alpha: int) -> None:
    """The same bytes may well be the newest of two of them."""
    beta = store(expert_versions.ensure_expert, "beta")
    for purpose in PURPOSES:
        store(training_sets.add, alpha, new("aa", purpose))
    store(training_sets.add, beta, new("aa"))
    store(training_sets.add, beta, new("bb"))

    assert hashes(store) == {"alpha": "aa", "beta": "bb"}
    assert [hashes(store, purpose) for purpose in PURPOSES[1:]] == [{"alpha": "aa"}, {"alpha": "aa"}]


def test_experts_come_by_name_or_one_alone(store: Store, alpha: int) -> None:
    for name in ("gamma", "beta"):
        store(training_sets.add, store(expert_versions.ensure_expert, name), new(name))
    store(training_sets.add, alpha, new("alpha"))

    assert list(hashes(store)) == ["alpha", "beta", "gamma"]
    assert hashes(store, expert="beta") == {"beta": "beta"}
    assert hashes(store, expert="nobody") == {}
    assert hashes(store, "validation") == {}


def test_a_retired_expert_is_left_out_unless_it_is_named(store: Store, alpha: int) -> None:
    beta = store(expert_versions.ensure_expert, "beta")
    for expert_id in (alpha, beta):
        store(training_sets.add, expert_id, new())
    store(expert_versions.retire, "beta")

    assert hashes(store) == {"alpha": "aa"}
    assert hashes(store, expert="beta") == {"beta": "aa"}


def of_unknown_purpose(expert_id: int) -> tuple[Any, ...]:
    return (expert_id, NewSet("test", "sets/aa", "aa", 1))  # type: ignore[arg-type]


def of_no_expert(expert_id: int) -> tuple[Any, ...]:
    return (expert_id + 1000, new())


@pytest.mark.parametrize(
    ("wrong", "reason"), [(of_unknown_purpose, "purpose_is_known"), (of_no_expert, "training_set_expert_id_fkey")]
)
def test_a_set_that_belongs_nowhere_is_refused(
    store: Store, alpha: int, wrong: Callable[[int], tuple[Any, ...]], reason: str
) -> None:
    with pytest.raises(IntegrityError, match=reason):
        store(training_sets.add, *wrong(alpha))

    assert hashes(store) == {}


def test_the_sets_of_an_expert_go_with_it(store: Store, alpha: int) -> None:
    store(training_sets.add, alpha, new())

    store.sql("DELETE FROM expert")

    assert store.value("SELECT count(*) FROM training_set") == 0
