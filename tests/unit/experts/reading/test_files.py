"""Files of every registered kind, and what all their readers have in common."""

from pathlib import Path

import pytest

from experts import kinds
from experts.documents import Document
from experts.errors import BadDocument
from experts.reading import files
from experts.reading.files import read_documents, readable
from tests.contracts.samples import HOSTILE

KINDS = sorted(kinds.DOCUMENTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loans.md", True),
        ("loans.TXT", True),
        ("loans.v2.Html", True),
        ("loans.htm", True),
        ("loans.pdf", True),
        ("loans.jsonl", True),
        ("loans", False),
        (".md", False),
        ("loans.md.gz", False),
        ("loans.docx", False),
        ("loans.json", False),
    ],
)
def test_the_end_of_a_name_says_whether_it_can_be_read(name: str, expected: bool) -> None:
    assert readable(Path(name)) is expected


def test_a_file_of_another_kind_is_refused_with_the_kinds_there_are(tmp_path: Path) -> None:
    path = tmp_path / "loans.docx"
    path.write_text("A loan.")
    with pytest.raises(BadDocument) as caught:
        read_documents(path)
    assert str(caught.value) == f"{path}: documents are {', '.join(kinds.DOCUMENTS)} files"


def test_a_document_is_named_as_its_file_unless_a_name_is_given(tmp_path: Path) -> None:
    path = tmp_path / "personal-loans.v2.md"
    path.write_text("Paid back.")
    assert read_documents(path) == [Document("personal-loans.v2", "personal loans.v2", "Paid back.")]
    assert read_documents(path, name="bank/loans") == [Document("bank/loans", "loans", "Paid back.")]


def test_a_file_at_the_size_limit_is_read_and_one_byte_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 64)
    path = tmp_path / "loans.md"
    path.write_text("x" * 64)
    assert read_documents(path)[0].text == "x" * 64
    path.write_text("x" * 65)
    with pytest.raises(BadDocument, match="larger than"):
        read_documents(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_and_a_folder_are_refused_by_their_path(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"folder{kind}").mkdir()
    for path in (tmp_path / f"missing{kind}", tmp_path / f"folder{kind}"):
        with pytest.raises(BadDocument, match=path.name):
            read_documents(path)


DAMAGED = {
    "empty": b"",
    "space": b" \r\n\t\n",
    "NUL": b"a\x00b",
    "UTF-16": "A loan.".encode("utf-16"),
    "Latin-1": b"caf\xe9",
    "surrogates": b"\xed\xa0\x80",
    "overlong": b"\xc0\xaf",
    "random": bytes(range(256)) * 8,
    "unfinished PDF": b"%PDF-1.7\n1 0 obj\n<<",
    "unfinished HTML": b"<html><![x[<p>text<!-- ",
    "deep HTML": b"<div>" * 2_000 + b"text",
    "deep JSON": b'{"id": "a", "text": ' + b"[" * 100_000,
    "surrogates of JSON": b'{"id": "a", "text": "\\ud800"}',
    "numbers of HTML": b"<title>&#xD800;</title><p>a&#0;b &#xD800; &#x110000; &#1;</p>",
    **{name: text.encode() for name, text in HOSTILE.items()},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("kind", KINDS)
def test_any_bytes_become_documents_that_can_be_stored_or_an_error_that_names_the_file(
    tmp_path: Path, kind: str, content: bytes
) -> None:
    path = tmp_path / f"file{kind}"
    path.write_bytes(content)
    documents: list[Document] = []
    refusal = ""
    try:
        documents = read_documents(path)
    except BadDocument as error:
        refusal = str(error)
    assert documents or refusal.startswith(str(path))
    for document in documents:
        for part in (document.name, document.title, document.text):
            assert part.strip()
            assert "\x00" not in part
            assert part.encode().decode() == part
