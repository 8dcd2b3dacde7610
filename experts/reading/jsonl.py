"""JSON Lines: many documents in one file, `{"id", "title", "text"}` each."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experts.documents import Document, make_document
from experts.errors import BadDocument
from experts.reading.text import decode


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    id: str = Field(min_length=1, max_length=200)
    title: str | None = None
    text: str


def read(data: bytes, *, name: str, where: str) -> list[Document]:
    """Every line's document, named by its id. Raises BadDocument naming the line."""
    found = list(_documents(decode(data, where), where))
    if not found:
        raise BadDocument(f"{where}: holds no documents")
    return found


def _documents(text: str, where: str) -> Iterator[Document]:
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        at = f"{where} line {number}"
        try:
            row = _Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise BadDocument(f"{at}: {f'{field}: ' if field else ''}{first['msg']}") from None
        if row.id in seen:
            raise BadDocument(f"{at}: the id {row.id!r} is used in line {seen[row.id]} already")
        seen[row.id] = number
        yield make_document(row.id, row.title, row.text, where=at)
