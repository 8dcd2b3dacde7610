"""What kind of query a text is, by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.analysis import QueryAnalysis, analyse
from tests.contracts.samples import LAW, hostile


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Summarise this article for me", "summarization"),
        ("tldr of the plot", "summarization"),
        ("give me the key points and compare them", "summarization"),
        ("classify the sentiment of this review", "classification"),
        ("is this a positive statement", "classification"),
        ("which topic has this sentence", "classification"),
        ("Write a poem", "generation"),
        ("please translate hello", "generation"),
        ("who can write a poem", "question_answering"),
        ("compare two loans", "analysis"),
        ("why is the sky blue", "analysis"),
        ("What is the difference between TCP and UDP?", "analysis"),
        ("capital of France", "question_answering"),
        ("whyever", "question_answering"),
        ("", "question_answering"),
    ],
)
def test_the_first_rule_that_matches_names_the_task(text: str, task: str) -> None:
    assert analyse(text).task == task


@pytest.mark.parametrize(
    ("text", "has_code"),
    [
        ("```\nx\n```", True),
        ("def f(x): return x", True),
        ("what does print() do", True),
        ("for (i = 0; i < n; i++) {", True),
        ("SELECT name FROM users;", True),
        ("if (a == b)", True),
        ("<b>bold</b>", True),
        ("#include <stdio.h>;", True),
        ("I class this as a return from import duty", False),
        ("how do I select a bank", False),
        ("a fifty-fifty chance!", False),
    ],
)
def test_code_is_seen(text: str, has_code: bool) -> None:
    assert analyse(text).has_code is has_code


@pytest.mark.parametrize(
    ("text", "has_context"),
    [
        ("Based on the table, who won?", True),
        ("Translate the following: bonjour", True),
        ("what does this contract say", True),
        ("Review: " + "word " * 27, True),
        ("Review: " + "word " * 20, False),
        ("who won the cup", False),
        ("belowground", False),
    ],
)
def test_context_in_the_query_is_seen(text: str, has_context: bool) -> None:
    assert analyse(text).has_context is has_context


@pytest.mark.parametrize(
    ("text", "thirds"),
    [
        ("hello", 1 / 60),
        (" ".join(["word"] * 30), 30 / 60),
        (" ".join(["word"] * 90), 1),
        ("7 8 9", 3 / 60 + 3 / 6),
        ("1 2 3 4 5 6 7 8", 8 / 60 + 1),
        ("NASA and node.js and snake_case", 5 / 60 + 3 / 6),
        ("first do it then stop", 5 / 60 + 2 / 4),
        ("if unless while because both then", 6 / 60 + 1),
    ],
)
def test_complexity_is_length_detail_and_steps_in_equal_parts(text: str, thirds: float) -> None:
    assert analyse(text).complexity == pytest.approx(thirds / 3)


@LAW
@given(text=st.text(max_size=300))
def test_complexity_is_a_share_and_analysis_repeats_itself(text: str) -> None:
    found = analyse(text)
    assert 0 <= found.complexity <= 1
    assert analyse(text) == found


@hostile
def test_only_the_first_two_thousand_characters_count(text: str) -> None:
    assert analyse(text) == analyse(text[:2000])
    assert 0 <= analyse(text).complexity <= 1


def test_it_is_stored_with_three_decimals() -> None:
    assert QueryAnalysis("analysis", 2 / 3, True, False).as_dict() == {
        "task": "analysis",
        "complexity": 0.667,
        "has_context": True,
        "has_code": False,
    }
