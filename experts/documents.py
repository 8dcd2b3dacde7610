"""Documents, and how they are cut into passages and sentences."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from experts.errors import BadDocument

# About 120 words: several sentences of one thought, well inside the 256 word pieces that MiniLM reads.
PASSAGE_CHARS = 700

_SENTENCE_END = re.compile(r"""(?<=[.!?])(["')\]]*)\s+(?=["'(\[]?[A-Z0-9])""")
# Words before a full stop that does not end a sentence.
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|approx|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|Inc|Ltd|U\.S|U\.K|[A-Z])\.$")


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a knowledge base; `name` tells it apart from the expert's others."""

    name: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` to ``stop`` of a document's text."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document that is found as one, and its sentences; all spans count from the document's start."""

    span: Span
    sentences: tuple[Span, ...]


def make_document(name: str, title: str | None, text: str, *, where: str) -> Document:
    """A document; without a title its name serves as one. Raises BadDocument where there is no plain text."""
    whole = f"{name}{title}{text}"
    if "\x00" in whole:
        raise BadDocument(f"{where}: holds NUL characters; this is not text")
    if not whole.isascii() and any("\ud800" <= character <= "\udfff" for character in whole):
        raise BadDocument(f"{where}: its name, title or text holds bytes that are not UTF-8")
    body = text.strip()
    if not body:
        raise BadDocument(f"{where}: holds no text")
    spoken = (title or "").strip() or name.rpartition("/")[2].replace("-", " ").replace("_", " ")
    return Document(name, spoken, body)


def sentences(text: str, start: int, stop: int) -> Iterator[Span]:
    """The sentences between two places of a text. Headings and list items end at their line."""
    for line in re.finditer(r"[^\n]+", text[start:stop]):
        begin = start + line.start()
        end = start + line.end()
        at = begin
        for gap in _SENTENCE_END.finditer(text, begin, end):
            if _ABBREVIATION.search(text, at, gap.start()):
                continue
            yield from _trimmed(text, at, gap.end(1))
            at = gap.end()
        yield from _trimmed(text, at, end)


def _trimmed(text: str, start: int, stop: int) -> Iterator[Span]:
    while start < stop and text[start].isspace():
        start += 1
    while stop > start and text[stop - 1].isspace():
        stop -= 1
    if any(character.isalnum() for character in text[start:stop]):
        yield Span(start, stop)


def passages(text: str, *, limit: int = PASSAGE_CHARS) -> list[Passage]:
    """Cut a text into passages of whole sentences, at most ``limit`` characters, within paragraphs where they fit.

    Short paragraphs are joined; a sentence longer than the limit is a passage of its own.
    """
    found: list[Passage] = []
    pending: list[Span] = []

    def close() -> None:
        if pending:
            found.append(Passage(Span(pending[0].start, pending[-1].stop), tuple(pending)))
            pending.clear()

    for start, stop in _paragraphs(text):
        spans = list(sentences(text, start, stop))
        if spans and pending and spans[-1].stop - pending[0].start > limit:
            close()
        for span in spans:
            if pending and span.stop - pending[0].start > limit:
                close()
            pending.append(span)
    close()
    return found


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that are not blank, from first character to last."""
    begin, end, at = -1, -1, 0
    for line in text.split("\n"):
        if line.strip():
            begin, end = at if begin < 0 else begin, at + len(line)
        elif begin >= 0:
            yield begin, end
            begin = -1
        at += len(line) + 1
    if begin >= 0:
        yield begin, end
