"""Documents from files: every registered kind, and what is no document."""

from pathlib import Path

import pytest

from experts import kinds
from experts.documents import Document
from experts.errors import BadDocument
from experts.reading.files import MAX_FILE_BYTES, read_documents, readable

PAGE = b"""<!doctype html>
<html><head><title>Escrow &amp; interest</title><style>p {color: red}</style><script>alert("no")</script></head>
<body><nav><a href="/">Home</a></nav>
<h1>What escrow is</h1>
<p>An <b>escrow</b> account holds   money.<br>A third party keeps it.</p>
<table><tr><th>Year<th>Rate<tr><td>1<td>4 %</table>
<ul><li>Taxes<li>Insurance</ul>
<footer>Imprint</footer></body></html>"""


FONT = b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"


def pdf(*lines: str) -> bytes:
    """The smallest PDF that shows these lines on one page."""
    shown = " ".join(f"({line}) Tj 0 -14 Td" for line in lines)
    content = f"BT /F1 12 Tf 50 700 Td {shown} ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources " + FONT + b" >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Title (On escrow) >>",
    ]
    file, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size 6 /Root 1 0 R /Info 5 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(file)
    return file + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def one(folder: Path, name: str, data: bytes) -> Document:
    (document,) = read_documents(write(folder, name, data))
    return document


def refusal(folder: Path, name: str, data: bytes) -> str:
    path = write(folder, name, data)
    with pytest.raises(BadDocument) as refused:
        read_documents(path)
    assert str(refused.value).startswith(str(path))
    return str(refused.value)[len(str(path)) :]


def test_markdown_is_titled_by_its_first_heading(tmp_path: Path) -> None:
    found = one(tmp_path, "loans.md", b"\xef\xbb\xbf# On loans \r\n\r\nA loan is lent.\r\rIt is paid back.\n")

    assert found == Document("loans", "On loans", "A loan is lent.\n\nIt is paid back.")


def test_a_text_without_a_heading_is_titled_by_its_name(tmp_path: Path) -> None:
    assert one(tmp_path, "on-short_loans.txt", b"#5 is no heading.") == Document(
        "on-short_loans", "on short loans", "#5 is no heading."
    )


def test_a_page_is_its_running_text(tmp_path: Path) -> None:
    assert one(tmp_path, "page.html", PAGE) == Document(
        "page",
        "Escrow & interest",
        "What escrow is\n\nAn escrow account holds money.\n\nA third party keeps it.\n\n"
        "Year Rate\n\n1 4 %\n\nTaxes\n\nInsurance",
    )


def test_a_page_says_its_own_encoding(tmp_path: Path) -> None:
    page = '<meta charset="iso-8859-1"><title>Tür</title><p>Größe zählt.'.encode("iso-8859-1")

    assert one(tmp_path, "page.htm", page) == Document("page", "Tür", "Größe zählt.")


def test_a_page_nested_beyond_measure_is_read_or_refused_but_never_worse(tmp_path: Path) -> None:
    assert one(tmp_path, "deep.html", b"<div>" * 20_000 + b"at the bottom").text == "at the bottom"


def test_a_page_the_parser_gives_up_on_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "odd.html", b"<![foo[x]]>hello") == ": this HTML cannot be read (ParserRejectedMarkup)"


def test_a_pdf_is_read_with_its_lines_joined(tmp_path: Path) -> None:
    found = one(tmp_path, "escrow.pdf", pdf("An escrow account holds", "money for a while.", "It earns inter-", "est."))

    assert found == Document("escrow", "On escrow", "An escrow account holds money for a while.\nIt earns interest.")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"%PDF-1.4 broken", ": this PDF cannot be read ("),
        (b"", ": this PDF cannot be read ("),
        (pdf(), ": this PDF holds no text; pages that are pictures need text recognition first"),
    ],
    ids=["broken", "empty", "without text"],
)
def test_a_pdf_without_text_is_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    assert refusal(tmp_path, "broken.pdf", data).startswith(complaint)


def test_lines_of_json_are_documents_of_their_own(tmp_path: Path) -> None:
    lines = b'{"id": "a", "title": "First", "text": "One."}\n\n{"id": "b/c-d", "text": "Two.", "source": "x"}\n'

    assert read_documents(write(tmp_path, "many.jsonl", lines)) == [
        Document("a", "First", "One."),
        Document("b/c-d", "c d", "Two."),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"id": "b"}', " line 2: text: Field required"),
        (b'{"id": 5, "text": "x"}', " line 2: id: Input should be a valid string"),
        (b'{"id": "", "text": "x"}', " line 2: id: String should have at least 1 character"),
        (b'{"id": "a", "text": "x"}', " line 2: the id 'a' is used in line 1 already"),
        (b'{"id": "b", "text": "  "}', " line 2: holds no text"),
        (b'{"id": "b", "text": "a\\u0000b"}', " line 2: holds NUL characters; this is not text"),
        (b"not json", " line 2: Invalid JSON: "),
    ],
)
def test_a_bad_line_of_json_is_named_and_nothing_is_read(tmp_path: Path, line: bytes, complaint: str) -> None:
    assert refusal(tmp_path, "d.jsonl", b'{"id": "a", "text": "x"}\n' + line + b"\n").startswith(complaint)


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("a.docx", b"x", ": documents are .md, .txt, .html, .htm, .pdf, .jsonl files"),
        ("a.md", b"", ": holds no text"),
        ("a.md", b"# Only a title\n", ": holds no text"),
        ("a.txt", b"caf\xe9", ": is not UTF-8: unexpected end of data at byte 3"),
        ("a.txt", b"a\x00b", ": holds NUL characters; this is not text"),
        ("a.html", b"<p> </p>", ": holds no text"),
        ("a.jsonl", b"\n", ": holds no documents"),
    ],
)
def test_what_is_no_document_is_refused(tmp_path: Path, name: str, data: bytes, complaint: str) -> None:
    assert refusal(tmp_path, name, data) == complaint


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDocument, match="No such file"):
        read_documents(tmp_path / "none.md")


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(BadDocument, match="larger than 64 MiB"):
        read_documents(path)


def test_every_registered_kind_is_readable_in_any_case(tmp_path: Path) -> None:
    assert all(readable(tmp_path / f"x{kind.upper()}") for kind in kinds.DOCUMENTS)
    assert not readable(tmp_path / "x.docx")
