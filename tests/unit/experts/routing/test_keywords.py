"""Which keywords a text holds, and what they count."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.routing.keywords import KeywordTable, words
from tests.contracts.samples import LAW

EXPERTS = ("bank", "code", "law")
KEYWORDS = {
    "bank": ["card", "credit card", "interest"],
    "code": ["c++", "c#", "node.js", "pointer", "card"],
    "law": ["interest", "contract", "statute of limitations", "card"],
}


@pytest.fixture(scope="module")
def table() -> KeywordTable:
    return KeywordTable(EXPERTS, KEYWORDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Hello, World!", ["hello", "world"]),
        ("taxes bonds policies news", ["taxe", "bond", "policy", "new"]),
        ("gas bus is class glasses", ["gas", "bus", "is", "class", "glasse"]),
        ("C++ and C# or node.js.", ["c++", "and", "c#", "or", "node.j"]),
        ("don't e-mail me...", ["don't", "e-mail", "me"]),
        ("x y 7 401k", ["x", "y", "7", "401k"]),
        ("\x00\u202e…👍🏽", []),
    ],
)
def test_words_are_lower_case_without_plurals(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_only_the_beginning_of_a_text_is_read() -> None:
    assert words("abc " * 2000) == ["abc"] * 1000
    assert words("one two three", limit=7) == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing of it", {}),
        ("MY CREDIT CARDS!", {"bank": ["credit card", "card"], "code": ["card"], "law": ["card"]}),
        ("my credit, card", {"bank": ["credit card", "card"], "code": ["card"], "law": ["card"]}),
        ("a discard is not one", {}),
        ("pointers in c++ and pointers in c#", {"code": ["pointer", "c++", "c#"]}),
        ("is there a statute of limitations", {"law": ["statute of limitation"]}),
        ("a statute of", {}),
        ("node.js", {"code": ["node.j"]}),
    ],
)
def test_keywords_are_found_as_whole_words_in_any_number_once_each(
    table: KeywordTable, text: str, expected: dict[str, list[str]]
) -> None:
    assert table.hits(text) == expected
    assert table.score([text])[1] == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing", [0, 0, 0]),
        ("pointer", [0, 1 - math.exp(-1), 0]),
        ("pointer pointer pointers", [0, 1 - math.exp(-1), 0]),
        ("pointer c++", [0, 1 - math.exp(-2), 0]),
        ("interest", [1 - math.exp(-math.log(1 + 3 / 2) / math.log(4)), 0, 1 - math.exp(-math.log(2.5) / math.log(4))]),
        ("card", [1 - math.exp(-math.log(2) / math.log(4))] * 3),
    ],
)
def test_a_keyword_counts_less_the_more_experts_claim_it(table: KeywordTable, text: str, expected: list[float]) -> None:
    scores, _ = table.score([text])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[0], expected, atol=1e-6)


def test_a_keyword_that_an_expert_names_twice_counts_once() -> None:
    scores, _ = KeywordTable(("bank",), {"bank": ["card", "Cards", "card"]}).score(["card"])
    assert scores[0, 0] == pytest.approx(1 - math.exp(-1))


def test_experts_without_keywords_and_keywords_without_words_score_nothing() -> None:
    scores, evidence = KeywordTable(("bank", "code"), {"code": ["…", ""]}).score(["card …", ""])
    np.testing.assert_array_equal(scores, np.zeros((2, 2), np.float32))
    assert evidence == [{}, {}]


def reference(text: str) -> list[float]:
    """Slow: every keyword at every place, no table."""
    tokens = words(text)
    scores = []
    for expert in EXPERTS:
        total = 0.0
        for keyword in KEYWORDS[expert]:
            phrase = words(keyword)
            n_owners = sum(keyword in of for of in KEYWORDS.values())
            if any(tokens[at : at + len(phrase)] == phrase for at in range(len(tokens))):
                total += math.log(1 + 3 / n_owners) / math.log(1 + 3)
        scores.append(1 - math.exp(-total))
    return scores


VOCABULARY = sorted({word for of in KEYWORDS.values() for keyword in of for word in keyword.split()} | {"and", "the"})


@LAW
@given(chosen=st.lists(st.sampled_from(VOCABULARY), max_size=12))
def test_scores_are_those_of_looking_for_every_keyword_everywhere(table: KeywordTable, chosen: list[str]) -> None:
    text = " ".join(chosen)
    np.testing.assert_allclose(table.score([text])[0][0], reference(text), atol=1e-6)


@LAW
@given(chosen=st.lists(st.sampled_from(VOCABULARY), max_size=8), more=st.sampled_from(VOCABULARY))
def test_a_further_word_never_lowers_a_score(table: KeywordTable, chosen: list[str], more: str) -> None:
    scores, _ = table.score([" ".join(chosen), " ".join([*chosen, more])])
    assert (scores[1] >= scores[0]).all()
