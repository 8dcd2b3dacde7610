"""The extractive engine: what it quotes, what it cites, and when it honestly has no answer."""

import gc
import math
import re
import weakref
from collections.abc import Sequence

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.documents import Document, Span
from experts.encoders.base import Vectors
from experts.encoders.hashing import HashingEncoder
from experts.engines.base import EngineAnswer, EngineBatch, EngineQuery, EngineSpec
from experts.engines.extractive import SURVEYED, Evidence, ExtractiveEngine
from experts.errors import ModelUnusable
from experts.knowledge import KnowledgeBase, StoredPassage, build
from tests.contracts.samples import DOCUMENTS, LAW, embed, knowledge

TEXTS = {document.name: document.text for document in DOCUMENTS}
QUESTIONS = [
    "What is a mortgage secured by?",
    "why do volcanoes erupt",
    "the machine swallowed my card after three wrong numbers",
    "how is a linked list reversed, by turning every pointer round?",
    "a fixed rate or a variable rate of a mortgage for the whole term",
]


def ask(
    texts: Sequence[str],
    *,
    base: KnowledgeBase | None = None,
    vectors: Vectors | None = None,
    spec: EngineSpec | None = None,
) -> list[EngineAnswer]:
    engine = ExtractiveEngine(spec or EngineSpec(answer_threshold=0.2))
    found = embed(texts) if vectors is None else vectors
    return engine.answer(EngineBatch("bank", {}, [EngineQuery(t) for t in texts], found, base or knowledge()))


def base_of(passages: Sequence[tuple[str, Sequence[str]]], vectors: Vectors, sentences: Vectors) -> KnowledgeBase:
    """A base by hand: (document, sentences) per passage, with vectors of any choice."""
    stored = []
    for document, parts in passages:
        text, spans = "", []
        for part in parts:
            text += " " if text else ""
            spans.append(Span(len(text), len(text) + len(part)))
            text += part
        stored.append(StoredPassage(document, document.title(), 0, len(text), text, tuple(spans)))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return KnowledgeBase(stored, vectors, sentences, index, "by hand")


class TestQuoting:
    @pytest.mark.parametrize(
        ("question", "document", "quoted"),
        [
            (QUESTIONS[0], "mortgages", "A mortgage is a loan that is secured by a house."),
            (QUESTIONS[1], "volcanoes", "Volcanoes erupt because gas in the magma expands as the magma rises."),
            (QUESTIONS[2], "swallowed-cards", "A machine swallows a card after three wrong numbers."),
            (QUESTIONS[3], "linked-lists", "A linked list is reversed by turning every pointer round."),
        ],
    )
    def test_the_sentence_that_answers_is_quoted_with_its_source(
        self, question: str, document: str, quoted: str
    ) -> None:
        (answer,) = ask([question])
        assert answer.answered
        assert quoted in answer.text
        assert answer.passages[0].document == document

    @pytest.mark.parametrize("question", QUESTIONS)
    def test_every_quoted_sentence_stands_in_the_very_characters_that_are_cited(self, question: str) -> None:
        """The answer is nothing but sentences of the cited passages, each run followed by its citation's number."""
        (answer,) = ask([question])
        parts = re.findall(r"(.+?) \[(\d+)\](?: |$)", answer.text)
        assert "".join(f"{text} [{number}] " for text, number in parts).strip() == answer.text
        assert [int(number) for _, number in parts] == list(range(1, len(answer.passages) + 1))
        for (text, _), cited in zip(parts, answer.passages, strict=True):
            characters = TEXTS[cited.document][cited.start : cited.end]
            at = 0
            for sentence in re.split(r"(?<=\.) ", text):
                at = characters.index(sentence, at) + len(sentence)

    def test_citations_point_into_long_documents_too(self) -> None:
        paragraphs = [f"Paragraph {n} speaks of subject{n} only. {'It goes on and on. ' * 30}" for n in range(6)]
        document = Document("long", "Long", "\n\n".join(paragraphs))
        base, _ = build([document], HashingEncoder())
        (answer,) = ask(["paragraph 4 speaks of subject4 only"], base=base, spec=EngineSpec(answer_threshold=0))
        cited = answer.passages[0]
        assert cited.start > 2000
        assert "speaks of subject4 only." in document.text[cited.start : cited.end]
        assert answer.text.startswith("Paragraph 4 speaks of subject4 only.")

    def test_sentences_are_quoted_in_reading_order_and_the_best_passage_first(self) -> None:
        eye = np.eye(4, dtype=np.float32)
        query = np.array([[0.5, 0.5, 0.5, 0.5]], np.float32)
        base = base_of(
            [("one", ["Aaa.", "Bbb."]), ("two", ["Ccc."])],
            np.array([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, -0.5]], np.float32),
            np.stack([0.9 * query[0] + 0.1 * eye[0], query[0], query[0]]).astype(np.float32),
        )
        (answer,) = ask(["aaa bbb ccc"], base=base, vectors=query, spec=EngineSpec(answer_threshold=0))
        assert answer.text == "Aaa. Bbb. [1]"
        near = base_of(
            [("one", ["Aaa.", "Bbb."]), ("two", ["Ccc."])],
            np.array([query[0], query[0]], np.float32),
            np.stack([0.95 * query[0], 0.95 * query[0], query[0]]).astype(np.float32),
        )
        (answer,) = ask(["aaa bbb ccc"], base=near, vectors=query, spec=EngineSpec(answer_threshold=0))
        assert answer.text == "Ccc. [1] Aaa. Bbb. [2]"
        assert [cited.document for cited in answer.passages] == ["two", "one"]

    def test_at_most_three_sentences_are_quoted(self) -> None:
        query = np.array([[1, 0]], np.float32)
        base = base_of([("one", [f"Same {n}." for n in range(8)])], query, query.repeat(8, axis=0))
        (answer,) = ask(["same"], base=base, vectors=query, spec=EngineSpec(answer_threshold=0))
        assert answer.text == "Same 0. Same 1. Same 2. [1]"

    def test_a_sentence_far_worse_than_the_best_is_left_out(self) -> None:
        query = np.array([[1, 0]], np.float32)
        base = base_of([("one", ["Near.", "Far."])], query, np.array([[1, 0], [0, 1]], np.float32))
        (answer,) = ask(["near"], base=base, vectors=query, spec=EngineSpec(answer_threshold=0))
        assert answer.text == "Near. [1]"

    def test_only_so_many_passages_are_read(self) -> None:
        query = np.array([[1, 0]], np.float32)
        base = base_of(
            [("one", ["First."]), ("two", ["Second."]), ("three", ["Third."])],
            np.array([[1, 0], [0.99, 0.1], [0.98, 0.2]], np.float32),
            query.repeat(3, axis=0),
        )
        for n, expected in [(1, ["one"]), (2, ["one", "two"]), (9, ["one", "two", "three"])]:
            (answer,) = ask(["q"], base=base, vectors=query, spec=EngineSpec(passages=n, answer_threshold=0))
            assert [cited.document for cited in answer.passages] == expected

    def test_an_answer_always_says_something(self) -> None:
        """Where even an unsure answer is wanted and every sentence lies on the far side, the best is still quoted."""
        query = np.array([[1, 0]], np.float32)
        base = base_of([("one", ["Aaa."]), ("two", ["Bbb."])], -query.repeat(2, axis=0), -query.repeat(2, axis=0))
        (answer,) = ask(["q"], base=base, vectors=query, spec=EngineSpec(answer_threshold=0))
        assert answer.text.strip()
        assert len(answer.passages) >= 1


class TestHonesty:
    @pytest.mark.parametrize(
        "question", ["xylophone zygote quokka", "", "?!", "why", "what is the and of it", "der Zug fährt nach Wien"]
    )
    def test_a_question_the_documents_do_not_answer_is_told_so_with_the_nearest_title(self, question: str) -> None:
        (answer,) = ask([question], spec=EngineSpec())
        assert not answer.answered
        assert answer.confidence < 0.33
        (nearest,) = answer.passages
        assert answer.text == (
            f"The documents of the bank expert hold no answer to this; the nearest is “{nearest.title}”."
        )

    def test_nothing_of_the_documents_is_quoted_where_there_is_no_answer(self) -> None:
        (answer,) = ask(["xylophone zygote quokka"], spec=EngineSpec())
        for text in TEXTS.values():
            for sentence in re.split(r"(?<=\.)\s+", text):
                assert sentence not in answer.text

    @pytest.mark.parametrize("question", QUESTIONS)
    def test_the_threshold_decides_on_the_confidence_and_changes_nothing_else(self, question: str) -> None:
        (answer,) = ask([question])
        for threshold, answered in [(answer.confidence, True), (answer.confidence + 1e-4, False), (1.0, False)]:
            (again,) = ask([question], spec=EngineSpec(answer_threshold=threshold))
            assert (again.answered, again.confidence) == (answered, answer.confidence)

    def test_a_question_in_the_documents_own_words_is_answered_more_surely_than_one_in_none(self) -> None:
        own, half, none = ask(
            ["Volcanoes erupt because gas in the magma expands", "volcanoes and bicycles", "xylophone quokka"]
        )
        assert own.confidence > half.confidence > none.confidence

    def test_an_expert_without_documents_says_so(self) -> None:
        empty, _ = build([], HashingEncoder())
        engine = ExtractiveEngine(EngineSpec())
        for base in (None, empty):
            batch = EngineBatch("bank", {}, [EngineQuery("why")], embed(["why"]), base)
            assert engine.answer(batch) == [EngineAnswer("The bank expert has no documents.", False, 0.0, ())]

    def test_it_needs_the_queries_vectors(self) -> None:
        batch = EngineBatch("bank", {}, [EngineQuery("why")], None, knowledge())
        with pytest.raises(ModelUnusable, match="routing must make them"):
            ExtractiveEngine(EngineSpec()).answer(batch)


class TestEvidence:
    @LAW
    @given(
        features=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1)),
        which=st.integers(0, 3),
        more=st.floats(0, 0.5),
    )
    def test_more_evidence_never_makes_an_answer_less_likely(
        self, features: tuple[float, float, float, float], which: int, more: float
    ) -> None:
        raised = list(features)
        raised[which] += more
        assert 0 <= Evidence(*features).confidence() <= Evidence(*raised).confidence() <= 1

    def test_confidence_is_the_fitted_logistic(self) -> None:
        expected = 1 / (1 + math.exp(-(6.02 * 0.7 + 3.44 * 0.6 + 0.87 * 0.5 + 5.19 * 0.1 - 6.55)))
        assert Evidence(0.7, 0.6, 0.5, 0.1).confidence() == pytest.approx(expected, abs=1e-9)

    def test_it_is_gathered_from_the_passages_that_are_read(self) -> None:
        query = np.array([1, 0, 0], np.float32)
        base = base_of(
            [("one", ["Volcanoes erupt.", "Ash."]), ("one", ["Lava."]), ("two", ["Bees."]), ("three", ["Cats."])],
            np.array([[0.8, 0.6, 0], [0.7, 0.7, 0], [0.5, 0.5, 0.7], [0.1, 0.9, 0.4]], np.float32),
            np.array([[0.9, 0.4, 0], [0.2, 0.9, 0], [0.95, 0.3, 0], [0, 1, 0], [0, 0, 1]], np.float32),
        )
        engine = ExtractiveEngine(EngineSpec(passages=2))
        evidence, sentences = engine.evidence(base, "volcanoes", query, [0, 1, 2, 3], [0.8, 0.7, 0.5, 0.1])
        assert evidence.passage == 0.8
        assert evidence.sentence == pytest.approx(0.95)
        assert evidence.overlap == pytest.approx(1.0)
        # The best document's 0.8 above the mean of the other documents' best, 0.5 and 0.1.
        assert evidence.distinct == pytest.approx(0.5)
        scores = {(s.passage, s.number): s.score for s in sentences}
        assert scores == pytest.approx(
            {
                (0, 0): 0.5 * 0.9 + 0.3 * 0.8 + 0.2,
                (0, 1): 0.5 * 0.2 + 0.3 * 0.8,
                (1, 0): 0.5 * 0.95 + 0.3 * 0.7,
            },
            abs=1e-6,
        )
        assert [s.score for s in sentences] == sorted(scores.values(), reverse=True)

    def test_rare_words_count_more_than_common_ones(self) -> None:
        query = np.array([1, 0], np.float32)
        base = base_of(
            [("one", ["Common rare."]), ("two", ["Common."]), ("three", ["Common."])],
            query[None].repeat(3, axis=0),
            query[None].repeat(3, axis=0),
        )
        engine = ExtractiveEngine(EngineSpec(passages=1))
        rare, common = math.log(1 + 4 / 2), math.log(1 + 4 / 4)
        (evidence, _) = engine.evidence(base, "rare unheard", query, [0], [1.0])
        assert evidence.overlap == pytest.approx(rare / (rare + math.log(1 + 4)))
        (evidence, _) = engine.evidence(base, "common unheard", query, [0], [1.0])
        assert evidence.overlap == pytest.approx(common / (common + math.log(1 + 4)))

    def test_a_question_without_content_overlaps_with_nothing(self) -> None:
        engine = ExtractiveEngine(EngineSpec())
        evidence, _ = engine.evidence(knowledge(), "what is it about?", embed(["x"])[0], [0, 1], [0.1, 0.1])
        assert evidence.overlap == 0

    def test_one_document_alone_stands_out_from_nothing(self) -> None:
        query = np.array([1, 0], np.float32)
        base = base_of(
            [("one", ["A loan."]), ("one", ["A card."])], query[None].repeat(2, axis=0), query[None].repeat(2, axis=0)
        )
        evidence, _ = ExtractiveEngine(EngineSpec()).evidence(base, "loan", query, [0, 1], [0.9, 0.2])
        assert evidence.distinct == 0


class TestManyPassages:
    def test_a_base_larger_than_what_is_surveyed_is_answered_from_its_best_passage(self) -> None:
        documents = [Document(f"d{n}", f"Title {n}", f"Subject{n} has the number{n}.") for n in range(SURVEYED + 40)]
        base, _ = build(documents, HashingEncoder())
        texts = [f"which number{n} has subject{n}" for n in (0, 63, 64, 103)]
        answers = ask(texts, base=base, spec=EngineSpec(answer_threshold=0))
        assert [answer.passages[0].document for answer in answers] == ["d0", "d63", "d64", "d103"]

    def test_more_passages_can_be_asked_for_than_are_surveyed_or_there_are(self) -> None:
        (answer,) = ask([QUESTIONS[0]], spec=EngineSpec(passages=1000, answer_threshold=0))
        assert answer.passages[0].document == "mortgages"

    def test_a_base_that_is_no_longer_used_is_let_go(self) -> None:
        """An engine outlives the bases it answers from: every new version of a library is a new one."""
        engine = ExtractiveEngine(EngineSpec())
        base, _ = build(DOCUMENTS, HashingEncoder())
        engine.answer(EngineBatch("bank", {}, [EngineQuery("loan")], embed(["loan"]), base))
        watched = weakref.ref(base)
        del base
        gc.collect()
        assert watched() is None
