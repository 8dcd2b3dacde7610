"""PDF files that hold text."""

import io
import re

from pypdf import PdfReader

from experts.documents import Document, make_document
from experts.errors import BadDocument


def read(data: bytes, *, name: str, where: str) -> list[Document]:
    """One document: the text of all pages, titled as the file says of itself. Raises BadDocument."""
    try:
        pdf = PdfReader(io.BytesIO(data))
        if pdf.is_encrypted and not pdf.decrypt(""):
            raise BadDocument(f"{where}: this PDF is encrypted")
        pages = [page.extract_text() for page in pdf.pages]
        title = pdf.metadata.title if pdf.metadata else None
    except BadDocument:
        raise
    except Exception as error:  # noqa: BLE001  (a broken PDF breaks its reader in every possible way)
        raise BadDocument(f"{where}: this PDF cannot be read ({type(error).__name__}: {error})") from None
    text = "\n\n".join(filter(None, map(_joined, pages))).replace("\x00", "")
    if not text:
        raise BadDocument(f"{where}: this PDF holds no text; pages that are pictures need text recognition first")
    return [make_document(name, title, text, where=where)]


def _joined(page: str) -> str:
    """Lines of a page that go on in the next one put together again."""
    whole = re.sub(r"(\w)-\n(?=[a-z])", r"\1", page.strip())
    return re.sub(r"(?<![.!?:\n])\n(?!\n)", " ", whole)
