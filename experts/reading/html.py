"""Web pages: what a person reads of them."""

import re
import warnings

from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning
from bs4.exceptions import ParserRejectedMarkup

from experts.documents import Document, make_document
from experts.errors import BadDocument

_UNREAD = (
    "title",
    "script",
    "style",
    "template",
    "noscript",
    "svg",
    "head",
    "nav",
    "header",
    "footer",
    "aside",
    "form",
    "iframe",
)
_BLOCKS = (
    *("p", "div", "section", "article", "main", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "dl", "dt", "dd"),
    *("table", "tr", "pre", "blockquote", "figure", "figcaption", "hr"),
)


def read(data: bytes, *, name: str, where: str) -> list[Document]:
    """One document: the running text without menus and scripts, titled as the page is. Raises BadDocument."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML is read as HTML on purpose
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        try:
            page = BeautifulSoup(data, "html.parser")
            title = page.title.get_text() if page.title else None
            text = _text(page)
        except (
            RecursionError,
            ParserRejectedMarkup,
        ) as error:  # tags nested without end, or declarations of no standard
            raise BadDocument(f"{where}: this HTML cannot be read ({type(error).__name__})") from None
    return [make_document(name, " ".join((title or "").split()), text, where=where)]


def _text(page: BeautifulSoup) -> str:
    """Paragraphs set apart by empty lines; within one, white space means nothing, as in a browser."""
    for unread in page(_UNREAD):
        unread.extract()
    for line_break in page("br"):
        line_break.replace_with("\n\n")
    for cell in page(("td", "th")):
        cell.insert_before(" ")
    for block in page(_BLOCKS):
        block.insert_before("\n\n")
        block.append("\n\n")
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", page.get_text()))
    return "\n\n".join(part for part in paragraphs if part)
