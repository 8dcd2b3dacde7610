"""Web pages."""

import pytest

from experts.documents import Document, passages
from experts.errors import BadDocument
from experts.reading.html import read

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>
  All about
  loans</title><style>p { color: red }</style><script>alert("no")</script></head>
<body><nav><a href="/">Home</a></nav><header>Our bank</header>
<main><h1>Loans</h1><p>A loan is <b>paid</b> back
  with&nbsp;interest.</p><p>It may be<br>long.</p>
<ul><li>Fixed</li><li>Variable &amp; free</li></ul>
<table><tr><th>Rate</th><td>3&#37;</td></tr></table><!-- a remark --></main>
<aside>Buy now</aside><footer>Imprint</footer></body></html>"""


def text_of(html: str | bytes) -> str:
    (document,) = read(html.encode() if isinstance(html, str) else html, name="page", where="here")
    return document.text


def test_a_page_is_read_as_a_person_reads_it() -> None:
    paragraphs = [
        "Loans",
        "A loan is paid back with interest.",
        "It may be",
        "long.",
        "Fixed",
        "Variable & free",
        "Rate 3%",
    ]
    assert read(PAGE.encode(), name="page", where="here") == [
        Document("page", "All about loans", "\n\n".join(paragraphs))
    ]


def test_passages_of_a_page_point_into_its_text() -> None:
    text = text_of(PAGE)
    (passage,) = passages(text)
    sentences = [text[span.start : span.stop] for span in passage.sentences]
    assert sentences[1] == "A loan is paid back with interest."


@pytest.mark.parametrize("html", ["<p>x</p>", "<title></title><p>x</p>", "<title> \n </title><p>x</p>"])
def test_a_page_without_a_title_is_titled_by_its_name(html: str) -> None:
    assert read(html.encode(), name="bank/my-page", where="here")[0].title == "my page"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("just text", "just text"),
        ("<p>one<p>two", "one\n\ntwo"),
        ("one<br/>two", "one\n\ntwo"),
        ("a<b>b</b>c <i>d</i>", "abc d"),
        ("<p>1 &lt; 2 &copy; &#8364;</p>", "1 < 2 © €"),
        ("<td>a</td><td>b</td>", "a b"),
        ("<div><div>a</div></div><div>b</div>", "a\n\nb"),
        ("<template>no</template><noscript>no</noscript><svg><text>no</text></svg><p>yes</p>", "yes"),
        ("<P>CASE</P><SCRIPT>no</SCRIPT>", "CASE"),
    ],
)
def test_mark_up_becomes_paragraphs(html: str, text: str) -> None:
    assert text_of(html) == text


@pytest.mark.parametrize(
    "data",
    ["<p>Größe".encode("latin-1"), "<p>Größe".encode(), "<p>Größe".encode("utf-16")],
    ids=["Latin-1", "UTF-8", "UTF-16"],
)
def test_pages_of_other_encodings_are_read(data: bytes) -> None:
    assert text_of(data) == "Größe"


@pytest.mark.parametrize(
    "html", ["", "<p> </p>", "<script>x</script>", "<html><head><title>Only</title></head></html>"]
)
def test_a_page_that_says_nothing_is_refused(html: str) -> None:
    with pytest.raises(BadDocument, match=r"^page\.html: holds no text$"):
        read(html.encode(), name="page", where="page.html")
