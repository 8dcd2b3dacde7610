"""BM25 against the formula written out."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from experts.lexical import WordIndex

TEXTS = ["a cat sat on a cat", "the dog sat", "birds sing songs at dawn while the dog sleeps", ""]


def slow_bm25(texts: Sequence[str], query: str, text: str) -> float:
    """For texts whose words no plural ends."""
    split = [t.split() for t in texts]
    mean = sum(map(len, split)) / len(split)
    own, total = text.split(), 0.0
    for word in set(query.split()):
        holding = sum(word in words for words in split)
        rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        times = own.count(word)
        total += rarity * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(own) / mean))
    return total


def test_scores_are_those_of_the_formula() -> None:
    queries = ["cat sat", "the dog", "dawn"]
    scores = WordIndex(TEXTS).score(queries, np.array([[0, 1, 2, 3]] * 3))
    expected = [[slow_bm25(TEXTS, query, text) for text in TEXTS] for query in queries]
    assert scores.dtype == np.float32
    assert scores == pytest.approx(np.array(expected), rel=1e-6)
    assert (scores > 0).tolist() == [
        [True, True, False, False],
        [False, True, True, False],
        [False, False, True, False],
    ]


def test_places_stand_for_the_passages_asked_for() -> None:
    index = WordIndex(TEXTS)
    whole = index.score(["cat dog"], np.array([[0, 1, 2, 3]]))[0]
    assert index.score(["cat dog"], np.array([[2, 0, -1]]))[0].tolist() == [whole[2], whole[0], 0.0]


def test_a_word_said_twice_counts_once_and_an_unknown_one_not_at_all() -> None:
    index, places = WordIndex(TEXTS), np.array([[0, 1]])
    assert index.score(["cat cat zebra"], places).tolist() == index.score(["cat"], places).tolist()
    assert index.score(["zebra"], places).tolist() == [[0.0, 0.0]]
    assert index.score([""], places).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("texts", [[], [""], ["…", "?!"]], ids=["no texts", "an empty text", "no words"])
def test_without_words_everything_scores_nought(texts: list[str]) -> None:
    assert WordIndex(texts).score(["cat"], np.array([[0, -1]])).tolist() == [[0.0, 0.0]]
