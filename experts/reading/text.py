"""Markdown and plain text."""

import re

from experts.documents import Document, make_document
from experts.errors import BadDocument


def read(data: bytes, *, name: str, where: str) -> list[Document]:
    """One document; a first line `# …` is its title. Raises BadDocument."""
    body = decode(data, where).strip()
    heading = re.match(r"#[^\S\n]+(.+)\n?", body)
    title = heading.group(1) if heading else None
    return [make_document(name, title, body[heading.end() :] if heading else body, where=where)]


def decode(data: bytes, where: str) -> str:
    """UTF-8, with or without a byte order mark, every line end as one. Raises BadDocument."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise BadDocument(f"{where}: is not UTF-8: {error.reason} at byte {error.start}") from None
