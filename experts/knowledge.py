"""An expert's knowledge base: passages of its documents, found by meaning.

A base is built once from a set of documents and never changed; the next set of documents is the next base, which takes
over the vectors of every passage that stayed the same.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from experts.documents import Document, Span, passages
from experts.encoders.base import Encoder, Vectors
from experts.errors import ModelUnusable

FORMAT = 1
# From this many passages on, an exact search costs more than the answers and a graph is searched instead.
HNSW_FROM = 100_000
_HNSW_NEIGHBOURS = 32

_PASSAGES = "passages.jsonl"
_VECTORS = "vectors.safetensors"
_INDEX = "index.faiss"
_ABOUT = "about.json"


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage with where it stands; sentence spans count from the passage's own start."""

    document: str
    title: str
    start: int
    stop: int
    text: str
    sentences: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Hits:
    """Search results: ``indices`` int64[n, k] into the base's passages, ``scores`` float32[n, k] cosines, best first.

    Where the base has fewer than k passages the rest of a row is index -1.
    """

    indices: NDArray[np.int64]
    scores: Vectors


class KnowledgeBase:
    """Passages, their vectors and those of their sentences, and an index over them."""

    def __init__(
        self,
        stored: Sequence[StoredPassage],
        passage_vectors: Vectors,
        sentence_vectors: Vectors,
        index: faiss.Index,
        encoder: str,
    ) -> None:
        self.passages = stored
        self.encoder = encoder
        self.passage_vectors = passage_vectors
        self._sentence_vectors = sentence_vectors
        self._index = index
        counts = [len(passage.sentences) for passage in stored]
        self._first_sentence = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.passages)

    def search(self, queries: Vectors, k: int) -> Hits:
        """The ``k`` passages nearest to each of ``queries`` float32[n, d]."""
        scores, indices = self._index.search(np.ascontiguousarray(queries, np.float32), k)
        return Hits(indices, scores)

    def sentence_vectors(self, passage: int) -> Vectors:
        """``float32[sentences, d]`` of one passage."""
        return self._sentence_vectors[self._first_sentence[passage] : self._first_sentence[passage + 1]]

    @classmethod
    def load(cls, folder: Path, encoder: str) -> "KnowledgeBase":
        """Read a base that ``build`` made. Raises ModelUnusable when it is of another encoder or format."""
        try:
            return cls._load(folder, encoder)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelUnusable(f"knowledge base {folder.name} cannot be read: {error}") from error

    @classmethod
    def _load(cls, folder: Path, encoder: str) -> "KnowledgeBase":
        about = json.loads((folder / _ABOUT).read_text())
        if about["format"] != FORMAT:
            raise ModelUnusable(f"knowledge base {folder.name}: format {about['format']}, this program reads {FORMAT}")
        if about["encoder"] != encoder:
            raise ModelUnusable(
                f"knowledge base {folder.name} was made with encoder {about['encoder']!r}, not with {encoder!r}"
            )
        vectors = load_file(folder / _VECTORS)
        stored = list(_read_passages(folder / _PASSAGES))
        index = faiss.read_index(str(folder / _INDEX))
        n = about["passages"], len(vectors["passages"]), index.ntotal
        if set(n) != {len(stored)} or len(vectors["sentences"]) != sum(len(p.sentences) for p in stored):
            raise ModelUnusable(f"knowledge base {folder.name}: its parts do not belong together")
        return cls(
            stored,
            vectors["passages"].astype(np.float32),
            vectors["sentences"].astype(np.float32),
            index,
            about["encoder"],
        )


def _read_passages(path: Path) -> Iterator[StoredPassage]:
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            row = json.loads(line)
            spans = tuple(Span(*span) for span in row.pop("sentences"))
            yield StoredPassage(**row, sentences=spans)


def content_sha256(documents: Sequence[Document], encoder: str) -> str:
    """What a base over these documents would hold: equal hashes need no second build."""
    digest = hashlib.sha256(f"{FORMAT}:{encoder}".encode())
    for document in sorted(documents, key=lambda d: d.name):
        for part in (document.name, document.title, document.text):
            digest.update(f"{len(part)}:".encode() + part.encode())
    return digest.hexdigest()


def build(
    documents: Sequence[Document], encoder: Encoder, *, previous: KnowledgeBase | None = None
) -> tuple[KnowledgeBase, dict[str, bytes]]:
    """Cut, embed and index the documents; the base and its files.

    Passages that ``previous`` holds with the same title and text keep their vectors and are not embedded again.
    """
    stored = [passage for document in documents for passage in _cut(document)]
    reusable = _reusable(previous, encoder.name)
    fresh = [place for place, passage in enumerate(stored) if _key(passage) not in reusable]
    n_sentences = [len(passage.sentences) for passage in stored]
    passage_vectors = np.zeros((len(stored), encoder.dimension), np.float32)
    sentence_vectors: list[Vectors] = [np.zeros((n, encoder.dimension), np.float32) for n in n_sentences]
    for place, passage in enumerate(stored):
        if _key(passage) in reusable:
            passage_vectors[place], sentence_vectors[place] = reusable[_key(passage)]
    # One call for all texts, long and short, so that the encoder can sort them by length.
    texts = [f"{stored[place].title}. {stored[place].text}" for place in fresh]
    texts += [stored[place].text[s.start : s.stop] for place in fresh for s in stored[place].sentences]
    # Kept in 16 bit: what is computed now and what is read back later must be the same numbers.
    vectors = encoder.encode(texts).astype(np.float16).astype(np.float32)
    at = len(fresh)
    for row, place in enumerate(fresh):
        passage_vectors[place] = vectors[row]
        sentence_vectors[place] = vectors[at : at + n_sentences[place]]
        at += n_sentences[place]
    sentences = np.concatenate(sentence_vectors) if stored else np.zeros((0, encoder.dimension), np.float32)
    index = _index(passage_vectors, encoder.dimension)
    base = KnowledgeBase(stored, passage_vectors, sentences, index, encoder.name)
    return base, _files(base, sentences, index)


def _cut(document: Document) -> Iterator[StoredPassage]:
    for passage in passages(document.text):
        start = passage.span.start
        yield StoredPassage(
            document=document.name,
            title=document.title,
            start=start,
            stop=passage.span.stop,
            text=document.text[start : passage.span.stop],
            sentences=tuple(Span(s.start - start, s.stop - start) for s in passage.sentences),
        )


def _key(passage: StoredPassage) -> tuple[str, str]:
    return passage.title, passage.text


def _reusable(previous: KnowledgeBase | None, encoder: str) -> Mapping[tuple[str, str], tuple[Vectors, Vectors]]:
    if previous is None or previous.encoder != encoder:
        return {}
    return {
        _key(passage): (previous.passage_vectors[place], previous.sentence_vectors(place))
        for place, passage in enumerate(previous.passages)
    }


def _index(vectors: Vectors, dimension: int) -> faiss.Index:
    if len(vectors) < HNSW_FROM:
        index: faiss.Index = faiss.IndexFlatIP(dimension)
    else:
        index = faiss.IndexHNSWFlat(dimension, _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(vectors))
    return index


def _files(base: KnowledgeBase, sentences: Vectors, index: faiss.Index) -> dict[str, bytes]:
    rows = (
        {
            "document": p.document,
            "title": p.title,
            "start": p.start,
            "stop": p.stop,
            "text": p.text,
            "sentences": [[s.start, s.stop] for s in p.sentences],
        }
        for p in base.passages
    )
    about = {"format": FORMAT, "encoder": base.encoder, "passages": len(base)}
    return {
        _PASSAGES: "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode(),
        _VECTORS: save(
            {"passages": base.passage_vectors.astype(np.float16), "sentences": sentences.astype(np.float16)}
        ),
        _INDEX: faiss.serialize_index(index).tobytes(),
        _ABOUT: json.dumps(about).encode(),
    }
