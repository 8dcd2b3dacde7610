"""JSON Lines of documents."""

import json

import pytest

from experts.documents import Document
from experts.errors import BadDocument
from experts.reading.jsonl import read


def test_every_line_is_a_document_named_by_its_id() -> None:
    data = (
        '\ufeff{"id": "b", "title": "Loans", "text": " Paid back.\\n\\nIn time. "}\r\n\n'
        '{"id": "a/c-d", "text": "One\\u2028line.", "source": {"ignored": true}}\n   \n'
        '{"id": "größe", "title": null, "text": "x\u2028y"}'
    )
    assert read(data.encode(), name="file", where="here") == [
        Document("b", "Loans", "Paid back.\n\nIn time."),
        Document("a/c-d", "c d", "One\u2028line."),
        Document("größe", "größe", "x\u2028y"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Invalid JSON"),
        ("[1]", "object"),
        ("null", "object"),
        ('{"text": "x"}', "id: Field required"),
        ('{"id": "a"}', "text: Field required"),
        ('{"id": 7, "text": "x"}', "id: Input should be a valid string"),
        ('{"id": "", "text": "x"}', "id: String should have at least 1 character"),
        (json.dumps({"id": "i" * 201, "text": "x"}), "id: String should have at most 200 characters"),
        ('{"id": "a", "text": null}', "text: Input should be a valid string"),
        ('{"id": "a", "text": ["x"]}', "text: Input should be a valid string"),
        ('{"id": "a", "title": 7, "text": "x"}', "title: Input should be a valid string"),
        ('{"id": "a", "text": " \\n"}', "holds no text"),
        ('{"id": "a", "text": "a\\u0000b"}', "NUL"),
        ('{"id": "a\\u0000", "text": "x"}', "NUL"),
        ('{"id": "a", "title": "t\\u0000", "text": "x"}', "NUL"),
        ('{"id": "a", "text": "\\ud800"}', "Invalid JSON"),
        ('{"id": "first", "text": "again"}', "the id 'first' is used in line 1 already"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: str, message: str) -> None:
    data = f'{{"id": "first", "text": "fine"}}\n\n{line}\n{{"id": "last", "text": "fine"}}\n'
    with pytest.raises(BadDocument) as caught:
        read(data.encode(), name="file", where="docs.jsonl")
    assert str(caught.value).startswith("docs.jsonl line 3: ")
    assert message in str(caught.value)


def test_an_id_of_the_greatest_length_is_taken() -> None:
    assert read(json.dumps({"id": "i" * 200, "text": "x"}).encode(), name="f", where="here")[0].name == "i" * 200


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_a_file_without_lines_is_refused(data: bytes) -> None:
    with pytest.raises(BadDocument, match=r"^docs\.jsonl: holds no documents$"):
        read(data, name="docs", where="docs.jsonl")


def test_a_file_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(BadDocument, match=r"^docs\.jsonl: is not UTF-8"):
        read(b'{"id": "caf\xe9", "text": "x"}', name="docs", where="docs.jsonl")
