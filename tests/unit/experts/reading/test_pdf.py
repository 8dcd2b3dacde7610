"""PDF files, written here object by object."""

import io

import pytest
from pypdf import PdfReader, PdfWriter

from experts.documents import Document
from experts.errors import BadDocument
from experts.reading.pdf import read


def pdf(*pages: list[str], title: str | None = None) -> bytes:
    """A file with these lines on its pages."""
    first = 4
    kids = " ".join(f"{first + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        drawn = " ".join(f"({line}) Tj 0 -14 Td" for line in lines)
        stream = f"BT /F1 12 Tf 72 720 Td {drawn} ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {first + 2 * number + 1} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    info = ""
    if title is not None:
        objects.append(f"<< /Title ({title}) >>")
        info = f"/Info {len(objects)} 0 R "
    data, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    data += f"xref\n0 {size}\n0000000000 65535 f \n{table}"
    return (data + f"trailer\n<< /Size {size} {info}/Root 1 0 R >>\nstartxref\n{data.index('xref')}\n%%EOF\n").encode()


def encrypted(password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["A secret."]))))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_the_text_of_all_pages_is_one_document_with_the_files_title() -> None:
    data = pdf(["A loan is paid back."], ["It bears interest."], title="All about loans")
    assert read(data, name="loans", where="here") == [
        Document("loans", "All about loans", "A loan is paid back.\n\nIt bears interest.")
    ]


@pytest.mark.parametrize("title", [None, "", "  "])
def test_a_file_without_a_title_is_titled_by_its_name(title: str | None) -> None:
    assert read(pdf(["Text."], title=title), name="bank/my-loans", where="here")[0].title == "my loans"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["A loan is", "paid back."], "A loan is paid back."),
        (["Interest is pay-", "able monthly."], "Interest is payable monthly."),
        (["One ends.", "Two ends."], "One ends.\nTwo ends."),
        (["Is it so?", "Yes!", "Kinds:", "fixed"], "Is it so?\nYes!\nKinds:\nfixed"),
        (["The Franco-", "Prussian war"], "The Franco- Prussian war"),
    ],
)
def test_lines_that_go_on_are_put_together_again(lines: list[str], text: str) -> None:
    assert read(pdf(lines), name="loans", where="here")[0].text == text


def test_pages_without_text_are_passed_over() -> None:
    assert read(pdf(["One."], [], ["Two."]), name="loans", where="here")[0].text == "One.\n\nTwo."


def test_a_file_of_pictures_says_what_it_needs() -> None:
    with pytest.raises(BadDocument, match=r"^scan\.pdf: .*text recognition"):
        read(pdf([], []), name="scan", where="scan.pdf")


def test_a_file_that_opens_without_a_password_is_read() -> None:
    assert read(encrypted(""), name="loans", where="here")[0].text == "A secret."


def test_a_file_with_a_password_is_refused() -> None:
    with pytest.raises(BadDocument, match=r"^secret\.pdf: this PDF is encrypted$"):
        read(encrypted("open"), name="secret", where="secret.pdf")


@pytest.mark.parametrize(
    "data",
    [b"", b"%PDF-1.7", b"no PDF", pdf(["Text."])[:200], b"\x00" * 500],
    ids=["empty", "head", "text", "cut", "NUL"],
)
def test_a_broken_file_is_refused(data: bytes) -> None:
    with pytest.raises(BadDocument, match=r"^loans\.pdf: this PDF "):
        read(data, name="loans", where="loans.pdf")
