"""Retrieval figures on collections of which every figure can be worked out by hand."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from experts.encoders.base import Vectors
from experts.encoders.hashing import HashingEncoder
from experts.evaluation.collection import Collection, Passage, Question
from experts.evaluation.retrieval import embed, measure

AXES = np.eye(16, dtype=np.float32)
# Four passages of each of two domains, every one on an axis of its own.
PASSAGES = tuple(Passage(domain, "", f"{domain} {n}") for domain in ("code", "law") for n in range(4))
PASSAGE_VECTORS = AXES[:8]


def question(domain: str, gold: set[int], *, split: str = "dev", gap: str | None = None) -> Question:
    return Question(domain, "which", frozenset(gold), gap, split)


def between(**parts: float) -> Vectors:
    """A vector with these cosines to the axes: ``a0=0.6, a4=0.8``."""
    vector = sum((value * AXES[int(name[1:])] for name, value in parts.items()), np.zeros(16, np.float32))
    rest = 1 - float(vector @ vector)
    made: Vectors = (vector + np.sqrt(max(rest, 0)) * AXES[15]).astype(np.float32)
    return made


def measured(questions: list[tuple[Question, Vectors]], top: int = 5) -> dict[str, Any]:
    asked, vectors = zip(*questions, strict=True)
    return measure(Collection(PASSAGES, tuple(asked)), PASSAGE_VECTORS, np.stack(vectors), top=top)


STRAIGHT = (question("code", {0}), between(a0=0.9))
SECOND = (question("law", {5}), between(a4=0.6, a5=0.5))
ASTRAY = (question("code", {1}), between(a4=0.7, a5=0.4, a1=0.3))
LOST = (question("law", {7}), between(a0=0.6, a1=0.5, a2=0.3, a3=0.2, a4=0.2, a5=0.2, a6=0.2, a7=0.1))


def test_recall_and_reciprocal_rank_are_those_counted_by_hand() -> None:
    """Ranks of the gold passage among all: 1, 2, 3, 8; in its own library: 1, 2, 1, 4."""
    methods = measured([STRAIGHT, SECOND, ASTRAY, LOST])["splits"]["dev"]["methods"]
    found = {
        name: [methods[name][key]["value"] for key in ("recall@1", "recall@5", "mrr@10")]
        for name in ("global", "oracle", "top1", "top2")
    }
    assert found == {
        "global": [0.25, 0.75, round((1 + 1 / 2 + 1 / 3 + 1 / 8) / 4, 4)],
        "oracle": [0.5, 1.0, round((1 + 1 / 2 + 1 + 1 / 4) / 4, 4)],
        "top1": [0.25, 0.5, round((1 + 1 / 2) / 4, 4)],
        "top2": [0.25, 0.75, round((1 + 1 / 2 + 1 / 3 + 1 / 8) / 4, 4)],
    }


def test_any_of_several_gold_passages_counts_and_the_first_found_ranks() -> None:
    several = (question("law", {6, 5, 7}), between(a4=0.6, a5=0.5))
    figures = measured([several])["splits"]["dev"]["methods"]["global"]
    assert [figures[key]["value"] for key in ("recall@1", "recall@5", "mrr@10")] == [0.0, 1.0, 0.5]


def test_recall_is_measured_among_as_many_as_asked_for() -> None:
    figures = measured([STRAIGHT, SECOND, ASTRAY, LOST], top=2)["splits"]["dev"]["methods"]["global"]
    assert figures["recall@2"]["value"] == 0.5
    assert "recall@5" not in figures
    assert list(measured([STRAIGHT], top=1)["splits"]["dev"]["routed_less_global"]) == ["recall@1", "mrr@10"]
    assert measured([LOST], top=100)["splits"]["dev"]["methods"]["global"]["recall@100"]["value"] == 1.0


def test_reads_are_counted_with_the_router_and_the_cells() -> None:
    """Eight passages, two experts, one cell each; so few passages are read whole."""
    methods = measured([STRAIGHT, SECOND])["splits"]["dev"]["methods"]
    assert {name: (figures["read"], figures["read_at_most"]) for name, figures in methods.items()} == {
        "global": (1.0, 1.0),
        "oracle": (0.5, 0.5),
        "top1": (6 / 8, 6 / 8),
        "top2": (10 / 8, 10 / 8),
        "routed": (12 / 8, 12 / 8),
        "exhaustive": (12 / 8, 12 / 8),
    }


def test_answerability_is_told_overall_and_per_kind_of_gap() -> None:
    """Best cosines of the answerable: 0.9 and 0.6; of the others 0.7, 0.5 and 0.4."""
    near = (question("code", set(), gap="near miss"), between(a2=0.7))
    far = (question("code", set(), gap="removed"), between(a2=0.5))
    unknown = (question("law", set()), between(a5=0.4))
    found = measured([STRAIGHT, SECOND, near, far, unknown])["splits"]["dev"]
    assert (found["answerable"], found["unanswerable"]) == (2, 3)
    assert found["gaps"] == {"near miss": 1, "removed": 1}
    assert found["methods"]["global"]["auroc"] == round(5 / 6, 4)
    assert found["methods"]["global"]["auroc_by_gap"] == {"near miss": 0.5, "removed": 1.0}


def test_without_questions_of_both_sorts_there_is_no_answerability() -> None:
    methods = measured([STRAIGHT, SECOND])["splits"]["dev"]["methods"]
    assert {name: figures["auroc"] for name, figures in methods.items()} == dict.fromkeys(methods)


def test_splits_are_measured_apart() -> None:
    other = (replace(LOST[0], split="test"), LOST[1])
    nothing = (question("law", set(), split="test"), between(a5=0.4))
    splits = measured([STRAIGHT, other, nothing])["splits"]
    assert list(splits) == ["dev", "test"]
    assert [splits[split]["methods"]["global"]["recall@5"]["value"] for split in splits] == [1.0, 0.0]
    assert [splits[split]["answerable"] for split in splits] == [1, 1]
    assert [splits[split]["unanswerable"] for split in splits] == [0, 1]


def test_a_split_without_answerable_questions_has_no_recall() -> None:
    nothing = (question("law", set(), split="test"), between(a5=0.4))
    found = measured([STRAIGHT, nothing])["splits"]["test"]
    assert found["methods"]["routed"]["recall@5"] == {"value": None, "ci": None}
    assert found["routed_less_global"]["recall@5"] == {"value": None, "ci": None}


def test_a_question_of_a_domain_without_library_is_asked_all_the_same() -> None:
    """The oracle knows that nobody has it, and reads nothing."""
    outside = (question("cooking", set(), gap="outside"), between(a0=0.7))
    figures = measured([STRAIGHT, outside])["splits"]["dev"]["methods"]
    assert figures["oracle"]["read"] == 0.25
    assert figures["oracle"]["auroc"] == 1.0
    assert figures["global"]["auroc"] == 1.0


def test_intervals_hold_the_value_and_the_difference_is_paired() -> None:
    found = measured([STRAIGHT, SECOND, ASTRAY, LOST])["splits"]["dev"]
    low, high = found["methods"]["global"]["recall@5"]["ci"]
    assert 0 <= low < 0.75 < high <= 1
    routed, everything = found["methods"]["routed"], found["methods"]["global"]
    for key, difference in found["routed_less_global"].items():
        assert difference["value"] == pytest.approx(routed[key]["value"] - everything[key]["value"], abs=2e-4)


def topics(n: int, seed: int) -> tuple[Collection, Vectors, Vectors]:
    """Three domains of ten topics; every third passage is asked for by a question close to it."""
    random = np.random.default_rng(seed)
    home = random.normal(size=(3, 1, 64)) + 0.8 * random.normal(size=(3, 10, 64))
    domain, topic = random.integers(3, size=n), random.integers(10, size=n)
    vectors = home[domain, topic] + 0.6 * random.normal(size=(n, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = vectors[::3] + 0.04 * random.normal(size=vectors[::3].shape)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    names = ("art", "code", "law")
    passages = tuple(Passage(names[d], "", f"passage {place}") for place, d in enumerate(domain))
    questions = tuple(
        Question(names[domain[place]], f"passage {place}", frozenset({place}), None, "dev") for place in range(0, n, 3)
    )
    return Collection(passages, questions), vectors.astype(np.float32), asked.astype(np.float32)


def test_routed_search_finds_what_the_global_index_finds_and_reads_less() -> None:
    found = measure(*topics(2700, seed=1))["splits"]["dev"]
    routed, everything = found["methods"]["routed"], found["methods"]["global"]
    assert everything["recall@5"]["value"] == 1.0
    assert routed["recall@5"]["value"] == 1.0
    assert routed["read_at_most"] <= 0.4
    assert routed["read"] < 0.3


def test_two_measurements_agree_in_everything_but_time() -> None:
    def timeless() -> dict[str, Any]:
        found = measure(*topics(300, seed=2))
        for figures in found["splits"]["dev"]["methods"].values():
            assert figures.pop("ms") > 0
        return found

    assert timeless() == timeless()


def test_the_figures_are_plain_json() -> None:
    found = measured([STRAIGHT, SECOND])
    assert json.loads(json.dumps(found)) == found
    assert found["data"] == {"passages": {"code": 4, "law": 4}, "questions": 2}


def test_passages_are_embedded_with_their_titles_as_a_knowledge_base_does() -> None:
    passages = (Passage("code", "Sorting", "Quick."), Passage("law", "", "A lease."))
    asked = (Question("code", "how to sort", frozenset({0}), None, "dev"),)
    made, of_questions = embed(Collection(passages, asked), HashingEncoder())
    expected = HashingEncoder().encode(["Sorting. Quick.", "A lease."]).astype(np.float16).astype(np.float32)
    assert made.tolist() == expected.tolist()
    assert of_questions.tolist() == HashingEncoder().encode(["how to sort"]).tolist()
