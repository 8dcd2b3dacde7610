"""Training data in every format there is, and every way a row can be bad."""

import json
from pathlib import Path

import pytest

from experts.adapters.data import FORMATS, Example, check_enough, read_examples, split
from experts.adapters.lines import MAX_LINE_BYTES
from experts.errors import CannotTrain
from experts.language.prompting import Turn

GOOD = b'{"question": "Q", "answer": "A"}'
ASKED = (Turn("user", "Q"),)


def rows(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def messages(*turns: tuple[str, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"question": "Q", "answer": "A"}, ASKED),
        ({"prompt": " Q ", "completion": "A\r\n"}, ASKED),
        ({"instruction": "Q", "output": "A"}, ASKED),
        ({"instruction": "Q", "input": "", "output": "A"}, ASKED),
        ({"instruction": "Q", "input": "with this", "output": "A"}, (Turn("user", "Q\n\nwith this"),)),
        (messages(("user", "Q"), ("assistant", "A")), ASKED),
        (messages(("user", [{"type": "text", "text": "Q"}]), ("assistant", "A")), ASKED),
        (messages(("developer", "S"), ("user", "Q"), ("assistant", "A")), (Turn("system", "S"), *ASKED)),
        (
            messages(("user", "q"), ("assistant", "a"), ("user", "Q"), ("assistant", "A")),
            (Turn("user", "q"), Turn("assistant", "a"), *ASKED),
        ),
    ],
)
def test_a_row_shows_its_format_by_its_keys(row: object, prompt: tuple[Turn, ...]) -> None:
    read = read_examples(rows(row))

    assert read.examples == [Example(prompt, "A", 1)]
    assert read.bad == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"question": "Q", "answer": "  "}', "answer: is empty"),
        (b'{"question": "Q", "answer": 7}', "answer: is not a text"),
        (b'{"question": "Q", "answer": null}', "answer: is not a text"),
        (b'{"question": "Q", "answer": "a\\u0000"}', "answer: holds a NUL character"),
        (b'{"question": "Q\xff", "answer": "a"}', "is not JSON"),
        (b'{"question": "Q", "answer": "\\ud800"}', "is not JSON"),
        (b'{"question": "Q"', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'["Q", "A"]', "is not a JSON object but a list"),
        (b'{"ask": "Q"}', "has none of the sets of keys"),
        (b'{"messages": []}', "is not a list of messages"),
        (b'{"messages": ["Q"]}', "messages, number 1: is not an object"),
        (json.dumps(messages(("user", "Q"))).encode(), "the last one is the user's"),
        (json.dumps(messages(("assistant", "A"))).encode(), "no user's message stands before"),
        (json.dumps(messages(("tool", "Q"), ("assistant", "A"))).encode(), "'tool' is not one of"),
        (json.dumps(messages(("user", [{"type": "image_url"}]), ("assistant", "A"))).encode(), "not text"),
        (b'{"question": "Q", "answer": "' + b"a" * MAX_LINE_BYTES + b'"}', "is longer than"),
    ],
)
def test_a_bad_row_is_reported_with_its_line_and_harms_no_other(line: bytes, reason: str) -> None:
    read = read_examples([GOOD, b"", line, b'{"question": "Q2", "answer": "A2"}\n'])

    assert [example.line for example in read.examples] == [1, 4]
    assert [bad.line for bad in read.bad] == [3]
    assert reason in read.bad[0].reason


def test_a_named_format_takes_no_other() -> None:
    read = read_examples(rows({"question": "Q", "answer": "A"}, {"prompt": "Q", "completion": "A"}), "completion")

    assert [(bad.line, bad.reason) for bad in read.bad] == [(1, "prompt: is missing")]
    assert len(read.examples) == 1


def test_a_row_that_repeats_another_is_counted_and_kept_once() -> None:
    read = read_examples([GOOD, b'{"prompt": "Q", "completion": "A"}', b'{"question": "Q", "answer": "B"}'])

    assert [example.answer for example in read.examples] == ["A", "B"]
    assert (read.duplicates, read.rows) == (1, 3)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_csv_is_known_by_its_first_line(end: bytes) -> None:
    lines = [b"\xef\xbb\xbfTopic,Question,Answer", b't,"Q, ""q""",A', b't,"two', b'lines",A2', b"", b",Q3,A3"]

    read = read_examples([line + end for line in lines])

    assert [(e.prompt[0].content, e.answer, e.line) for e in read.examples] == [
        ('Q, "q"', "A", 2),
        ("two\nlines", "A2", 3),
        ("Q3", "A3", 6),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"Q", "has 1 values under 2 columns"),
        (b"Q,A,B", "has 3 values under 2 columns"),
        (b"Q,", "answer: is empty"),
        (b"Q,\xff", "answer: is not UTF-8"),
        (b"Q,a\0", "answer: holds a NUL character"),
        (b'Q,"a" b', "is not CSV"),
        (b"Q," + b"a," * MAX_LINE_BYTES, "is longer than"),
    ],
)
def test_a_bad_row_of_csv_is_reported_with_its_line_and_harms_no_other(line: bytes, reason: str) -> None:
    read = read_examples([b"question,answer", line, b"Q2,A2"])

    assert [(bad.line, reason in bad.reason) for bad in read.bad] == [(2, True)]
    assert [example.line for example in read.examples] == [3]


def test_a_quote_that_never_ends_is_reported_where_it_began() -> None:
    read = read_examples([b"question,answer", b"Q,A", b'"Q2,A2', b"Q3,A3"])

    assert [bad.line for bad in read.bad] == [3]
    assert len(read.examples) == 1


def test_csv_without_the_columns_is_refused_by_its_header() -> None:
    read = read_examples([b"a,b", b"Q,A"])

    assert read.examples == []
    assert "question and answer" in read.bad[0].reason


def test_a_file_is_read_as_its_lines_are(tmp_path: Path) -> None:
    """Even one with a line that would not fit into memory, were it longer still."""
    long = b'{"question": "' + b"q" * (3 * MAX_LINE_BYTES)
    lines = [b"\xef\xbb\xbf" + GOOD, long, b'{"question": "Z", "answer": "z"}']
    file = tmp_path / "train.jsonl"
    file.write_bytes(b"\n".join(lines))

    read = read_examples(file)

    assert read == read_examples(lines)
    assert ([e.line for e in read.examples], [b.line for b in read.bad]) == ([1, 3], [2])


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_nothing_has_no_examples(format: str) -> None:
    assert read_examples([b"", b" \n"], format).rows == 0


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(CannotTrain, match="No such file"):
        read_examples(Path("/nowhere/train.jsonl"))
    with pytest.raises(CannotTrain, match="unknown format 'xml'"):
        read_examples([GOOD], "xml")


def test_too_few_examples_are_refused_with_the_number_needed() -> None:
    examples = [Example(ASKED, "A", line) for line in range(20)]

    check_enough(examples)
    with pytest.raises(CannotTrain, match=r"^19 .* at least 20"):
        check_enough(examples[1:])


def test_the_same_prompt_is_never_on_both_sides_of_a_split() -> None:
    examples = [
        Example((Turn("user", text),), answer, 0)
        for n in range(60)
        for text in (f"q {n}", f" Q  {n}")
        for answer in "ab"
    ]

    train, validation = split(examples, 0.2, seed=1)

    def prompts(side: list[Example]) -> set[str]:
        return {" ".join(example.prompt[0].content.lower().split()) for example in side}

    assert len(prompts(validation)) == 12
    assert not prompts(train) & prompts(validation)
    assert len(train) + len(validation) == len(examples)


def test_a_split_depends_on_the_seed_alone_and_hardly_on_new_examples() -> None:
    examples = [Example((Turn("user", f"q {n}"),), "a", n) for n in range(200)]

    first = {example.line for example in split(examples[:190], seed=1)[1]}

    assert {example.line for example in split(examples[:190][::-1], seed=1)[1]} == first
    assert {example.line for example in split(examples[:190], seed=2)[1]} != first
    assert len(first & {example.line for example in split(examples, seed=1)[1]}) >= 15


def test_both_sides_of_a_split_have_something() -> None:
    two = [Example((Turn("user", text),), "a", 0) for text in "xy"]

    assert [len(side) for side in split(two, 0.01)] == [1, 1]
    assert [len(side) for side in split(two, 0.99)] == [1, 1]
    with pytest.raises(CannotTrain, match="two different prompts"):
        split(two[:1])
    with pytest.raises(CannotTrain, match="between 0 and 1"):
        split(two, 1.0)
