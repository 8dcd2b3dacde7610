"""The catalogue and the demonstration that ship with the program."""

import json
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import experts
from experts.cards import Catalogue, CatalogueExpert, read_catalogue
from experts.documents import passages
from experts.kinds import ENGINES

ROOT = Path(experts.__file__).parent if experts.__file__ else Path(next(iter(experts.__path__)))
NAMES = ["code", "finance", "general", "legal", "medical", "nlp", "science", "technical"]
PARENTS = {
    "technology": {"nlp", "code", "technical"},
    "knowledge": {"science", "general"},
    "professional": {"finance", "legal", "medical"},
}


@cache
def catalogue() -> Catalogue:
    return read_catalogue(ROOT / "catalogue")


@cache
def questions() -> tuple[dict[str, Any], ...]:
    lines = (ROOT / "demo" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


def normal(text: str) -> str:
    """A text as a careless reader sees it: no case, no punctuation, single spaces."""
    kept = "".join(c if c.isalnum() else " " for c in unicodedata.normalize("NFKC", text).casefold())
    return " ".join(kept.split())


@pytest.fixture(params=NAMES)
def expert(request: pytest.FixtureRequest) -> CatalogueExpert:
    return next(expert for expert in catalogue().experts if expert.card.name == request.param)


def test_there_are_eight_experts() -> None:
    assert [expert.card.name for expert in catalogue().experts] == NAMES


class TestEveryExpert:
    def test_its_card_is_complete(self, expert: CatalogueExpert) -> None:
        card = expert.card
        assert card.title
        assert card.name in PARENTS[card.parent or ""]
        assert card.engine is None or card.engine in ENGINES
        assert 4 <= len(card.capabilities) <= 7
        assert len({capability.name for capability in card.capabilities}) == len(card.capabilities)
        assert all(0.4 <= capability.confidence_threshold <= 0.6 for capability in card.capabilities)
        assert 60 <= len(card.keywords) <= 90
        assert len(set(card.keywords)) == len(card.keywords)
        assert 3 <= len(card.limits) <= 6

    def test_it_has_at_least_sixty_exemplars_of_different_texts(self, expert: CatalogueExpert) -> None:
        assert len(expert.exemplars) >= 60
        assert [text for text, n in Counter(map(normal, expert.exemplars)).items() if n > 1] == []

    def test_no_line_of_its_exemplars_is_taken_for_a_remark_or_is_blank(self, expert: CatalogueExpert) -> None:
        path = ROOT / "catalogue" / expert.card.name / "exemplars.txt"
        assert path.read_text(encoding="utf-8").splitlines() == expert.exemplars

    def test_it_has_at_least_thirty_documents_of_readable_length(self, expert: CatalogueExpert) -> None:
        assert len(expert.documents) >= 30
        lengths = {document.name: len(document.text.split()) for document in expert.documents}
        assert {name: n for name, n in lengths.items() if not 80 <= n <= 250} == {}

    def test_its_documents_have_titles_of_their_own(self, expert: CatalogueExpert) -> None:
        titles = [document.title for document in expert.documents]
        assert len(set(titles)) == len(titles)
        for document in expert.documents:
            path = ROOT / "catalogue" / expert.card.name / "documents" / f"{document.name}.md"
            assert path.read_text(encoding="utf-8").startswith(f"# {document.title}\n\n")

    def test_its_documents_are_plain_printable_prose(self, expert: CatalogueExpert) -> None:
        for document in expert.documents:
            odd = {c for c in document.text if c != "\n" and not c.isprintable()}
            assert odd == set(), document.name
            assert "http" not in document.text, document.name
            assert not any(line.startswith(("- ", "* ", "|", "#")) for line in document.text.split("\n")), document.name

    def test_its_documents_fall_into_few_passages(self, expert: CatalogueExpert) -> None:
        counts = {document.name: len(passages(document.text)) for document in expert.documents}
        assert {name: n for name, n in counts.items() if not 1 <= n <= 5} == {}


def test_no_text_is_an_exemplar_of_two_experts_or_of_one_and_of_outside() -> None:
    owners: dict[str, set[str]] = {}
    for expert in catalogue().experts:
        for text in expert.exemplars:
            owners.setdefault(normal(text), set()).add(expert.card.name)
    for text in catalogue().outside:
        owners.setdefault(normal(text), set()).add("outside")
    assert {text: names for text, names in owners.items() if len(names) > 1} == {}


def test_there_are_queries_outside_every_domain() -> None:
    assert len(catalogue().outside) >= 60
    assert len(set(map(normal, catalogue().outside))) == len(catalogue().outside)


class TestQuestions:
    def test_there_are_at_least_240_and_30_of_them_belong_to_nobody(self) -> None:
        domains = Counter(question["metadata"]["domain"] for question in questions())
        assert len(questions()) >= 240
        assert domains["outside"] == 30
        assert set(domains) == {*NAMES, "outside"}
        assert min(domains.values()) >= 26

    def test_ids_and_texts_are_all_different(self) -> None:
        assert len({question["id"] for question in questions()}) == len(questions())
        assert len({normal(question["text"]) for question in questions()}) == len(questions())

    def test_their_lines_hold_nothing_else(self) -> None:
        for question in questions():
            assert question.keys() == {"id", "text", "metadata"}
            assert question["metadata"].keys() <= {"domain", "answers", "document"}
            assert question["text"] == question["text"].strip() != ""

    def test_no_question_is_an_exemplar(self) -> None:
        taught = {normal(text) for expert in catalogue().experts for text in expert.exemplars}
        taught |= {normal(text) for text in catalogue().outside}
        assert [question["id"] for question in questions() if normal(question["text"]) in taught] == []

    def test_those_with_an_answer_name_a_document_of_their_domain_and_the_others_none(self) -> None:
        known = {expert.card.name: {d.name for d in expert.documents} for expert in catalogue().experts}
        for question in questions():
            about = question["metadata"]
            if about["answers"]:
                assert about["document"] in known[about["domain"]], question["id"]
                assert all(phrase == phrase.strip() != "" for phrase in about["answers"]), question["id"]
            else:
                assert "document" not in about, question["id"]

    def test_every_answer_stands_in_the_document_it_names(self) -> None:
        """Of several accepted wordings one is the document's own, case aside."""
        texts = {(e.card.name, d.name): d.text.casefold() for e in catalogue().experts for d in e.documents}
        answerable = [question for question in questions() if question["metadata"]["answers"]]
        lost = [
            question["id"]
            for question in answerable
            if not any(
                phrase.casefold() in texts[question["metadata"]["domain"], question["metadata"]["document"]]
                for phrase in question["metadata"]["answers"]
            )
        ]
        assert lost == []
        assert len(answerable) >= 160

    def test_every_expert_is_asked_for_what_it_knows_and_for_what_it_does_not(self) -> None:
        for name in NAMES:
            own = [question for question in questions() if question["metadata"]["domain"] == name]
            answerable = [question for question in own if question["metadata"]["answers"]]
            assert len(answerable) >= 20, name
            assert len(own) - len(answerable) >= 5, name
            assert len({question["metadata"]["document"] for question in answerable}) >= 15, name
