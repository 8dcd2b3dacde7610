"""Retrieval over many experts' libraries, measured against one index over everything."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from experts.encoders.base import Encoder, Vectors
from experts.evaluation.collection import Collection
from experts.evaluation.metrics import auroc, interval
from experts.federated import FederatedSearch, Places, Reading

GLOBAL = "global"
ROUTED = "routed"
_RANKS = 10
_TIMED_RUNS = 2
_EVERYTHING = 2.0  # more than all: centroids and shares are reads, too
_DIGITS = 4

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Ranked:
    """What a method found: ``places`` int64[n, r] among all passages, -1 where no more; the ``best`` score float32[n],
    ``reads`` int64[n], and the time for all questions."""

    places: Places
    best: Vectors
    reads: Places
    seconds: float = 0.0


def embed(collection: Collection, encoder: Encoder) -> tuple[Vectors, Vectors]:
    """Vectors of passages and questions as the product makes them, float32[m, d] and float32[n, d]."""
    passages = encoder.encode([passage.full_text for passage in collection.passages])
    # A knowledge base keeps 16 bit.
    return passages.astype(np.float16).astype(np.float32), encoder.encode([q.text for q in collection.questions])


def measure(collection: Collection, passages: Vectors, questions: Vectors, *, top: int = 5) -> dict[str, Any]:
    """Recall, MRR, reads, answerability and time of every method, per split; values that JSON can hold.

    ``passages`` float32[m, d] and ``questions`` float32[n, d] are unit vectors in the order of the collection.

    ``recall@k`` is the share of answerable questions with at least one of their passages among the first k. The
    methods: ``global`` reads everything, ``oracle`` the right domain, ``top1`` and ``top2`` the first domains of a
    router, ``routed`` is FederatedSearch under the same router, and ``exhaustive`` is ``routed`` without a budget: what
    its scores gain stands apart there from what reading less costs. The router is a logistic regression from passages
    to domains; no question is used for training. Reads are inner products of a question's vector, those with the
    router's and the cells' vectors counted. Time is that of the search alone, in one call for all questions.
    """
    bench = _Bench(collection, passages, questions, max(top, _RANKS))
    methods: dict[str, Callable[[], _Ranked]] = {
        GLOBAL: bench.everything,
        "oracle": bench.oracle,
        "top1": lambda: bench.hard(1),
        "top2": lambda: bench.hard(2),
        ROUTED: bench.routed,
        "exhaustive": bench.exhaustive,
    }
    ranked = {name: _timed(method) for name, method in methods.items()}
    splits = sorted({question.split for question in collection.questions})
    return {
        "data": {
            "passages": dict(sorted(Counter(passage.domain for passage in collection.passages).items())),
            "questions": len(collection.questions),
        },
        "top": top,
        "splits": {split: _split(collection, bench, ranked, split, top) for split in splits},
    }


class _Bench:
    """The libraries, and the ways to search them."""

    def __init__(self, collection: Collection, passages: Vectors, questions: Vectors, ranks: int) -> None:
        self._passages, self._questions, self._ranks = passages, questions, ranks
        self._texts = [question.text for question in collection.questions]
        self._domains = collection.domains
        home = np.array([self._domains.index(passage.domain) for passage in collection.passages])
        self._libraries = [np.flatnonzero(home == place) for place in range(len(self._domains))]
        self.asked = np.array([question.domain == name for question in collection.questions for name in self._domains])
        self.asked = self.asked.reshape(len(self._texts), len(self._domains))
        router = LogisticRegression(C=10, max_iter=1000).fit(passages, home)
        self.shares: Vectors = router.predict_proba(questions).astype(np.float32)
        self._whole = [_flat(passages)]
        self._parts = [_flat(passages[places]) for places in self._libraries]
        parts = {
            name: [collection.passages[place].full_text for place in places]
            for name, places in zip(self._domains, self._libraries, strict=True)
        }
        vectors = {name: passages[places] for name, places in zip(self._domains, self._libraries, strict=True)}
        self._federated = FederatedSearch(vectors, parts)
        self._unbounded = FederatedSearch(vectors, parts, Reading(read_if_sure=_EVERYTHING, read_at_most=_EVERYTHING))

    def everything(self) -> _Ranked:
        all_of_them = np.ones((len(self._questions), 1), np.bool_)
        return self._exact(self._whole, [np.arange(len(self._passages))], all_of_them, extra_reads=0)

    def oracle(self) -> _Ranked:
        return self._exact(self._parts, self._libraries, self.asked, extra_reads=0)

    def hard(self, n: int) -> _Ranked:
        first = np.argsort(-self.shares, axis=1, kind="stable")[:, :n]
        chosen = np.zeros(self.shares.shape, np.bool_)
        np.put_along_axis(chosen, first, True, axis=1)
        return self._exact(self._parts, self._libraries, chosen, extra_reads=len(self._domains))

    def routed(self) -> _Ranked:
        return self._federate(self._federated)

    def exhaustive(self) -> _Ranked:
        return self._federate(self._unbounded)

    def _exact(self, indexes: Sequence[Any], owned: Sequence[Places], chosen: Mask, *, extra_reads: int) -> _Ranked:
        """The best of the indexes ``chosen`` bool[n, indexes] for each question."""
        n = len(self._questions)
        scores = np.full((n, len(indexes), self._ranks), -np.inf, np.float32)
        places = np.full(scores.shape, -1, np.int64)
        for number, (index, own) in enumerate(zip(indexes, owned, strict=True)):
            rows = np.flatnonzero(chosen[:, number])
            if len(rows):
                found, at = index.search(np.ascontiguousarray(self._questions[rows]), self._ranks)
                scores[rows, number] = np.where(at < 0, -np.inf, found)
                places[rows, number] = np.where(at < 0, -1, own[at])
        order = np.argsort(-scores.reshape(n, -1), axis=1, kind="stable")[:, : self._ranks]
        reads = chosen @ np.array([len(own) for own in owned]) + extra_reads
        return _Ranked(np.take_along_axis(places.reshape(n, -1), order, axis=1), scores.max(axis=(1, 2)), reads)

    def _federate(self, search: FederatedSearch) -> _Ranked:
        found = search.search(self._questions, self.shares, self._ranks, self._texts)
        first = np.cumsum([0, *(len(own) for own in self._libraries)])
        everywhere = np.concatenate(self._libraries)
        places = np.where(found.experts < 0, -1, everywhere[first[found.experts] + found.passages])
        return _Ranked(places, found.scores[:, 0], found.reads)


def _flat(vectors: Vectors) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return index


def _timed(method: Callable[[], _Ranked]) -> _Ranked:
    """What it finds, with the time of the fastest run: the first one finds caches cold."""
    seconds = []
    for _ in range(_TIMED_RUNS):
        started = time.perf_counter()
        found = method()
        seconds.append(time.perf_counter() - started)
    return _Ranked(found.places, found.best, found.reads, min(seconds))


def _split(
    collection: Collection, bench: _Bench, ranked: Mapping[str, _Ranked], split: str, top: int
) -> dict[str, Any]:
    own = np.array([question.split == split for question in collection.questions])
    answerable = np.array([question.answerable for question in collection.questions])
    gaps = np.array([question.gap or "" for question in collection.questions])
    kinds = sorted(set(gaps[own & ~answerable].tolist()) - {""})
    measured = {name: _measures(collection, found, own & answerable, top) for name, found in ranked.items()}
    right = bench.asked[np.arange(len(own)), bench.shares.argmax(axis=1)]
    return {
        "answerable": int((own & answerable).sum()),
        "unanswerable": int((own & ~answerable).sum()),
        "gaps": {gap: int((own & ~answerable & (gaps == gap)).sum()) for gap in kinds},
        "router_accuracy": _rounded(float(right[own].mean())),
        "methods": {
            name: {
                **{key: _estimate(values) for key, values in measured[name].items()},
                "read": _rounded(float(found.reads[own].mean()) / len(collection.passages)),
                "read_at_most": _rounded(float(found.reads[own].max()) / len(collection.passages)),
                "auroc": _answerability(found.best, own & answerable, own & ~answerable),
                "auroc_by_gap": {
                    gap: _answerability(found.best, own & answerable, own & ~answerable & (gaps == gap))
                    for gap in kinds
                },
                "ms": _rounded(1000 * found.seconds / len(collection.questions)),
            }
            for name, found in ranked.items()
        },
        "routed_less_global": {
            key: _estimate(values - measured[GLOBAL][key]) for key, values in measured[ROUTED].items()
        },
    }


def _measures(collection: Collection, found: _Ranked, rows: Mask, top: int) -> dict[str, NDArray[np.float64]]:
    """Each measure for each of the questions ``rows`` bool[n]."""
    hits: Mask = np.array(
        [
            [place in question.gold for place in row]
            for question, row, wanted in zip(collection.questions, found.places.tolist(), rows, strict=True)
            if wanted
        ],
        np.bool_,
    ).reshape(int(rows.sum()), found.places.shape[1])
    within = hits[:, :_RANKS]
    values: dict[str, NDArray[np.float64]] = {
        f"recall@{k}": np.asarray(hits[:, :k].any(axis=1), np.float64) for k in sorted({1, top})
    }
    values[f"mrr@{_RANKS}"] = np.where(within.any(axis=1), 1 / (1 + within.argmax(axis=1)), 0.0)
    return values


def _estimate(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean and 95 % bootstrap interval; None of nothing."""
    if not len(values):
        return {"value": None, "ci": None}
    return {"value": _rounded(float(values.mean())), "ci": [_rounded(end) for end in interval(values)]}


def _answerability(best: Vectors, inside: Mask, outside: Mask) -> float | None:
    """AUROC of the best score, questions with an answer against those without."""
    found = auroc(best[inside], best[outside])
    return None if found is None else _rounded(found)


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
