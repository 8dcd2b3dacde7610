"""Reading labelled queries: every bad line is named, every good one comes out whole."""

import gzip
import io
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any, cast

import pytest

from jobs.errors import BadInput
from jobs.reading.labelled import Columns, LabelledRow, read_labelled

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queries.jsonl"


def read(file: Path, data: bytes | str, **columns: Any) -> list[LabelledRow]:
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_labelled(str(file), Columns(**columns))


def line(**fields: Any) -> str:
    return json.dumps({"text": "a question", "label": "alpha"} | fields) + "\n"


def test_a_line_is_a_text_with_its_label(file: Path) -> None:
    assert read(file, line() + line(text="  another\n", label="beta", more=[1])) == [
        LabelledRow(1, "a question", "alpha", None, None),
        LabelledRow(2, "  another\n", "beta", None, None),
    ]


def test_columns_may_have_any_name(file: Path) -> None:
    row = {"q": "what?", "intent": "alpha", "part": "train", "lang": "en"}

    assert read(file, json.dumps(row), text="q", label="intent", split="part", group="lang") == [
        LabelledRow(1, "what?", "alpha", "train", "en")
    ]


@pytest.mark.parametrize(("given", "group"), [("en", "en"), (3, "3"), (None, "None"), (True, "True"), ([1], "[1]")])
def test_a_group_is_whatever_it_says(file: Path, given: Any, group: str) -> None:
    [row] = read(file, line(lang=given), group="lang")
    assert row.group == group


def test_a_line_may_lack_its_group(file: Path) -> None:
    [row] = read(file, line(), group="lang")
    assert row.group == "None"


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "read_as"), [(0, "0"), (17, "17"), (-1, "-1"), (10**30, "1" + "0" * 30)])
def test_numbers_are_labels(file: Path, label: int, read_as: str) -> None:
    [row] = read(file, line(label=label))
    assert row.label == read_as


@pytest.mark.parametrize("label", [None, "oos"])
def test_a_query_of_no_label_has_null_or_the_outside_label(file: Path, label: str | None) -> None:
    [row] = read(file, line(label=label), outside="oos")
    assert row.label is None


def test_the_outside_label_may_be_a_number(file: Path) -> None:
    rows = read(file, line(label=42) + line(label=4), outside="42")
    assert [row.label for row in rows] == [None, "4"]


def test_without_an_outside_label_every_word_is_a_label(file: Path) -> None:
    rows = read(file, line(label="oos") + line(label="None") + line(label=" alpha "))
    assert [row.label for row in rows] == ["oos", "None", " alpha "]


# --- bad lines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("not json", "no JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"text": "cut o', "no JSON (Invalid control character at: line 1 column 16 (char 15))"),
        ("{} {}", "no JSON (Extra data: line 1 column 4 (char 3))"),
        ("[1]", "must be an object, is list"),
        ('"text"', "must be an object, is str"),
        ("null", "must be an object, is NoneType"),
        ("NaN", "must be an object, is float"),
        ('{"text": "a"}', "there is no field 'label'; there are: text"),
        ('{"query": "a", "label": "b"}', "there is no field 'text'; there are: query, label"),
        ("{}", "there is no field 'text'; there are: none"),
        ('{"text": "", "label": "b"}', "'text' is empty"),
        ('{"text": " \\n\\u3000", "label": "b"}', "'text' is empty"),
        (
            '{"text": "a", "label": ""}',
            "'label' is empty; a query of no label has null, or the outside label",
        ),
        (
            '{"text": "a", "label": " \\t"}',
            "'label' is empty; a query of no label has null, or the outside label",
        ),
        ('{"text": null, "label": "b"}', "'text' must be a string, is NoneType"),
        ('{"text": ["a"], "label": "b"}', "'text' must be a string, is list"),
        ('{"text": true, "label": "b"}', "'text' must be a string, is bool"),
        ('{"text": "a", "label": false}', "'label' must be a string, is bool"),
        ('{"text": "a", "label": 1.5}', "'label' must be a string, is float"),
        ('{"text": "a", "label": ["b"]}', "'label' must be a string, is list"),
        ('{"text": "a", "label": {"b": 1}}', "'label' must be a string, is dict"),
    ],
)
def test_a_bad_line_is_named(file: Path, bad: str, said: str) -> None:
    """By its number in the file, in which blank lines count."""
    with pytest.raises(BadInput) as raised:
        read(file, f"{line()}\n{bad}\n{line()}")

    assert str(raised.value) == f"{file}, line 3: {said}"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b'{"text": "\xff", "label": "b"}', "no JSON ('utf-8' codec can't decode byte 0xff"),
        (b"[" * 200_000, "no JSON ("),
        (b'{"text": "a", "label": ' + b"9" * 5000 + b"}", "no JSON (Exceeds the limit"),
        (b"\x00\x00", "no JSON ("),
    ],
    ids=["no UTF-8", "too deep", "a number too long", "zeros"],
)
def test_a_line_no_reader_can_take_is_named(file: Path, bad: bytes, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        read(file, line().encode() + bad + b"\n")

    assert str(raised.value).startswith(f"{file}, line 2: {said}")


@pytest.mark.parametrize(("split", "said"), [(None, "is NoneType"), ([1], "is list")])
def test_a_split_that_is_no_word_is_named(file: Path, split: Any, said: str) -> None:
    with pytest.raises(BadInput, match=rf"line 1: 'split' must be a string, {said}$"):
        read(file, line(split=split), split="split")


def test_a_line_without_its_split_is_named(file: Path) -> None:
    with pytest.raises(BadInput, match=r"line 2: there is no field 'split'; there are: text, label$"):
        read(file, line(split="train") + line(), split="split")


def test_a_line_longer_than_a_mebibyte_is_named(file: Path) -> None:
    room = MIB - len(line(text=""))
    [longest] = read(file, line(text="x" * room))
    assert len(longest.text) == room

    with pytest.raises(BadInput, match=r"line 2: longer than 1,048,576 bytes$"):
        read(file, line() + line(text="x" * (room + 1)))


def test_no_more_of_a_too_long_line_is_read_than_shows_it(file: Path) -> None:
    packed = gzip.compress(b"x" * (64 * MIB), mtime=0)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=r"line 1: longer than 1,048,576 bytes$"):
            read(file, packed)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


# --- good lines of bad texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "read_as"),
    [
        (r"lone \ud800 one", "lone ? one"),
        (r"a pair \ud83d\ude00", "a pair \N{GRINNING FACE}"),
        (r"before\u0000after", "before after"),
        ("a\u2028b\u0085c", "a\u2028b\u0085c"),
        ("مرحبا 你好", "مرحبا 你好"),
    ],
    ids=["lone surrogate", "surrogate pair", "NUL", "line separators", "scripts"],
)
def test_a_text_comes_out_as_it_can_be_stored(file: Path, given: str, read_as: str) -> None:
    [row] = read(file, f'{{"text": "{given}", "label": "alpha"}}\n')
    assert row.text == read_as


@pytest.mark.parametrize("field", ["label", "split", "group"])
def test_labels_splits_and_groups_come_out_as_they_can_be_written(file: Path, field: str) -> None:
    row = json.loads(line(split="train", group="en")) | {field: "PLACE"}
    [found] = read(file, json.dumps(row).replace("PLACE", r"a\ud800b"), split="split", group="group")

    assert getattr(found, field) == "a?b"


# --- files --------------------------------------------------------------------------------------------------------


def test_blank_lines_are_no_lines_but_count(file: Path) -> None:
    rows = read(file, f"\n \t\r\n{line()}\n\n{line()}\n")
    assert [row.line for row in rows] == [3, 6]


@pytest.mark.parametrize(
    "data",
    [
        line().rstrip("\n").encode(),
        line().replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + line().encode(),
        gzip.compress(line().encode(), mtime=0),
    ],
    ids=["no last line end", "CRLF", "mark", "gzip"],
)
def test_a_file_may_come_in_every_usual_form(file: Path, data: bytes) -> None:
    assert read(file, data) == [LabelledRow(1, "a question", "alpha", None, None)]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(cast(Any, io.BytesIO((line() * 2).encode())))))
    assert [row.line for row in read_labelled("-", Columns())] == [1, 2]


@pytest.mark.parametrize("data", [b"", b"\n \n\r\n", gzip.compress(b"")], ids=["empty", "blank", "empty gzip"])
def test_a_file_without_queries_is_told(file: Path, data: bytes) -> None:
    with pytest.raises(BadInput) as raised:
        read(file, data)
    assert str(raised.value) == f"{file} holds no queries"


def test_a_gzip_file_that_was_cut_off_is_told(file: Path) -> None:
    with pytest.raises(BadInput, match=r"the gzip data is damaged or cut off"):
        read(file, gzip.compress(line().encode() * 100, mtime=0)[:-9])


def test_a_file_that_is_not_there_is_told(file: Path) -> None:
    with pytest.raises(BadInput) as raised:
        read_labelled(str(file), Columns())
    assert str(raised.value) == f"{file}: No such file or directory"


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as raised:
        read_labelled(str(tmp_path), Columns())
    assert str(raised.value) == f"{tmp_path} is a folder; give a file of queries"
