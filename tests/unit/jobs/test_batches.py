"""CSV and Parquet as batches. JSONL is in test_nasty_lines."""

import datetime
import decimal
import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from jobs.errors import BadInput
from jobs.reading.batches import open_batch
from jobs.submit import BatchOptions, submit_batch
from storage.submitting import AcceptedLine, RejectedLine
from tests.unit.jobs.conftest import Read
from tests.unit.jobs.lines import RULES, good, nothing_stored, stored_lines
from worker.runtime import Runtime
from worker.settings import Input

STRING = "Input should be a valid string"
NUL = "holds the character U+0000, which cannot be stored"


def refused(
    number: int, code: str, message: str, custom_id: str | None = None, param: str | None = None
) -> RejectedLine:
    return RejectedLine(number, code, message, custom_id, param)


def csv(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def table(**columns: Any) -> bytes:
    """A Parquet file of these columns."""
    return table_of(pa.table(columns))


def table_of(made: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(made, file)
    return file.getvalue()


@pytest.mark.parametrize("id_column", ["id", "custom_id"])
@pytest.mark.parametrize("text_column", ["text", "query", "question", "prompt"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_go_by_several_names(read: Read, form: str, id_column: str, text_column: str) -> None:
    data = {
        "csv": csv(f"{text_column},{id_column}", "a question,a"),
        "parquet": table(**{text_column: ["a question"], id_column: ["a"]}),
    }
    found = read(data[form], form)
    assert [(line.custom_id, getattr(line, "text", None)) for line in found] == [("a", "a question")]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_of_several_names_the_first_counts_and_the_others_are_kept(read: Read, form: str) -> None:
    data = {
        "csv": csv("custom_id,id,prompt,text", "other,a,say,a question"),
        "parquet": table(custom_id=["other"], id=["a"], prompt=["say"], text=["a question"]),
    }
    assert read(data[form], form) == [
        AcceptedLine(
            1 if form == "parquet" else 2, "a", "a question", {"metadata": {"custom_id": "other", "prompt": "say"}}
        )
    ]


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        (["text"], "id column; name one of its columns id or custom_id (it has: text)"),
        (["id"], "text column; name one of its columns text or query or question or prompt (it has: id)"),
        (["ID", "Text"], "id column; name one of its columns id or custom_id (it has: ID, Text)"),
        ([" id", "text "], "id column; name one of its columns id or custom_id (it has:  id, text )"),
        (["id;text"], "id column; name one of its columns id or custom_id (it has: id;text)"),
    ],
)
def test_a_table_without_its_columns_is_refused(read: Read, form: str, columns: list[str], missing: str) -> None:
    data = {"csv": csv(",".join(columns), "x"), "parquet": table(**{name: ["x"] for name in columns})}
    with pytest.raises(BadInput) as refusal:
        read(data[form], form)
    assert str(refusal.value).endswith(f": has no {missing}")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_is_there_twice_is_refused(read: Read, form: str) -> None:
    """Which of the two is meant cannot be known."""
    two = pa.Table.from_arrays([pa.array(["a"]), pa.array(["one"]), pa.array(["two"])], names=["id", "text", "text"])
    data = {"csv": csv("id,text,text", "a,one,two"), "parquet": table_of(two)}
    with pytest.raises(BadInput, match="text"):
        read(data[form], form)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_without_rows_holds_no_lines(read: Read, form: str) -> None:
    empty = pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    assert read({"csv": csv("id,text"), "parquet": table_of(empty)}[form], form) == []


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_model_column_pins_and_empty_cells_do_not(read: Read, form: str) -> None:
    data = {
        "csv": csv("id,text,model", "a,a question,moe/beta", "b,a question,", "c,a question,moe/nobody"),
        "parquet": table(id=["a", "b", "c"], text=["a question"] * 3, model=["moe/beta", None, "moe/nobody"]),
    }
    first = 2 if form == "csv" else 1
    assert read(data[form], form) == [
        AcceptedLine(first, "a", "a question", None, "beta"),
        good(first + 1, "b"),
        refused(
            first + 2,
            "unknown_model",
            "model: 'moe/nobody' is neither moe/auto nor moe/ with one of alpha, beta, gamma",
            "c",
            "model",
        ),
    ]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_empty_ids_and_texts_are_errors_of_their_rows(read: Read, form: str) -> None:
    ids, texts = ["a", "", " ", "d", "e", "f"], ["a question", "t", "t", "", " \u3000", "a question"]
    data = {
        "csv": csv("id,text", *(f"{i},{t}" for i, t in zip(ids, texts, strict=True))),
        "parquet": table(id=ids, text=texts),
    }
    n = 2 if form == "csv" else 1
    assert read(data[form], form) == [
        good(n, "a"),
        refused(n + 1, "invalid_request", "id: is empty", None, "id"),
        refused(n + 2, "invalid_request", "id: is empty", None, "id"),
        refused(n + 3, "invalid_request", "text: is empty", "d", "text"),
        refused(n + 4, "invalid_request", "text: is empty", "e", "text"),
        good(n + 5, "f"),
    ]


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("place", ["id", "text", "extra"])
def test_a_nul_in_any_cell_is_an_error_of_its_row(client: Runtime, tmp_path: Path, form: str, place: str) -> None:
    row = {"id": "bad", "text": "t", "extra": "x"} | {place: "\x00"}
    columns = {key: ["before" if key == "id" else "t", row[key], "after" if key == "id" else "t"] for key in row}
    data = {
        "csv": csv("id,text,extra", *(",".join(cells) for cells in zip(*columns.values(), strict=True))),
        "parquet": table(**columns),
    }
    path = tmp_path / f"batch.{form}"
    path.write_bytes(data[form])
    run = submit_batch(client, str(path), BatchOptions())
    first, broken, last = stored_lines(client.engine, run.id)
    assert (first[1], first[5], last[1], last[5]) == ("before", None, "after", None)
    assert broken[1:] == (None if place == "id" else "bad", None, None, None, "invalid_character", NUL)


def test_a_nul_inside_a_nested_cell_is_an_error_of_its_row(client: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "batch.parquet"
    path.write_bytes(table(id=["a", "b"], text=["t", "t"], tags=[["x"], ["\x00"]]))
    run = submit_batch(client, str(path), BatchOptions())
    assert [(line[1], line[5]) for line in stored_lines(client.engine, run.id)] == [
        ("a", None),
        ("b", "invalid_character"),
    ]


def test_a_nul_in_a_column_name_is_refused_and_nothing_is_stored(client: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "batch.csv"
    path.write_bytes(csv("id,text,e\x00", "a,t,1"))
    with pytest.raises(BadInput):
        submit_batch(client, str(path), BatchOptions())
    assert nothing_stored(client.engine)


def test_a_connection_survives_whatever_a_cell_holds(client: Runtime, tmp_path: Path) -> None:
    cells = ["\\N", "\\.", "a\tb", "'; DROP TABLE query; --", "=1+1", "\x1b[31m", "\u202e", "{}", "null", "\U0010ffff"]
    path = tmp_path / "batch.csv"
    path.write_bytes(csv("id,text,note", *(f"{cell},{cell},{cell}" for cell in cells)))
    run = submit_batch(client, str(path), BatchOptions())
    assert [line[1:4] for line in stored_lines(client.engine, run.id)] == [
        (cell, cell, {"metadata": {"note": cell}}) for cell in cells
    ]


# CSV


def test_a_csv_keeps_ids_and_further_columns_as_they_are_written(read: Read) -> None:
    found = read(csv("id,text,n,note", "007,12,1.50,", "1e3,true,,\u00e9"), "csv")
    assert found == [
        AcceptedLine(2, "007", "12", {"metadata": {"n": "1.50"}}),
        AcceptedLine(3, "1e3", "true", {"metadata": {"note": "é"}}),
    ]


def test_ragged_rows_are_errors_of_their_own(read: Read) -> None:
    assert read(csv("id,text", "a,a question", "b", "c,t,more", "d,a question"), "csv") == [
        good(2, "a"),
        refused(3, "invalid_csv", "has 1 fields, the header has 2"),
        refused(4, "invalid_csv", "has 3 fields, the header has 2"),
        good(5, "d"),
    ]


def test_quoted_newlines_keep_the_line_numbers(read: Read) -> None:
    data = csv("id,text", '"a\nb","one\n\ntwo"', "c,three", '"d","say ""it"", now"', '"e"', "", "f,a question")
    assert read(data, "csv") == [
        good(2, "a\nb", "one\n\ntwo"),
        good(6, "c", "three"),
        good(7, "d", 'say "it", now'),
        refused(8, "invalid_csv", "has 1 fields, the header has 2"),
        good(10, "f"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("final", [True, False])
def test_line_ends_of_a_csv_make_no_difference(read: Read, end: str, final: bool) -> None:
    data = end.join(("id,text", "a,a question", "", " , ", "b,a question")) + (end if final else "")
    assert read(data.encode(), "csv") == [good(2, "a"), good(5, "b")]


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_may_have_a_mark_and_be_packed(read: Read, prefix: bytes, packed: bool) -> None:
    data = prefix + csv("id,text", "a,a question")
    assert read(gzip.compress(data, mtime=0) if packed else data, "csv") == [good(2, "a")]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_an_empty_csv_holds_no_lines(read: Read, data: bytes) -> None:
    assert read(data, "csv") == []


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (csv("id,text", "a,a question", 'b,"x"y'), "line 3: "),
        (csv("id,text", "a,a question", 'b,"never ends', "c,t"), "line 4: "),
        (csv("id,text", "a,a question") + b"b,\xe9\n", "is not UTF-8 near line"),
        (b"\xff\xfei\x00d\x00", "is UTF-16; batches are UTF-8"),
        (gzip.compress(csv("id,text", "a,t"), mtime=0)[:-3], "the gzip data is damaged or cut off"),
    ],
    ids=["stray quote", "open quote", "Latin-1", "UTF-16", "cut off"],
)
def test_what_is_no_csv_is_refused_and_nothing_is_stored(
    client: Runtime, tmp_path: Path, data: bytes, complaint: str
) -> None:
    path = tmp_path / "batch.csv"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=complaint):
        submit_batch(client, str(path), BatchOptions())
    assert nothing_stored(client.engine)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_huge_cell_is_an_error_of_its_row(read: Read, form: str) -> None:
    """The setting says of every format that a longer line becomes an error line."""
    huge = "x" * 2000
    data = {
        "csv": csv("id,text", "a,a question", f"b,{huge}", "c,a question"),
        "parquet": table(id=["a", "b", "c"], text=["a question", huge, "a question"]),
    }
    n = 2 if form == "csv" else 1
    first, broken, last = read(data[form], form, max_line_bytes=1000)
    assert (first, last) == (good(n, "a"), good(n + 2, "c"))
    assert isinstance(broken, RejectedLine)
    assert (broken.line_no, broken.code, broken.message) == (n + 1, "line_too_long", "is longer than 1000 bytes")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_may_have_as_many_rows_as_the_setting_says(read: Read, form: str) -> None:
    def rows(n: int) -> bytes:
        made = {
            "csv": csv("id,text", *(f"q{i},t" for i in range(n))),
            "parquet": table(id=list(range(n)), text=["t"] * n),
        }
        return made[form]

    assert len(read(rows(3), form, max_lines=3)) == 3
    with pytest.raises(BadInput, match="more than 3 lines"):
        read(rows(4), form, max_lines=3)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(st.sampled_from(["a", ",", '"', "\n", "\r", "é", "\x00", "x" * 50, " "]), max_size=25))
def test_any_text_behind_a_header_is_rows_or_a_documented_error(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(csv("id,text") + "".join(parts).encode())
    try:
        with open_batch(str(path), "csv", RULES, Input(max_line_bytes=100)) as lines:
            found = list(lines)
    except BadInput:
        return
    numbers = [line.line_no for line in found]
    assert numbers == sorted(set(numbers))
    assert all(number > 1 for number in numbers)


# Parquet


def test_numbers_serve_as_ids_in_a_parquet_file(read: Read) -> None:
    assert read(table(id=[1, -2, 2**62], text=["a question"] * 3), "parquet") == [
        good(1, "1"),
        good(2, "-2"),
        good(3, str(2**62)),
    ]


def test_nulls_and_other_types_are_errors_of_their_rows(read: Read) -> None:
    found = read(table(id=["a", None, "c"], text=["a question", "t", None]), "parquet")
    assert found == [
        good(1, "a"),
        refused(2, "invalid_request", f"id: {STRING}", None, "id"),
        refused(3, "invalid_request", f"text: {STRING}", "c", "text"),
    ]
    for odd in ([1.5], [b"a"], [["a"]], [datetime.date(2020, 1, 1)], [{"a": 1}]):
        assert read(table(id=odd, text=["t"]), "parquet") == [
            refused(1, "invalid_request", f"id: {STRING}", None, "id")
        ]
        assert read(table(id=["a"], text=odd), "parquet") == [
            refused(1, "invalid_request", f"text: {STRING}", "a", "text")
        ]
    assert read(table(id=["a"], text=[5]), "parquet") == [refused(1, "invalid_request", f"text: {STRING}", "a", "text")]


def test_truth_values_are_no_ids(read: Read) -> None:
    assert read(table(id=[True], text=["t"]), "parquet") == [refused(1, "invalid_request", f"id: {STRING}", None, "id")]


def test_further_columns_of_any_type_are_stored(client: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "batch.parquet"
    path.write_bytes(
        table_of(
            pa.table(
                {
                    "id": ["a"],
                    "text": ["t"],
                    "when": [datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC).replace(tzinfo=None)],
                    "price": [decimal.Decimal("1.50")],
                    "nan": [float("nan")],
                    "n": [7],
                    "yes": [True],
                    "nothing": pa.array([None], pa.null()),
                    "tags": [["x", "y"]],
                    "inner": [{"day": datetime.date(2020, 1, 1)}],
                    "bytes": [b"\xff"],
                    "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
                }
            )
        )
    )
    run = submit_batch(client, str(path), BatchOptions())
    [(_, custom_id, text, request, *_)] = stored_lines(client.engine, run.id)
    assert (custom_id, text) == ("a", "t")
    assert request == {
        "metadata": {
            "when": "2020-01-02 03:00:00",
            "price": "1.50",
            "nan": None,
            "n": 7,
            "yes": True,
            "tags": ["x", "y"],
            "inner": {"day": "2020-01-01"},
            "bytes": "b'\\xff'",
            "map": [["k", 1]],
        }
    }


def test_bytes_that_are_no_utf8_are_told_and_nothing_is_stored(client: Runtime, tmp_path: Path) -> None:
    """A column that calls itself text may hold anything; Parquet does not check."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in range(4)))
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xffc")])
    path = tmp_path / "batch.parquet"
    path.write_bytes(table_of(pa.table({"id": ["1", "2", "3"], "text": text})))
    with pytest.raises(BadInput, match="UTF-8"):
        submit_batch(client, str(path), BatchOptions())
    assert nothing_stored(client.engine)


@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1", b"PAR1garbagePAR1", b"id,text\na,t\n", b"\x1f\x8b", table(id=["a"], text=["t"])[:-9]],
    ids=["empty", "magic", "garbage", "csv", "gzip", "cut off"],
)
def test_what_is_no_parquet_is_refused(read: Read, data: bytes) -> None:
    with pytest.raises(BadInput, match="is not a Parquet file that can be read"):
        read(data, "parquet")


def test_damage_inside_a_parquet_file_is_refused(read: Read) -> None:
    data = bytearray(table(id=[f"q{n}" for n in range(1000)], text=[f"question {n}" for n in range(1000)]))
    data[100:400] = bytes(300)
    with pytest.raises(BadInput, match="is not a Parquet file that can be read"):
        read(bytes(data), "parquet")


@pytest.mark.parametrize("path", ["missing.parquet", "."])
def test_a_parquet_file_that_cannot_be_opened_is_refused(workdir: Path, path: str) -> None:
    with pytest.raises(BadInput, match=f"^{path}"), open_batch(path, "parquet", RULES, Input()) as lines:
        list(lines)


def test_parquet_from_standard_input_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^Parquet cannot be read from standard input; give a file$"):
        with open_batch("-", "parquet", RULES, Input()) as lines:
            list(lines)


# What was asked is not told here either.
CANARY = "CANARY-7f3a"


@pytest.mark.parametrize(
    "data",
    [
        csv("id,text", f"a,{CANARY},more"),
        csv("id,text", f"a,{CANARY}\x00"),
        csv("id,text", f",{CANARY}"),
        csv("id,text", f'a,"{CANARY}"x'),
        csv("id,text", f'a,"{CANARY}'),
        csv("id,text", f"a,{CANARY}").replace(b"7f3a", b"\xff"),
        csv("id,text,model", f"a,{CANARY},moe/delta"),
        csv("id,text,note", f"a,t,{CANARY}\x00"),
    ],
)
def test_an_error_of_a_csv_never_tells_what_was_asked(client: Runtime, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "batch.csv"
    path.write_bytes(data)
    told = ""
    try:
        run = submit_batch(client, str(path), BatchOptions())
        [line] = stored_lines(client.engine, run.id)
        assert line[5] is not None
        told = line[6]
    except BadInput as refusal:
        told = str(refusal)
    assert told
    assert CANARY not in told
