"""Documents from files of every kind that is registered."""

from pathlib import Path

from experts import kinds
from experts.documents import Document
from experts.errors import BadDocument

MAX_FILE_BYTES = 64 << 20


def readable(path: Path) -> bool:
    """Whether the file's name says a kind that can be read."""
    return path.suffix.lower() in kinds.DOCUMENTS


def read_documents(path: Path, *, name: str | None = None) -> list[Document]:
    """The documents of one file, one of most kinds; ``name`` is by default the file's. Raises BadDocument."""
    if not readable(path):
        raise BadDocument(f"{path}: documents are {', '.join(kinds.DOCUMENTS)} files")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadDocument(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise BadDocument(f"{path}: {error.strerror}") from None
    read = kinds.find("kind of document", kinds.DOCUMENTS, path.suffix.lower())
    documents: list[Document] = read(data, name=name or path.stem, where=str(path))
    return documents
