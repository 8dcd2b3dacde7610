"""Federated search against a slow reference, and what it may read."""

from collections.abc import Mapping

import numpy as np
import pytest

from experts.encoders.base import Vectors
from experts.federated import FederatedSearch, Found, Reading
from experts.lexical import WordIndex

EVERYTHING = Reading(read_if_sure=2, read_at_most=2)
PLAIN = Reading(read_if_sure=2, read_at_most=2, hub_weight=0, word_weight=0)
WORDS = ("oak", "elm", "fir", "yew", "ash", "pine")


def unit(vectors: Vectors) -> Vectors:
    made: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return made


def clustered(n: int, *, around: int, seed: int, dimension: int = 32) -> Vectors:
    """n vectors around some centres, as passages lie around topics."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(around, dimension))
    return unit(centres[random.integers(around, size=n)] + 0.4 * random.normal(size=(n, dimension)))


def texts_of(libraries: Mapping[str, Vectors]) -> dict[str, list[str]]:
    random = np.random.default_rng(5)
    return {name: [" ".join(random.choice(WORDS, 4)) for _ in vectors] for name, vectors in libraries.items()}


# More than are read whole, and so many that a quarter of them is more than the least that is read.
LIBRARIES = {
    "code": clustered(1500, around=60, seed=1),
    "law": clustered(700, around=30, seed=2),
    "art": clustered(7, around=1, seed=3),
}
TEXTS = texts_of(LIBRARIES)
ALL = np.concatenate(list(LIBRARIES.values()))
OWNER = [(expert, place) for expert, name in enumerate(LIBRARIES) for place in range(len(LIBRARIES[name]))]
QUERIES = unit(ALL[::46] + 0.1 * np.random.default_rng(4).normal(size=(48, 32)).astype(np.float32))
EVEN = np.full((len(QUERIES), 3), 1 / 3, np.float32)


def sure_of(expert: int, n: int = len(QUERIES)) -> Vectors:
    shares = np.zeros((n, 3), np.float32)
    shares[:, expert] = 1
    return shares


def pairs(found: Found) -> list[list[tuple[int, int]]]:
    rows = zip(found.experts.tolist(), found.passages.tolist(), strict=True)
    return [list(zip(experts, passages, strict=True)) for experts, passages in rows]


def test_without_a_budget_it_finds_what_an_exact_search_finds() -> None:
    found = FederatedSearch(LIBRARIES, reading=PLAIN).search(QUERIES, EVEN, 10)
    cosines = QUERIES @ ALL.T
    order = np.argsort(-cosines, axis=1)[:, :10]
    assert pairs(found) == [[OWNER[place] for place in row] for row in order.tolist()]
    assert found.scores == pytest.approx(np.take_along_axis(cosines, order, axis=1), abs=1e-5)


def test_a_score_is_cosine_less_hubness_plus_words() -> None:
    reading = Reading(read_if_sure=2, read_at_most=2, neighbours=3, rescored=len(ALL))
    queries = [" ".join(np.random.default_rng(row).choice(WORDS, 2)) for row in range(len(QUERIES))]
    found = FederatedSearch(LIBRARIES, TEXTS, reading).search(QUERIES, EVEN, 10, queries)

    nearest = [np.sort(own @ own.T - 9 * np.eye(len(own)), axis=1)[:, -3:] for own in LIBRARIES.values()]
    hubness = np.concatenate(nearest).mean(axis=1)
    together = WordIndex([text for name in LIBRARIES for text in TEXTS[name]])
    bm25 = together.score(queries, np.tile(np.arange(len(ALL)), (len(QUERIES), 1)))
    expected = QUERIES @ ALL.T - 0.25 * hubness + 0.004 * bm25
    order = np.argsort(-expected, axis=1)[:, :10]
    # Cells are looked through for neighbours, so a passage's may be missed; nearly all are found.
    assert np.abs(found.scores - np.take_along_axis(expected, order, axis=1)).mean() < 1e-3
    best = [OWNER[place] for place in order[:, 0]]
    assert sum(row[0] == right for row, right in zip(pairs(found), best, strict=True)) >= 46


def test_words_count_only_where_passages_and_queries_have_them() -> None:
    queries = ["oak elm"] * len(QUERIES)
    without = FederatedSearch(LIBRARIES, reading=EVERYTHING).search(QUERIES, EVEN, 5, queries)
    unasked = FederatedSearch(LIBRARIES, TEXTS, EVERYTHING).search(QUERIES, EVEN, 5)
    both = FederatedSearch(LIBRARIES, TEXTS, EVERYTHING).search(QUERIES, EVEN, 5, queries)
    assert without.scores.tolist() == unasked.scores.tolist()
    assert (both.scores[:, 0] > without.scores[:, 0]).any()


@pytest.mark.parametrize("shares", [EVEN, sure_of(0), sure_of(2)], ids=["unsure", "sure", "sure of the smallest"])
def test_no_query_reads_more_than_the_budget(shares: Vectors) -> None:
    found = FederatedSearch(LIBRARIES).search(QUERIES, shares, 5)
    assert found.reads.max() <= 0.4 * len(ALL)
    if shares is not EVEN:
        assert found.reads.max() <= 0.25 * len(ALL)


def test_reads_are_the_passages_in_the_cells_read_the_centroids_and_the_experts() -> None:
    """With a depth that takes in everything read, what was read can be counted."""
    reading = Reading(rescored=len(ALL))
    search = FederatedSearch(LIBRARIES, reading=reading)
    found = search.search(QUERIES, EVEN, len(ALL))
    read = (found.experts >= 0).sum(axis=1)
    n_cells = int(2 * 1500**0.5) + int(2 * 700**0.5) + 1
    assert (found.reads - read).tolist() == [n_cells + 3] * len(QUERIES)
    assert 0 < read.min() < read.max() < len(ALL)


def test_reading_a_part_finds_nearly_everything() -> None:
    part = FederatedSearch(LIBRARIES, reading=Reading(hub_weight=0)).search(QUERIES, EVEN, 1)
    whole = FederatedSearch(LIBRARIES, reading=PLAIN).search(QUERIES, EVEN, 1)
    same = sum(a == b for a, b in zip(pairs(part), pairs(whole), strict=True))
    assert same == len(QUERIES)


def test_the_less_sure_the_router_the_more_is_read() -> None:
    search = FederatedSearch(LIBRARIES)
    leaning = np.tile(np.array([0.7, 0.2, 0.1], np.float32), (len(QUERIES), 1))
    sure, some, unsure = (search.search(QUERIES, shares, 5).reads.mean() for shares in (sure_of(0), leaning, EVEN))
    assert sure < some < unsure


def test_an_expert_that_the_router_prefers_gets_more_of_the_budget() -> None:
    search = FederatedSearch(LIBRARIES, reading=Reading(rescored=len(ALL), read_if_sure=0.3, read_at_most=0.3))
    of_law = [
        (search.search(QUERIES, shares, len(ALL)).experts == 1).sum() for shares in (sure_of(0), EVEN, sure_of(1))
    ]
    assert of_law[0] < of_law[1] < of_law[2]


def test_a_wrong_router_does_not_hide_a_passage_that_is_much_nearer() -> None:
    found = FederatedSearch(LIBRARIES).search(LIBRARIES["law"], sure_of(0, 700), 1)
    assert (found.experts[:, 0] == 1).mean() > 0.95


def two(n: int) -> dict[str, Vectors]:
    """Libraries of one topic each."""
    return {"a": clustered(n, around=1, seed=6), "b": clustered(n, around=1, seed=7)}


def test_a_small_collection_is_read_whole() -> None:
    libraries = two(128)
    queries, shares = libraries["b"][:9], np.tile(np.array([1.0, 0.0], np.float32), (9, 1))
    search = FederatedSearch(libraries)
    assert search.search(queries, shares, 3).reads.tolist() == [256 + 2 * 16 + 2] * 9


def test_of_a_larger_one_the_least_is_read_within_the_budget() -> None:
    """0.4 of 600 passages and 512 of 1,400, where the share for a sure router would be 150 and 350."""
    for n, least in ((300, 240), (700, 512)):
        libraries = two(n)
        shares = np.tile(np.array([1.0, 0.0], np.float32), (9, 1))
        reads = FederatedSearch(libraries).search(libraries["a"][:9], shares, 3).reads
        assert 0.9 * least < reads.min() <= reads.max() <= least


def test_the_best_cell_is_read_however_small_the_budget() -> None:
    axes = np.eye(4, dtype=np.float32)
    search = FederatedSearch({"a": axes[:1], "b": axes[1:2]}, reading=Reading(read_whole=0))
    found = search.search(axes[1:2], np.array([[0.5, 0.5]], np.float32), 3)
    assert pairs(found) == [[(1, 0), (-1, -1), (-1, -1)]]
    assert found.scores.tolist() == [[1.0, -np.inf, -np.inf]]
    assert found.reads.tolist() == [5]


def test_a_passage_alone_in_its_library_has_no_advantage() -> None:
    """Without neighbours it counts as a hub like the others, not as none."""
    crowd = clustered(40, around=1, seed=8)
    lone = unit(crowd.mean(axis=0, keepdims=True))
    found = FederatedSearch({"crowd": crowd, "lone": lone}, reading=EVERYTHING).search(
        crowd, np.full((40, 2), 0.5, np.float32), 1
    )
    assert pairs(found) == [[(0, place)] for place in range(40)]


def test_an_expert_without_passages_is_passed_over() -> None:
    libraries = {"none": np.zeros((0, 32), np.float32), **LIBRARIES}
    shares = np.full((len(QUERIES), 4), 0.25, np.float32)
    found = FederatedSearch(libraries, reading=PLAIN).search(QUERIES, shares, 4)
    plain = FederatedSearch(LIBRARIES, reading=PLAIN).search(QUERIES, EVEN, 4)
    assert (found.experts - 1).tolist() == plain.experts.tolist()
    assert found.passages.tolist() == plain.passages.tolist()


def test_nothing_to_search_is_refused() -> None:
    with pytest.raises(ValueError, match="no passages"):
        FederatedSearch({"a": np.zeros((0, 8), np.float32)})
    with pytest.raises(ValueError, match="no passages"):
        FederatedSearch({})


def test_texts_that_do_not_go_with_the_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="one vector and one text"):
        FederatedSearch(LIBRARIES, {**TEXTS, "law": TEXTS["law"][:-1]})
    with pytest.raises(ValueError, match="one vector and one text"):
        FederatedSearch(LIBRARIES, {"code": TEXTS["code"]})


def test_no_queries_find_nothing() -> None:
    found = FederatedSearch(LIBRARIES).search(QUERIES[:0], EVEN[:0], 5)
    assert [part.shape for part in found] == [(0, 5), (0, 5), (0, 5), (0,)]


def test_the_same_twice_and_one_by_one_finds_the_same() -> None:
    words = ["oak yew"] * len(QUERIES)
    first = FederatedSearch(LIBRARIES, TEXTS).search(QUERIES, EVEN, 5, words)
    again = FederatedSearch(LIBRARIES, TEXTS).search(QUERIES, EVEN, 5, words)
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    search = FederatedSearch(LIBRARIES, TEXTS)
    single = [search.search(QUERIES[row : row + 1], EVEN[:1], 5, words[:1]) for row in range(len(QUERIES))]
    assert [pairs(found)[0] for found in single] == pairs(first)


def test_many_queries_are_searched_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    search = FederatedSearch(LIBRARIES, TEXTS)
    words = [WORDS[row % len(WORDS)] for row in range(len(QUERIES))]
    whole = search.search(QUERIES, EVEN, 5, words)
    monkeypatch.setattr("experts.federated._BATCH", 7)
    assert pairs(search.search(QUERIES, EVEN, 5, words)) == pairs(whole)
