"""Making documents, and cutting them into passages and sentences that point at the very characters."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.documents import PASSAGE_CHARS, Document, Passage, Span, make_document, passages, sentences
from experts.errors import BadDocument
from tests.contracts.samples import HOSTILE, LAW

# Sentences, abbreviations, quotes, lists and gaps, so that generated texts look like documents.
PIECES = st.sampled_from(
    [
        "A loan",
        "is paid",
        "e.g.",
        "Dr.",
        "U.S.",
        "3.5",
        ".",
        "!",
        "?",
        '"',
        "(",
        ")",
        "'",
        " ",
        " ",
        "\n",
        "\n\n",
        "\r\n",
        *("# ", "- ", "x" * 90, "Größe", "👍", "\t", "\u00a0", "\u2028", "…"),
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=200)


def cut(text: str) -> list[str]:
    """The texts of all sentences."""
    return [text[span.start : span.stop] for span in sentences(text, 0, len(text))]


class TestMakeDocument:
    @pytest.mark.parametrize(
        ("name", "title", "expected"),
        [
            ("personal-loans", None, "personal loans"),
            ("bank/personal_loans", None, "personal loans"),
            ("loans", "", "loans"),
            ("loans", " \n", "loans"),
            ("loans", "  All about loans ", "All about loans"),
        ],
    )
    def test_the_title_is_the_one_given_else_the_last_part_of_the_name(
        self, name: str, title: str | None, expected: str
    ) -> None:
        assert make_document(name, title, "Paid back.", where="here") == Document(name, expected, "Paid back.")

    def test_space_around_the_text_is_taken_away_and_inside_it_stays(self) -> None:
        assert make_document("a", None, "\n\n  One.\n\n Two.\t\n", where="here").text == "One.\n\n Two."

    @pytest.mark.parametrize("text", ["", " \n\t\u2003", "a\x00b"])
    def test_what_is_no_text_is_refused_with_its_place(self, text: str) -> None:
        with pytest.raises(BadDocument, match=r"^loans\.md line 7: holds no text|^loans\.md line 7: holds NUL"):
            make_document("a", None, text, where="loans.md line 7")

    @pytest.mark.parametrize(("name", "title"), [("a\x00b", None), ("a", "t\x00")], ids=["name", "title"])
    def test_a_name_or_title_that_cannot_be_stored_is_refused(self, name: str, title: str | None) -> None:
        with pytest.raises(BadDocument, match="here"):
            make_document(name, title, "Paid back.", where="here")


class TestSentences:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", []),
            (" \n ", []),
            ("One", ["One"]),
            ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
            ("It costs 3.5 percent. 20 is more.", ["It costs 3.5 percent.", "20 is more."]),
            ("See node.js. It is fast.", ["See node.js.", "It is fast."]),
            ("lower. case goes on", ["lower. case goes on"]),
            ("Here Dr. Smith of the U.S. Army came. He left.", ["Here Dr. Smith of the U.S. Army came.", "He left."]),
            ("Loans, e.g. Mortgages, cost. Yes.", ["Loans, e.g. Mortgages, cost.", "Yes."]),
            ("John F. Kennedy spoke. All heard.", ["John F. Kennedy spoke.", "All heard."]),
            ("A heading\nOne. Two.\n- an item\n- More", ["A heading", "One.", "Two.", "- an item", "- More"]),
            ("One.\r\nTwo.\r\n", ["One.", "Two."]),
            ("---\n***\nOne.\n...", ["One."]),
            ("Größe zählt. Ähnlich.", ["Größe zählt. Ähnlich."]),
            ("  One.   Two.  ", ["One.", "Two."]),
        ],
    )
    def test_they_end_where_a_reader_would_end_them(self, text: str, expected: list[str]) -> None:
        assert cut(text) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
            ("It is late (or so. I hear.) They go.", ["It is late (or so.", "I hear.)", "They go."]),
            ("Is it 'true?' Nobody knows.", ["Is it 'true?'", "Nobody knows."]),
            ("Quoted [here.] Then not.", ["Quoted [here.]", "Then not."]),
        ],
    )
    def test_a_closing_quote_or_bracket_belongs_to_the_sentence_before_it(self, text: str, expected: list[str]) -> None:
        assert cut(text) == expected

    def test_only_the_part_between_the_two_places_is_cut(self) -> None:
        text = "Not this. One. Two. Nor this."
        assert list(sentences(text, 10, 19)) == [Span(10, 14), Span(15, 19)]

    @LAW
    @given(text=TEXTS)
    def test_every_letter_is_in_exactly_one_sentence_and_sentences_stand_in_order(self, text: str) -> None:
        spans = list(sentences(text, 0, len(text)))
        held = [place for span in spans for place in range(span.start, span.stop)]
        assert held == sorted(set(held))
        assert {place for place, character in enumerate(text) if character.isalnum()} <= set(held)
        for span in spans:
            found = text[span.start : span.stop]
            assert found == found.strip()
            assert "\n" not in found


def assert_sound(text: str, found: list[Passage], limit: int) -> None:
    """Passages are whole sentences, in order, apart, and within the limit unless they are a single sentence."""
    for passage in found:
        assert passage.span == Span(passage.sentences[0].start, passage.sentences[-1].stop)
        assert passage.span.stop - passage.span.start <= limit or len(passage.sentences) == 1
    for before, after in pairwise(found):
        assert before.span.stop <= after.span.start
    cut = [span for passage in found for span in passage.sentences]
    held = {place for span in cut for place in range(span.start, span.stop)}
    assert {place for place, character in enumerate(text) if character.isalnum()} <= held


class TestPassages:
    def test_short_paragraphs_are_joined_up_to_the_limit(self) -> None:
        text = "One.\n\nTwo.\n\nThree."
        assert passages(text, limit=10) == [
            Passage(Span(0, 10), (Span(0, 4), Span(6, 10))),
            Passage(Span(12, 18), (Span(12, 18),)),
        ]
        assert [p.span for p in passages(text, limit=18)] == [Span(0, 18)]
        assert [p.span for p in passages(text, limit=17)] == [Span(0, 10), Span(12, 18)]

    def test_a_paragraph_that_does_not_fit_beside_the_one_before_starts_a_passage(self) -> None:
        text = "One.\n\nTwo two. Three three."
        assert [text[p.span.start : p.span.stop] for p in passages(text, limit=22)] == ["One.", "Two two. Three three."]

    def test_a_long_paragraph_is_cut_between_sentences(self) -> None:
        text = "Aaa aaa. Bbb bbb. Ccc ccc."
        assert [text[p.span.start : p.span.stop] for p in passages(text, limit=17)] == ["Aaa aaa. Bbb bbb.", "Ccc ccc."]

    def test_a_sentence_longer_than_the_limit_stands_alone(self) -> None:
        text = f"Short. {'Long ' * 10}end. Short."
        assert [text[p.span.start : p.span.stop] for p in passages(text, limit=20)] == [
            "Short.",
            f"{'Long ' * 10}end.",
            "Short.",
        ]

    @pytest.mark.parametrize("text", ["", "\n\n\n", "---\n\n***", " . ! ? "])
    def test_a_text_without_letters_has_no_passages(self, text: str) -> None:
        assert passages(text) == []

    @LAW
    @given(text=TEXTS, limit=st.sampled_from([1, 10, 40, 100, PASSAGE_CHARS]))
    def test_no_letter_is_lost_and_no_passage_is_too_long(self, text: str, limit: int) -> None:
        assert_sound(text, passages(text, limit=limit), limit)

    @pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
    def test_a_hostile_text_is_cut_as_any_other(self, text: str) -> None:
        assert_sound(text, passages(text), PASSAGE_CHARS)

    @pytest.mark.timeout(5)
    @pytest.mark.parametrize("gap", ["\n" * 150_000, " " * 150_000], ids=["blank lines", "one blank line"])
    def test_a_document_of_many_blank_lines_does_not_take_for_ever(self, gap: str) -> None:
        """A document may have 20 MiB; work that grows with the square of the gap would hang on it."""
        text = f"One.\n{gap}\nTwo."
        assert [text[s.start : s.stop] for p in passages(text, limit=10) for s in p.sentences] == ["One.", "Two."]
