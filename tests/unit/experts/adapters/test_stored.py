import re

import pytest

from experts.adapters.data import Example
from experts.adapters.stored import from_lines, to_line
from experts.errors import CannotTrain
from experts.language.prompting import Turn

CHAT = Example((Turn("system", "Be brief."), Turn("user", 'say "ä\n\u2028"')), "ä\n\\", 7)
PLAIN = Example((Turn("user", "why?"),), "because", 1)
GOOD = to_line(PLAIN)


def test_an_example_comes_back_as_it_was_stored() -> None:
    assert from_lines([to_line(CHAT), to_line(PLAIN)]) == [CHAT, PLAIN]
    assert from_lines([]) == []


def test_an_example_is_one_line_whatever_it_says() -> None:
    assert to_line(CHAT).count(b"\n") == 1
    assert to_line(CHAT).endswith(b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        GOOD[:-8],
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"prompt": 5, "answer": "a", "line": 1}',
        b'{"prompt": [5], "answer": "a", "line": 1}',
        b'{"prompt": [{"role": "user"}], "answer": "a", "line": 1}',
        b'{"prompt": [{"role": "user", "content": "q"}], "line": 1}',
        b'{"prompt": [{"role": "user", "content": "q"}], "answer": "a"}',
    ],
)
def test_a_line_that_is_no_example_is_named(line: bytes) -> None:
    with pytest.raises(CannotTrain, match=re.escape("line 2 of the stored examples is no example")):
        from_lines([GOOD, line, GOOD])


@pytest.mark.parametrize(
    "line",
    [
        b'{"prompt": [{"role": "user", "content": 5}], "answer": "a", "line": 1}',
        b'{"prompt": [{"role": 5, "content": "q"}], "answer": "a", "line": 1}',
        b'{"prompt": [{"role": "user", "content": "q"}], "answer": null, "line": 1}',
        b'{"prompt": [{"role": "user", "content": "q"}], "answer": ["a"], "line": 1}',
        b'{"prompt": [{"role": "user", "content": "q"}], "answer": "a", "line": "one"}',
        b'{"prompt": [], "answer": "a", "line": 1}',
    ],
)
def test_a_value_of_the_wrong_kind_makes_a_line_no_example(line: bytes) -> None:
    with pytest.raises(CannotTrain, match=re.escape("line 2 of the stored examples is no example")):
        from_lines([GOOD, line])
