"""What a routing benchmark could have found, drawn from a seeded generator: consistent, and of any number of labels."""

from random import Random
from typing import Any

KINDS = {"ensemble": 0.93, "neural": 0.91, "knn": 0.89, "centroid": 0.85, "heuristic": 0.55, "random": 0.12}
DOMAINS = ("nlp", "code", "science", "finance", "legal", "medical", "technical-support", "general")
N_BINS = 15
Query = tuple[int, int, float, float]  # true label, chosen label, confidence, coverage


def findings(
    *, kinds: tuple[str, ...] = tuple(KINDS), labels: tuple[str, ...] = DOMAINS, per_label: int = 40, seed: int = 0
) -> dict[str, Any]:
    """Findings of these routers, the first of them the default; every one errs mostly between neighbouring labels."""
    random = Random(seed)
    results = {kind: _result(random, labels, KINDS[kind], per_label) for kind in kinds}
    best = results[kinds[0]]["accuracy"]
    return {
        "data": {
            "file": "data/domains8.jsonl",
            "rows": 7_687,
            "train": 4_937,
            "dev": 1_800,
            "test": per_label * len(labels) + 150,
            "labels": list(labels),
            "oos_label": "oos",
            "group_field": "source",
            "shots": None,
        },
        "encoder": "all-MiniLM-L6-v2",
        "seeds": 5,
        "default": kinds[0],
        "seconds": 412.7,
        "results": results,
        "paired": [
            {
                "a": kinds[0],
                "b": kind,
                "difference": best - results[kind]["accuracy"],
                "ci": [best - results[kind]["accuracy"] - 0.0123, best - results[kind]["accuracy"] + 0.0145],
                "p": random.choice([0.00001, 0.0213, 0.4]),
            }
            for kind in kinds[1:]
        ],
        "leave_one_label_out": {
            "labels": {label: {kind: _detection(random) for kind in kinds} for label in labels},
            "mean": {kind: _detection(random) for kind in kinds},
        },
        "targets": [
            {"name": "routing accuracy", "value": best, "target": 0.95, "met": False},
            {"name": "routing overhead, ms", "value": 12.25, "target": 300, "met": True},
            {"name": "expert utilisation", "value": None, "target": 0.7, "met": None},
        ],
    }


def _detection(random: Random) -> dict[str, float]:
    return {"auroc": round(random.uniform(0.8, 0.98), 6), "fpr95": round(random.uniform(0.1, 0.5), 6)}


def _result(random: Random, labels: tuple[str, ...], accuracy: float, per_label: int) -> dict[str, Any]:
    queries = [_query(random, true, len(labels), accuracy) for true in range(len(labels)) for _ in range(per_label)]
    outside = [random.betavariate(2, 5) for _ in range(150)]
    right = sum(true == chosen for true, chosen, _, _ in queries) / len(queries)
    margin = 1.96 * (right * (1 - right) / len(queries)) ** 0.5
    return {
        "accuracy": right,
        "macro_f1": right - 0.004,
        "ece": random.uniform(0.01, 0.08),
        "ci": [right - margin, min(1.0, right + margin)],
        "oos_auroc": random.uniform(0.85, 0.97),
        "oos_fpr95": random.uniform(0.1, 0.5),
        "latency_ms": random.uniform(0.02, 1.5),
        "train_seconds": random.uniform(0, 40),
        "per_label": {label: _label(random, queries, place) for place, label in enumerate(labels)},
        "groups": {
            source: {"n": random.randint(20, 400), "accuracy": random.uniform(0.7, 1), "ece": random.uniform(0, 0.1)}
            for source in ("clinc", "cosqa", "medquad", "ubuntu-irc", "nq-open")
        },
        "confusion": {"labels": list(labels), "matrix": _matrix(queries, len(labels))},
        "confused": _confused(random, queries, labels),
        "reliability": _reliability(queries),
        "threshold_curve": [_above(queries, step / 20) for step in range(21)],
        "coverage_curve": [
            {
                "threshold": step / 20,
                "inside_kept": _share(coverage >= step / 20 for *_, coverage in queries),
                "outside_caught": _share(coverage < step / 20 for coverage in outside),
            }
            for step in range(21)
        ],
        "coverage_histogram": {
            "edges": [step / 20 for step in range(21)],
            "inside": _counts([coverage for *_, coverage in queries]),
            "outside": _counts(outside),
        },
        "confidence_histogram": {
            "edges": [step / 20 for step in range(21)],
            "right": _counts([confidence for true, chosen, confidence, _ in queries if true == chosen]),
            "wrong": _counts([confidence for true, chosen, confidence, _ in queries if true != chosen]),
        },
        "risk": [
            {
                "max_misroute": limit,
                "achieved": limit * 0.83,
                "experts_asked": 1 + 0.02 / limit,
                "ci": [limit * 0.6, limit * 1.1],
            }
            for limit in (0.01, 0.02, 0.05, 0.1)
        ],
        "balance": {
            "entropy": 0.987,
            "load_cv": 0.1432,
            "budget": 1.25,
            "accuracy_before": right,
            "accuracy_after": right - 0.0051,
            "load_cv_after": 0.0921,
        },
    }


def _query(random: Random, true: int, n_labels: int, accuracy: float) -> Query:
    good = random.random() < accuracy
    other = true ^ 1 if random.random() < 0.6 else random.randrange(n_labels)
    chosen = true if good else min(other, n_labels - 1)
    confidence = random.betavariate(9, 1.5) if chosen == true else random.betavariate(4, 3)
    return true, chosen, confidence, random.betavariate(8, 1.6)


def _label(random: Random, queries: list[Query], place: int) -> dict[str, float]:
    recall = _share(chosen == place for true, chosen, _, _ in queries if true == place)
    precision = _share(true == place for true, chosen, _, _ in queries if chosen == place)
    f1 = 2 * precision * recall / ((precision + recall) or 1)
    return {"n": sum(true == place for true, *_ in queries), "precision": precision, "recall": recall, "f1": f1}


def _matrix(queries: list[Query], n_labels: int) -> list[list[int]]:
    matrix = [[0] * n_labels for _ in range(n_labels)]
    for true, chosen, _, _ in queries:
        matrix[true][chosen] += 1
    return matrix


def _confused(random: Random, queries: list[Query], labels: tuple[str, ...]) -> list[dict[str, Any]]:
    matrix = _matrix(queries, len(labels))
    pairs = sorted(
        (-n, true, chosen) for true, row in enumerate(matrix) for chosen, n in enumerate(row) if true != chosen and n
    )
    words = ("how do i", "reset", "the loan", "my router", "in court", "when", "compile", "dose", "for children")
    return [
        {
            "true": labels[true],
            "chosen": labels[chosen],
            "n": -n,
            "examples": [" ".join(random.choices(words, k=6)) for _ in range(2)],
        }
        for n, true, chosen in pairs[:10]
    ]


def _reliability(queries: list[Query]) -> list[dict[str, Any]]:
    bins = []
    for place in range(N_BINS):
        inside = [query for query in queries if min(int(query[2] * N_BINS), N_BINS - 1) == place]
        bins.append(
            {
                "from": place / N_BINS,
                "to": (place + 1) / N_BINS,
                "n": len(inside),
                "confidence": sum(query[2] for query in inside) / len(inside) if inside else None,
                "accuracy": _share(true == chosen for true, chosen, _, _ in inside) if inside else None,
            }
        )
    return bins


def _above(queries: list[Query], threshold: float) -> dict[str, Any]:
    kept = [query for query in queries if query[2] >= threshold]
    accuracy = _share(true == chosen for true, chosen, _, _ in kept) if kept else None
    return {"threshold": threshold, "answered": len(kept) / len(queries), "accuracy": accuracy}


def _counts(values: list[float]) -> list[int]:
    counts = [0] * 20
    for value in values:
        counts[min(int(value * 20), 19)] += 1
    return counts


def _share(values: Any) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
