"""Knowledge bases: built, searched against brute force, rebuilt from the one before, stored and read back."""

import json
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save

from experts import knowledge
from experts.documents import Document
from experts.encoders.base import Vectors
from experts.encoders.hashing import HashingEncoder
from experts.errors import ModelUnusable
from experts.knowledge import KnowledgeBase, build, content_sha256
from tests.contracts.doubles import RecordingEncoder
from tests.contracts.samples import DOCUMENTS, HOSTILE, LAW, ORDINARY, embed

WORDS = ["loan", "card", "magma", "ash", "list", "pointer", "court", "nerve", "Verb", "Goal"]
FILES = {"passages.jsonl", "vectors.safetensors", "index.faiss", "about.json"}


def document(name: str, text: str, title: str = "Title") -> Document:
    return Document(name, title, text)


@st.composite
def libraries(draw: st.DrawFn) -> list[Document]:
    """Up to five documents of a few paragraphs, some sentences alike."""
    sentence = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(lambda words: f"The {' '.join(words)}.")
    paragraph = st.lists(sentence, min_size=1, max_size=4).map(" ".join)
    texts = draw(st.lists(st.lists(paragraph, min_size=1, max_size=3).map("\n\n".join), max_size=5))
    return [document(f"d{place}", text, draw(st.sampled_from(["One", "Two"]))) for place, text in enumerate(texts)]


def brute_force(vectors: Vectors, query: Vectors) -> list[tuple[float, int]]:
    """All passages by cosine, best first, one product after another."""
    scores = [sum(float(a) * float(b) for a, b in zip(row, query, strict=True)) for row in vectors]
    return sorted(((score, place) for place, score in enumerate(scores)), key=lambda found: -found[0])


def assert_same(found: KnowledgeBase, expected: KnowledgeBase) -> None:
    assert list(found.passages) == list(expected.passages)
    assert found.encoder == expected.encoder
    np.testing.assert_array_equal(found.passage_vectors, expected.passage_vectors)
    for place in range(len(expected)):
        np.testing.assert_array_equal(found.sentence_vectors(place), expected.sentence_vectors(place))


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


class TestBuild:
    @LAW
    @given(documents=libraries())
    def test_passages_and_sentences_stand_where_they_say_and_have_their_own_vectors(
        self, documents: list[Document]
    ) -> None:
        base, _ = build(documents, HashingEncoder())
        texts = {d.name: d for d in documents}
        assert len(base) == len(base.passages)
        for place, passage in enumerate(base.passages):
            whole = texts[passage.document]
            assert passage.title == whole.title
            assert passage.text == whole.text[passage.start : passage.stop]
            vector = embed([f"{passage.title}. {passage.text}"])[0].astype(np.float16)
            np.testing.assert_array_equal(base.passage_vectors[place], vector)
            own = [passage.text[span.start : span.stop] for span in passage.sentences]
            assert all(sentence.startswith("The ") and sentence.endswith(".") for sentence in own)
            np.testing.assert_array_equal(base.sentence_vectors(place), embed(own).astype(np.float16))

    def test_every_sentence_of_every_document_is_in_the_base_once(self) -> None:
        base, _ = build(DOCUMENTS, HashingEncoder())
        held = [p.text[s.start : s.stop] for p in base.passages for s in p.sentences]
        assert held == [
            "A mortgage is a loan that is secured by a house.",
            "The monthly payment of a mortgage covers interest and part of the loan.",
            "A fixed rate stays the same for the whole term.",
            "A variable rate follows the market.",
            "A machine swallows a card after three wrong numbers.",
            "Call the bank at once, and the card is blocked.",
            "Volcanoes erupt because gas in the magma expands as the magma rises.",
            "Basalt is dark.",
            "Ash can stop aircraft.",
            "A linked list is reversed by turning every pointer round.",
            "This takes linear time and constant space.",
        ]

    def test_sentences_of_later_passages_count_from_their_own_passage(self) -> None:
        paragraphs = [" ".join(f"Sentence {n} of part {part}." for n in range(20)) for part in range(4)]
        base, _ = build([document("long", "\n\n".join(paragraphs))], HashingEncoder())
        assert len(base) == 4
        held = [[p.text[s.start : s.stop] for s in p.sentences] for p in base.passages]
        assert held == [[f"Sentence {n} of part {part}." for n in range(20)] for part in range(4)]
        for place, sentences in enumerate(held):
            np.testing.assert_array_equal(base.sentence_vectors(place), embed(sentences).astype(np.float16))

    def test_all_texts_are_embedded_in_one_call(self) -> None:
        encoder = RecordingEncoder()
        build(DOCUMENTS, encoder)
        assert [len(texts) for texts in encoder.calls] == [4 + 11]

    def test_no_documents_make_an_empty_base(self) -> None:
        base, files = build([], HashingEncoder())
        assert len(base) == 0
        assert base.passage_vectors.shape == (0, 384)
        assert files.keys() == FILES

    def test_building_twice_gives_the_same_files_to_the_byte(self) -> None:
        assert build(DOCUMENTS, HashingEncoder())[1] == build(DOCUMENTS, HashingEncoder())[1]


class TestRebuild:
    def test_only_what_is_new_is_embedded(self) -> None:
        encoder = RecordingEncoder()
        base, _ = build(DOCUMENTS, encoder)
        added = document("ash", "Ash falls for days.")
        base, _ = build([*DOCUMENTS, added], encoder, previous=base)
        assert encoder.calls[1] == ["Title. Ash falls for days.", "Ash falls for days."]
        build([*DOCUMENTS[1:], added], encoder, previous=base)
        assert encoder.calls[2] == []

    def test_a_removed_document_is_found_no_more(self) -> None:
        base, _ = build(DOCUMENTS, HashingEncoder())
        base, _ = build([d for d in DOCUMENTS if d.name != "volcanoes"], HashingEncoder(), previous=base)
        hits = base.search(embed(["why do volcanoes erupt"]), len(base))
        assert "volcanoes" not in {base.passages[place].document for place in hits.indices[0]}
        assert len(base) == 3

    def test_an_added_document_is_found_at_once(self) -> None:
        base, _ = build(DOCUMENTS[:2], HashingEncoder())
        base, _ = build(DOCUMENTS, HashingEncoder(), previous=base)
        (place,) = base.search(embed(["why do volcanoes erupt"]), 1).indices[0]
        assert base.passages[place].document == "volcanoes"

    def test_a_text_under_another_name_keeps_its_vectors_and_under_another_title_does_not(self) -> None:
        encoder = RecordingEncoder()
        base, _ = build([document("a", "Ash falls.", "Ash")], encoder)
        renamed, _ = build([document("b", "Ash falls.", "Ash")], encoder, previous=base)
        assert encoder.calls[1] == []
        assert renamed.passages[0].document == "b"
        build([document("a", "Ash falls.", "Dust")], encoder, previous=base)
        assert encoder.calls[2] == ["Dust. Ash falls.", "Ash falls."]

    def test_the_base_before_stays_as_it_was(self) -> None:
        before, _ = build(DOCUMENTS, HashingEncoder())
        build(DOCUMENTS[:1], HashingEncoder(), previous=before)
        assert_same(before, build(DOCUMENTS, HashingEncoder())[0])

    def test_vectors_of_another_encoder_are_not_taken_over(self) -> None:
        other = RecordingEncoder("other")
        previous, _ = build(DOCUMENTS, HashingEncoder())
        build(DOCUMENTS, other, previous=previous)
        assert [len(texts) for texts in other.calls] == [15]

    @LAW
    @given(before=libraries(), after=libraries())
    def test_a_base_made_from_another_is_the_base_made_from_nothing(
        self, before: list[Document], after: list[Document]
    ) -> None:
        previous, _ = build(before, HashingEncoder())
        rebuilt, files = build(after, HashingEncoder(), previous=previous)
        fresh, fresh_files = build(after, HashingEncoder())
        assert_same(rebuilt, fresh)
        assert files == fresh_files


class TestSearch:
    @LAW
    @given(
        documents=libraries(),
        queries=st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), max_size=4),
        k=st.integers(1, 12),
    )
    def test_it_finds_what_brute_force_finds(self, documents: list[Document], queries: list[str], k: int) -> None:
        base, _ = build(documents, HashingEncoder())
        vectors = embed(queries)
        hits = base.search(vectors, k)
        assert hits.indices.shape == hits.scores.shape == (len(queries), k)
        for row, query in enumerate(vectors):
            expected = brute_force(base.passage_vectors, query)[:k]
            found = len(expected)
            np.testing.assert_allclose(hits.scores[row, :found], [score for score, _ in expected], atol=1e-5)
            # Passages may tie; each one found must have the score that stands beside it, and none comes twice.
            places = hits.indices[row, :found].tolist()
            assert len(set(places)) == found
            own = base.passage_vectors[places] @ query
            np.testing.assert_allclose(hits.scores[row, :found], own, atol=1e-5)
            assert (hits.indices[row, found:] == -1).all()

    def test_queries_of_sixteen_bits_are_taken_as_they_are_stored(self) -> None:
        base, _ = build(DOCUMENTS, HashingEncoder())
        vectors = embed(ORDINARY)
        full, half = base.search(vectors, 3), base.search(vectors.astype(np.float16), 3)
        np.testing.assert_array_equal(full.indices[:, 0], half.indices[:, 0])
        np.testing.assert_allclose(full.scores, half.scores, atol=2e-3)

    def test_a_query_is_found_the_same_whatever_else_is_asked(self) -> None:
        base, _ = build(DOCUMENTS, HashingEncoder())
        texts = [*ORDINARY, *HOSTILE.values()]
        together = base.search(embed(texts), 4)
        for row, text in enumerate(texts):
            alone = base.search(embed([text]), 4)
            np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-5)

    def test_a_large_base_is_searched_by_a_graph_that_finds_nearly_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(knowledge, "HNSW_FROM", 500)
        random = np.random.default_rng(1)
        vectors = random.standard_normal((600, 32)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        queries = vectors[:50] + 0.05 * random.standard_normal((50, 32)).astype(np.float32)
        index = knowledge._index(vectors, 32)
        assert isinstance(index, faiss.IndexHNSWFlat)
        assert isinstance(knowledge._index(vectors[:499], 32), faiss.IndexFlatIP)
        _, found = index.search(queries, 10)
        exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
        assert recall >= 0.95
        assert (found[:, 0] == np.arange(50)).all()


class TestStoring:
    @LAW
    @given(documents=libraries())
    def test_what_is_read_back_is_what_was_built(
        self, tmp_path_factory: pytest.TempPathFactory, documents: list[Document]
    ) -> None:
        base, files = build(documents, HashingEncoder())
        loaded = KnowledgeBase.load(write(tmp_path_factory.mktemp("base"), files), "hashing")
        assert_same(loaded, base)
        queries = embed(["loan", "the magma"])
        found, expected = loaded.search(queries, 3), base.search(queries, 3)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.scores, expected.scores)

    @pytest.mark.parametrize("text", [text for text in HOSTILE.values() if any(c.isalnum() for c in text)])
    def test_hostile_documents_survive_storing(self, tmp_path: Path, text: str) -> None:
        base, files = build([document("größe/☠", text, "👍 Tïtle")], HashingEncoder())
        assert_same(KnowledgeBase.load(write(tmp_path, files), "hashing"), base)

    def test_the_files_are_json_safetensors_and_an_index(self) -> None:
        base, files = build(DOCUMENTS, HashingEncoder())
        assert files.keys() == FILES
        assert json.loads(files["about.json"]) == {"format": 1, "encoder": "hashing", "passages": 4}
        assert len(files["passages.jsonl"].splitlines()) == 4
        tensors = read_tensors(files["vectors.safetensors"])
        assert {name: (t.dtype.name, t.shape) for name, t in tensors.items()} == {
            "passages": ("float16", (4, 384)),
            "sentences": ("float16", (11, 384)),
        }
        index = faiss.deserialize_index(np.frombuffer(files["index.faiss"], np.uint8))
        np.testing.assert_array_equal(index.reconstruct_n(0, 4), base.passage_vectors)

    def test_a_base_of_another_encoder_is_unusable(self, tmp_path: Path) -> None:
        write(tmp_path, build(DOCUMENTS, HashingEncoder())[1])
        with pytest.raises(ModelUnusable, match="made with encoder 'hashing', not with 'all-MiniLM-L6-v2'"):
            KnowledgeBase.load(tmp_path, "all-MiniLM-L6-v2")

    def test_a_base_of_another_format_is_unusable(self, tmp_path: Path) -> None:
        files = build(DOCUMENTS, HashingEncoder())[1]
        about = json.loads(files["about.json"]) | {"format": 2}
        with pytest.raises(ModelUnusable, match="format 2, this program reads 1"):
            KnowledgeBase.load(write(tmp_path, files | {"about.json": json.dumps(about).encode()}), "hashing")

    @pytest.mark.parametrize("damaged", sorted(FILES))
    @pytest.mark.parametrize("damage", [None, b"\xff\xfe\x00"], ids=repr)
    def test_a_base_with_a_missing_or_damaged_file_is_unusable(
        self, tmp_path: Path, damaged: str, damage: bytes | None
    ) -> None:
        files = build(DOCUMENTS, HashingEncoder())[1]
        write(tmp_path, files if damage is None else files | {damaged: damage})
        if damage is None:
            (tmp_path / damaged).unlink()
        with pytest.raises(ModelUnusable):
            KnowledgeBase.load(tmp_path, "hashing")

    @pytest.mark.parametrize("part", ["passages.jsonl", "passages", "sentences", "index.faiss"])
    def test_a_base_whose_parts_do_not_belong_together_is_unusable(self, tmp_path: Path, part: str) -> None:
        """Else a hit would point at another passage, or behind the last one."""
        files, others = build(DOCUMENTS, HashingEncoder())[1], build(DOCUMENTS[:2], HashingEncoder())[1]
        if part in FILES:
            files[part] = others[part]
        else:
            tensors = read_tensors(files["vectors.safetensors"])
            tensors[part] = read_tensors(others["vectors.safetensors"])[part]
            files["vectors.safetensors"] = save(tensors)
        with pytest.raises(ModelUnusable):
            KnowledgeBase.load(write(tmp_path, files), "hashing")


class TestContentHash:
    BASE = (document("a", "One."), document("b", "Two."))

    def test_the_order_of_the_documents_does_not_matter(self) -> None:
        assert content_sha256(self.BASE, "hashing") == content_sha256(self.BASE[::-1], "hashing")

    @pytest.mark.parametrize(
        ("documents", "encoder"),
        [
            (BASE, "other"),
            (BASE[:1], "hashing"),
            ((), "hashing"),
            ((document("a", "One!"), BASE[1]), "hashing"),
            ((document("a", "One.", "Other"), BASE[1]), "hashing"),
            ((document("c", "One."), BASE[1]), "hashing"),
            ((document("a", "Two."), document("b", "One.")), "hashing"),
            ((*BASE, document("c", "Three.")), "hashing"),
        ],
    )
    def test_anything_else_that_differs_changes_it(self, documents: Sequence[Document], encoder: str) -> None:
        assert content_sha256(documents, encoder) != content_sha256(self.BASE, "hashing")

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ([Document("a", "b", "c")], [Document("ab", "", "c")]),
            ([Document("a", "b", "c")], [Document("a", "bc", "")]),
            ([Document("a", "b", "c"), Document("d", "e", "f")], [Document("a", "b", "cdef")]),
            ([Document("a", "1:b", "c")], [Document("a", "1", "b1:c")]),
            ([Document("a", "é", "b")], [Document("a", "Ã", "©b")]),
        ],
    )
    def test_a_letter_moved_to_the_next_field_changes_it(self, one: list[Document], other: list[Document]) -> None:
        assert content_sha256(one, "hashing") != content_sha256(other, "hashing")

    @LAW
    @given(parts=st.tuples(*[st.text("a1:", max_size=4)] * 6), others=st.tuples(*[st.text("a1:", max_size=4)] * 6))
    def test_texts_cannot_be_moved_across_the_borders_of_fields(
        self, parts: tuple[str, ...], others: tuple[str, ...]
    ) -> None:
        def hashed(p: tuple[str, ...]) -> tuple[frozenset[Document], str]:
            documents = [Document(*p[:3]), Document(*p[3:])]
            return frozenset(documents), content_sha256(documents, "hashing")

        (first, first_hash), (second, second_hash) = hashed(parts), hashed(others)
        distinct_names = parts[0] != parts[3] and others[0] != others[3]
        if distinct_names:
            assert (first == second) is (first_hash == second_hash)
