"""The shipped sample of what else people ask."""

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from experts.cards import read_catalogue
from experts.encoders.hashing import HashingEncoder
from experts.routing.world import SHIPPED, embedded_world, world_queries
from tests.contracts.doubles import RecordingEncoder

EXPERTS = SHIPPED.parent.parent
MOST_CHARACTERS = 600


@cache
def rows() -> tuple[dict[str, str], ...]:
    lines = SHIPPED.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return tuple(json.loads(line) for line in lines)


def normal(text: str) -> str:
    """A text as a careless reader sees it: no case, no punctuation, single spaces."""
    kept = "".join(c if c.isalnum() else " " for c in unicodedata.normalize("NFKC", text).casefold())
    return " ".join(kept.split())


def repeated(texts: Sequence[str]) -> list[str]:
    return [text for text, n in Counter(texts).items() if n > 1]


def asked_of_the_router(folder: Path) -> set[str]:
    """The questions of the demonstration, which the router is measured on."""
    lines = (folder / "demo" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return {normal(json.loads(line)["text"]) for line in lines}


class TestTheFile:
    def test_a_line_is_a_topic_and_a_text(self) -> None:
        assert {tuple(row) for row in rows()} == {("topic", "text")}
        for row in rows():
            assert row["topic"] == row["topic"].strip() != ""
            assert row["text"] == row["text"].strip() != ""

    def test_there_are_many_topics_with_many_queries_each(self) -> None:
        sizes = Counter(row["topic"] for row in rows())
        assert len(sizes) >= 200
        assert {topic: n for topic, n in sizes.items() if n < 10} == {}
        assert max(sizes.values()) <= 2 * min(sizes.values()), "no topic outweighs the others"

    def test_no_topic_goes_by_two_names(self) -> None:
        assert repeated([normal(topic) for topic in dict.fromkeys(row["topic"] for row in rows())]) == []

    def test_no_two_queries_are_the_same(self) -> None:
        assert repeated([normal(row["text"]) for row in rows()]) == []

    def test_no_line_is_long_and_every_character_can_be_printed(self) -> None:
        lines = SHIPPED.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if len(line) > MOST_CHARACTERS] == []
        odd = {c for row in rows() for c in row["topic"] + row["text"] if c != "\n" and not c.isprintable()}
        assert odd == set()

    def test_they_are_asked_in_every_manner(self) -> None:
        """Terse and long, questions and not."""
        lengths = np.array([len(row["text"].split()) for row in rows()])
        assert (lengths <= 5).mean() > 0.05
        assert (lengths >= 25).mean() > 0.05
        assert 0.2 < np.mean(["?" in row["text"] for row in rows()]) < 0.8

    def test_no_query_is_one_of_the_demonstration_or_an_exemplar(self) -> None:
        catalogue = read_catalogue(EXPERTS / "catalogue")
        exemplars = {normal(text) for expert in catalogue.experts for text in expert.exemplars}
        outside = {normal(text) for text in catalogue.outside}
        asked = asked_of_the_router(EXPERTS)
        assert len(exemplars) > 800
        assert len(asked) >= 240
        assert [row["text"] for row in rows() if normal(row["text"]) in exemplars | outside | asked] == []


class TestReading:
    def test_every_line_is_read_in_order(self) -> None:
        assert world_queries() == tuple((row["topic"], row["text"]) for row in rows())

    def test_it_is_read_once(self) -> None:
        assert world_queries() is world_queries()

    def test_topics_are_numbered_as_they_first_occur(self) -> None:
        world = embedded_world(HashingEncoder())
        names = list(dict.fromkeys(row["topic"] for row in rows()))
        assert world.topic.dtype == np.int64
        assert world.topic.tolist() == [names.index(row["topic"]) for row in rows()]

    def test_texts_and_vectors_are_in_the_order_of_the_file(self) -> None:
        encoder = RecordingEncoder()
        world = embedded_world(encoder)
        texts = [row["text"] for row in rows()]
        assert world.texts == texts
        assert encoder.calls == [texts]
        assert len(world.embedded) == len(texts)
        some = [0, len(texts) // 2, len(texts) - 1]
        expected = HashingEncoder().encode([texts[place] for place in some])
        np.testing.assert_array_equal(world.embedded.vectors[some], expected)
