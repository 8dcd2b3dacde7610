"""Markdown and plain text."""

import pytest

from experts.documents import Document
from experts.errors import BadDocument
from experts.reading.text import decode, read


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfA loan.", "A loan."),
        (b"One.\r\nTwo.\r\n", "One.\nTwo.\n"),
        (b"One.\rTwo.", "One.\nTwo."),
        ("Größe 👍 שלום".encode(), "Größe 👍 שלום"),
        ("one\u2028still\x0bone\x85still".encode(), "one\u2028still\x0bone\x85still"),
        (b"", ""),
    ],
    ids=["a byte order mark", "Windows lines", "old Macintosh lines", "other scripts", "other separators", "nothing"],
)
def test_bytes_become_text_with_one_kind_of_line_end(data: bytes, text: str) -> None:
    assert decode(data, "here") == text


@pytest.mark.parametrize(
    ("data", "at"), [(b"caf\xe9", 3), (b"\xff\xfeA\x00", 0), (b"ab\xed\xa0\x80", 2), (b"\xc0\xaf", 0)]
)
def test_bytes_that_are_not_utf_8_are_refused_with_their_place(data: bytes, at: int) -> None:
    with pytest.raises(BadDocument, match=rf"^loans\.md: is not UTF-8: .* at byte {at}$"):
        decode(data, "loans.md")


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        ("# Loans\n\nPaid back.", "Loans", "Paid back."),
        ("#   Loans  \nPaid back.", "Loans", "Paid back."),
        ("#\tLoans\r\nPaid back.", "Loans", "Paid back."),
        ("\n\n# Loans\nPaid back.", "Loans", "Paid back."),
        ("Paid back.\n# Loans", "personal loans", "Paid back.\n# Loans"),
        ("## Kinds\n\nPaid back.", "personal loans", "## Kinds\n\nPaid back."),
        ("#loans are paid back.", "personal loans", "#loans are paid back."),
        ("# One\n# Two\nPaid.", "One", "# Two\nPaid."),
        ("#\n\nPaid back.", "personal loans", "#\n\nPaid back."),
        ("# \nPaid back.", "personal loans", "# \nPaid back."),
    ],
)
def test_a_first_heading_is_the_title_else_the_name(text: str, title: str, body: str) -> None:
    assert read(text.encode(), name="personal-loans", where="here") == [Document("personal-loans", title, body)]


@pytest.mark.parametrize("text", ["", " \n\t\n", "# Only a title\n", "# Only a title"])
def test_a_file_without_a_body_is_refused(text: str) -> None:
    with pytest.raises(BadDocument, match=r"^loans\.md: holds no text$"):
        read(text.encode(), name="loans", where="loans.md")
