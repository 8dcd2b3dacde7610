"""An encoder that remembers gives what the other one gives, and asks it as seldom as it can."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.encoders.base import Embedded, Vectors
from experts.encoders.remembering import RememberingEncoder
from tests.contracts.samples import LAW


class Letters:
    """Two numbers and two layers of three for a text, all of them by its letters; keeps what it was asked."""

    name = "letters"
    dimension = 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self.embed(texts).vectors

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.calls.append(list(texts))
        numbers = np.array([sum(map(ord, text)) for text in texts], np.float32)
        layers = numbers[:, None, None] + np.arange(6, dtype=np.float32).reshape(2, 3)
        return Embedded(np.stack([numbers, -numbers], axis=1), layers)

    @property
    def asked(self) -> list[str]:
        return [text for call in self.calls for text in call]


@pytest.fixture
def letters() -> Letters:
    return Letters()


def assert_right(found: Embedded, texts: Sequence[str]) -> None:
    expected = Letters().embed(texts)
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    np.testing.assert_array_equal(found.layers, expected.layers)
    assert found.vectors.dtype == np.float32
    assert found.layers.dtype == np.float32


def test_it_goes_by_the_name_and_the_space_of_the_other(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 4)
    assert (encoder.name, encoder.dimension, encoder.n_asked, encoder.n_remembered) == ("letters", 2, 0, 0)


def test_a_text_is_embedded_once(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 4)
    for _ in range(3):
        assert_right(encoder.embed(["a", "b"]), ["a", "b"])
    assert letters.asked == ["a", "b"]
    assert (encoder.n_asked, encoder.n_remembered) == (6, 4)


def test_only_what_is_new_is_asked_and_the_order_is_kept(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 9)
    encoder.embed(["a", "b"])
    assert_right(encoder.embed(["c", "b", "d", "a"]), ["c", "b", "d", "a"])
    assert letters.asked == ["a", "b", "c", "d"]


@pytest.mark.parametrize("limit", [0, 1, 9])
def test_a_text_repeated_within_one_call_is_embedded_once(letters: Letters, limit: int) -> None:
    encoder = RememberingEncoder(letters, limit)
    assert_right(encoder.embed(["a", "b", "a", "a"]), ["a", "b", "a", "a"])
    assert letters.asked == ["a", "b"]
    assert (encoder.n_asked, encoder.n_remembered) == (4, 2)


def test_with_a_limit_of_nought_nothing_is_remembered(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 0)
    for _ in range(2):
        assert_right(encoder.embed(["a", "b"]), ["a", "b"])
    assert letters.asked == ["a", "b", "a", "b"]
    assert (encoder.n_asked, encoder.n_remembered) == (4, 0)


def test_what_was_used_longest_ago_is_forgotten_first(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 2)
    for texts in (["a"], ["b"], ["a"], ["c"], ["a"], ["b"]):
        assert_right(encoder.embed(texts), texts)
    assert letters.asked == ["a", "b", "c", "b"]


def test_of_more_than_it_can_hold_the_last_are_remembered(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 2)
    encoder.embed(["a", "b", "c", "d"])
    assert_right(encoder.embed(["a", "b", "c", "d"]), ["a", "b", "c", "d"])
    assert letters.calls == [["a", "b", "c", "d"], ["a", "b"]]


def test_a_text_that_is_forgotten_while_it_is_asked_for_is_given_all_the_same(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 1)
    encoder.embed(["a"])
    assert_right(encoder.embed(["b", "a", "c"]), ["b", "a", "c"])
    assert_right(encoder.embed(["c"]), ["c"])
    assert letters.asked == ["a", "b", "c"]


def test_no_texts_have_no_vectors_whether_something_is_remembered_or_not(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 4)
    for _ in range(2):
        found = encoder.embed([])
        assert (found.vectors.shape, found.layers.shape) == ((0, 2), (0, 2, 3))
        encoder.embed(["a"])
    assert (encoder.n_asked, encoder.n_remembered) == (2, 1)


def test_texts_that_differ_by_a_blank_are_not_the_same(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 9)
    assert_right(encoder.embed(["a", "a ", "A", ""]), ["a", "a ", "A", ""])
    assert (encoder.n_asked, encoder.n_remembered) == (4, 0)


def test_encode_gives_the_vectors_and_shares_the_memory(letters: Letters) -> None:
    encoder = RememberingEncoder(letters, 4)
    np.testing.assert_array_equal(encoder.encode(["a", "b"]), [[97, -97], [98, -98]])
    encoder.embed(["a", "b"])
    assert letters.asked == ["a", "b"]


@pytest.mark.parametrize("texts", [["a", "b"], ["b", "a", "a"]])
def test_who_changes_what_was_given_does_not_change_the_memory(letters: Letters, texts: list[str]) -> None:
    encoder = RememberingEncoder(letters, 4)
    for _ in range(3):
        found = encoder.embed(texts)
        assert_right(found, texts)
        found.vectors[:] = 7
        found.layers[:] = 7


def test_a_call_that_fails_leaves_the_memory_as_it_was(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = RememberingEncoder(letters, 4)
    encoder.embed(["a"])

    def broken(texts: Sequence[str]) -> Embedded:
        raise OSError("no room left")

    with monkeypatch.context() as patch:
        patch.setattr(letters, "embed", broken)
        with pytest.raises(OSError, match="no room left"):
            encoder.embed(["a", "b"])
    assert_right(encoder.embed(["a", "b"]), ["a", "b"])
    assert letters.asked == ["a", "b"]


@LAW
@given(
    calls=st.lists(st.lists(st.sampled_from("abcdefg"), max_size=6), max_size=8),
    limit=st.integers(0, 5),
)
def test_it_is_a_memory_of_the_texts_used_last(calls: list[list[str]], limit: int) -> None:
    letters = Letters()
    encoder = RememberingEncoder(letters, limit)
    held: list[str] = []
    asked: list[str] = []
    for texts in calls:
        assert_right(encoder.embed(texts), texts)
        new = [text for text in dict.fromkeys(texts) if text not in held]
        asked += new
        for text in texts:
            if text in held:
                held.remove(text)
                held.append(text)
        held = (held + new)[-limit:] if limit else []
        assert letters.asked == asked
    assert encoder.n_asked == sum(map(len, calls))
    assert encoder.n_remembered == encoder.n_asked - len(asked)
