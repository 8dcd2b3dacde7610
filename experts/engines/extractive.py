"""Answers from the expert's documents, in their own sentences, with citations; and says so where they hold none.

No language model: the passages nearest to the query are found, their sentences compared with it, and the best ones
quoted. Nothing is said that is not in a document.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from experts.encoders.base import Vectors
from experts.engines.base import CitedPassage, EngineAnswer, EngineBatch, EngineSpec
from experts.errors import ModelUnusable
from experts.knowledge import KnowledgeBase

_WORD = re.compile(r"[a-z0-9]+")
_STOP = frozenset(
    [
        "a",
        "about",
        "all",
        "also",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "because",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "get",
        "give",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "just",
        "like",
        "make",
        "me",
        "my",
        "no",
        "not",
        "of",
        "on",
        "one",
        "or",
        "our",
        "out",
        "please",
        "should",
        "so",
        "some",
        "tell",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "too",
        "up",
        "us",
        "use",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "whose",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)

# A sentence's score: its own cosine, its passage's, and the share of the query's words it holds.
_SENTENCE, _PASSAGE, _OVERLAP = 0.5, 0.3, 0.2
# Further sentences are quoted while they score nearly as well as the best one.
_NEARLY = 0.85
_MOST_SENTENCES = 3

# Probability that the documents hold an answer: a logistic over `Evidence`, in its order. Fitted on real questions by
# `python -m tests.bench.fit_answerability`; half of the questions had an answer, a quarter a near miss, a quarter none.
_CONFIDENCE_WEIGHTS = (6.02, 3.44, 0.87, 5.19)
_CONFIDENCE_BIAS = -6.55
# Passages looked at to see how much the best document stands out from the next ones.
SURVEYED = 64
_NEXT_DOCUMENTS = 15


@dataclass(frozen=True, slots=True)
class _Sentence:
    passage: int  # place among the hits
    number: int  # place within the passage
    score: float


class _Words:
    """How much each word of a knowledge base says: rare words more than common ones."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        seen: Counter[str] = Counter()
        self.of_passage = [self.content(f"{p.title} {p.text}") for p in knowledge.passages]
        for found in self.of_passage:
            seen.update(found)
        self._passages = knowledge.passages  # not the base itself: it would never be let go
        self._of_sentences: dict[int, list[frozenset[str]]] = {}
        self._n = len(knowledge) + 1
        self._seen = seen

    @staticmethod
    def content(text: str) -> frozenset[str]:
        return frozenset(_stem(word) for word in _WORD.findall(text[:4000].lower()) if word not in _STOP)

    def of_sentences(self, place: int) -> list[frozenset[str]]:
        """The words of each sentence of one passage; kept from its first use on."""
        if place not in self._of_sentences:
            passage = self._passages[place]
            self._of_sentences[place] = [self.content(passage.text[s.start : s.stop]) for s in passage.sentences]
        return self._of_sentences[place]

    def weight(self, word: str) -> float:
        return math.log(1 + self._n / (1 + self._seen[word]))

    def overlap(self, query: frozenset[str], words: frozenset[str]) -> float:
        """Share of the query's words, by weight, that are among ``words``; 0 for a query without content."""
        total = sum(map(self.weight, query))
        return sum(self.weight(word) for word in query & words) / total if total else 0.0


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


@dataclass(frozen=True, slots=True)
class Evidence:
    """What confidence is judged by: the best passage's and the best sentence's cosine, the share of the query's words
    in the best passage, and how far the best document's cosine stands above the mean of the next fifteen documents."""

    passage: float
    sentence: float
    overlap: float
    distinct: float

    def confidence(self) -> float:
        features = (self.passage, self.sentence, self.overlap, self.distinct)
        score = sum(w * f for w, f in zip(_CONFIDENCE_WEIGHTS, features, strict=True)) + _CONFIDENCE_BIAS
        return 1 / (1 + math.exp(-score))


class ExtractiveEngine:
    """Quotes the sentences of the knowledge base that answer best."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._words: WeakKeyDictionary[KnowledgeBase, _Words] = WeakKeyDictionary()

    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        if batch.knowledge is None or len(batch.knowledge) == 0:
            return [EngineAnswer(f"The {batch.expert} expert has no documents.", False, 0.0) for _ in batch.queries]
        if batch.vectors is None:
            raise ModelUnusable("the extractive engine needs the queries' embeddings; routing must make them")
        surveyed = max(SURVEYED, self._spec.passages)
        hits = batch.knowledge.search(batch.vectors, min(surveyed, len(batch.knowledge)))
        return [
            self._answer(batch.expert, batch.knowledge, query.text, vector, found.tolist(), cosines.tolist())
            for query, vector, found, cosines in zip(
                batch.queries, batch.vectors, hits.indices, hits.scores, strict=True
            )
        ]

    def evidence(
        self, knowledge: KnowledgeBase, text: str, vector: Vectors, places: Sequence[int], cosines: Sequence[float]
    ) -> tuple[Evidence, list[_Sentence]]:
        """What the passages at ``places`` (best first) say to the query, and the best ones' sentences, best first."""
        words = self._words.get(knowledge)
        if words is None:
            words = self._words[knowledge] = _Words(knowledge)
        query = words.content(text)
        sentences, best_sentence, best_overlap = [], 0.0, 0.0
        read = self._spec.passages
        for at, (place, cosine) in enumerate(zip(places[:read], cosines[:read], strict=True)):
            best_overlap = max(best_overlap, words.overlap(query, words.of_passage[place]))
            own = (knowledge.sentence_vectors(place) @ vector).tolist()
            for number, (held, likeness) in enumerate(zip(words.of_sentences(place), own, strict=True)):
                score = _SENTENCE * likeness + _PASSAGE * cosine + _OVERLAP * words.overlap(query, held)
                sentences.append(_Sentence(at, number, score))
                best_sentence = max(best_sentence, likeness)
        sentences.sort(key=lambda sentence: -sentence.score)
        distinct = _distinct(knowledge, places, cosines)
        return Evidence(cosines[0], best_sentence, best_overlap, distinct), sentences

    def _answer(
        self,
        expert: str,
        knowledge: KnowledgeBase,
        text: str,
        vector: Vectors,
        places: Sequence[int],
        cosines: Sequence[float],
    ) -> EngineAnswer:
        evidence, sentences = self.evidence(knowledge, text, vector, places, cosines)
        confidence = round(evidence.confidence(), 4)
        if confidence < self._spec.answer_threshold or not sentences:
            nearest = knowledge.passages[places[0]].title
            words = f"The documents of the {expert} expert hold no answer to this; the nearest is “{nearest}”."
            return EngineAnswer(words, False, confidence, [_cite(knowledge, places[0], cosines[0])])
        best = sentences[0].score
        chosen = [s for s in sentences[:_MOST_SENTENCES] if s.score >= best - (1 - _NEARLY) * abs(best)]
        # In reading order: the passage of the best sentence first, sentences as they stand in it.
        order = list(dict.fromkeys(s.passage for s in chosen))
        parts = []
        for citation, at in enumerate(order, 1):
            passage = knowledge.passages[places[at]]
            numbers = sorted(s.number for s in chosen if s.passage == at)
            quoted = " ".join(passage.text[passage.sentences[n].start : passage.sentences[n].stop] for n in numbers)
            parts.append(f"{quoted} [{citation}]")
        cited = [_cite(knowledge, places[at], cosines[at]) for at in order]
        return EngineAnswer(" ".join(parts), True, confidence, cited)


def _distinct(knowledge: KnowledgeBase, places: Sequence[int], cosines: Sequence[float]) -> float:
    best: dict[str, float] = {}
    for place, cosine in zip(places, cosines, strict=True):  # best first: the first of a document is its best
        best.setdefault(knowledge.passages[place].document, cosine)
    first, *others = list(best.values())[: _NEXT_DOCUMENTS + 1]
    return first - sum(others) / len(others) if others else 0.0


def _cite(knowledge: KnowledgeBase, place: int, cosine: float) -> CitedPassage:
    p = knowledge.passages[place]
    return CitedPassage(p.document, p.title, p.start, p.stop, round(cosine, 4))


def make(spec: EngineSpec) -> ExtractiveEngine:
    return ExtractiveEngine(spec)
