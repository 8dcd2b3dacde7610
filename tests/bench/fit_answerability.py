"""Fit the extractive engine's confidence: do the documents hold an answer to the query?

    python -m tests.bench.fit_answerability PASSAGES_AND_QUESTIONS.jsonl

The file has passages (`type`, `id`, `domain`, `title`, `text`) and questions (`text`, `domain`, `gold`, `answerable`,
`split`). Every domain is a knowledge base. Half of the weight goes to answerable questions; a quarter to near misses,
which are questions whose passages (all of the same titles) were taken out; a quarter to questions of the other domains.
Fits on `dev`, prints the weights, and reports AUROC on `test`.
"""

import json
import sys
from dataclasses import astuple
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from experts.documents import Document
from experts.encoders.base import EncoderSpec, Vectors, load_encoder
from experts.engines.base import EngineSpec
from experts.engines.extractive import SURVEYED, Evidence, ExtractiveEngine
from experts.knowledge import KnowledgeBase, build

_READ = 128  # passages looked at, so that enough are left when the right ones are taken out


def main(path: Path) -> None:
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    passages = [row for row in rows if row["type"] == "passage"]
    questions = [row for row in rows if row["type"] == "question"]
    encoder = load_encoder(EncoderSpec(threads=2))
    vectors = dict(zip((q["id"] for q in questions), encoder.encode([q["text"] for q in questions]), strict=True))
    engine = ExtractiveEngine(EngineSpec())
    # split -> kind -> features
    seen: dict[str, dict[str, list[Evidence]]] = {
        split: {"answer": [], "near miss": [], "elsewhere": []} for split in ("dev", "test")
    }
    for domain in sorted({row["domain"] for row in passages}):
        own = [row for row in passages if row["domain"] == domain]
        titles = {row["id"]: row["title"] or row["id"] for row in own}
        base, _ = build([Document(row["id"], row["title"] or "", row["text"]) for row in own], encoder)
        for row in questions:
            vector = vectors[row["id"]]
            hits = base.search(vector[None, :], _READ)
            found = list(zip(hits.indices[0].tolist(), hits.scores[0].tolist(), strict=True))
            gone = {titles.get(gold) for gold in row["gold"]}
            without = [(p, s) for p, s in found if titles[base.passages[p].document] not in gone]
            judge = partial(_judge, engine, base, row["text"], vector)
            kinds = seen[row["split"]]
            if row["domain"] != domain:
                kinds["elsewhere"].append(judge(found))
            elif not row["answerable"]:
                kinds["near miss"].append(judge(found))
            else:
                kinds["answer"].append(judge(found))
                kinds["near miss"].append(judge(without))
    share = {"answer": 0.5, "near miss": 0.25, "elsewhere": 0.25}
    fitted = LogisticRegression(C=100.0)
    features, labels, weights = _table(seen["dev"], share)
    fitted.fit(features, labels, sample_weight=weights)
    print("weights", [round(float(w), 2) for w in fitted.coef_[0]], "bias", round(float(fitted.intercept_[0]), 2))
    for split in ("dev", "test"):
        for against in ("near miss", "elsewhere"):
            features, labels, _ = _table({k: v for k, v in seen[split].items() if k in ("answer", against)}, share)
            auroc = roc_auc_score(labels, fitted.decision_function(features))
            print(f"{split}: answer against {against}: n {len(labels)}, AUROC {auroc:.3f}")


def _judge(
    engine: ExtractiveEngine, base: KnowledgeBase, text: str, vector: Vectors, kept: list[tuple[int, float]]
) -> Evidence:
    places, cosines = zip(*kept[:SURVEYED], strict=True)
    return engine.evidence(base, text, vector, places, cosines)[0]


def _table(seen: dict[str, list[Evidence]], share: dict[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    features = np.array([astuple(evidence) for kind in seen.values() for evidence in kind])
    labels = np.array([kind == "answer" for kind, found in seen.items() for _ in found])
    weights = np.array([share[kind] / len(found) * len(labels) for kind, found in seen.items() for _ in found])
    return features, labels, weights


if __name__ == "__main__":
    main(Path(sys.argv[1]))
