"""What the judge of coverage is shown, against a reference that looks at one query after another."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from experts.routing.base import OUTSIDE, Floats, TrainingSet, log_softmax
from experts.routing.coverage_training import fit_coverage
from experts.routing.judging import Logistic, coverage_features
from experts.routing.known import NEIGHBOURS, Queries, nearest_but_self
from experts.routing.logistic import fit_logistic
from experts.routing.router import RouterModel
from experts.routing.training import train_router
from tests.contracts import clusters

Row = list[float]


def mean_of_best(cosines: Floats, k: int) -> float:
    best = sorted(map(float, cosines), reverse=True)[:k]
    return sum(best) / len(best) if best else 0.0


def beyond(cosines: Floats, k: int, inside: float) -> float:
    return mean_of_best(cosines, k) - inside if len(cosines) else 0.0


class Reference:
    """One row of features for each query, written out."""

    def __init__(self, model: RouterModel, log_gate: Floats, keywords: Floats) -> None:
        self.model, self.known = model, model.known
        self.log_gate, self.keywords = log_gate, keywords

    def row(
        self,
        vector: Floats,
        *,
        near: Floats,
        alike: Floats,
        outside: Floats,
        background: Floats,
        passages: Floats,
        centres: Floats,
        distance: float,
        certainty: float,
        words: float,
    ) -> Row:
        """All but the last four are vectors to be compared with; ``alike`` are cosines already."""
        first, few, many = (mean_of_best(near @ vector, k) for k in (1, 5, 20))
        library = float((passages @ vector).max()) if len(passages) else 0.0
        return [
            first,
            few,
            many,
            float(alike.max()),
            float((centres @ vector).max()),
            distance,
            certainty,
            beyond(outside @ vector, 1, first),
            beyond(outside @ vector, 3, few),
            beyond(background @ vector, 1, first),
            beyond(background @ vector, 5, few),
            max(library, 0.0),
            words,
        ]

    def exemplar(self, place: int, *, orphan: bool) -> Row:
        """Compared with all others; an orphan with nothing of its expert's."""
        known, model = self.known, self.model
        others = np.arange(len(known.owner)) != place
        mine = known.owner == known.owner[place]
        gone = mine if orphan else ~others
        rows = model.familiarity.rows
        own = known.n_own
        experts = [e for e in range(len(known.experts)) if not orphan or e != known.owner[place]]
        but = np.array([known.owner[place]]) if orphan else None
        adopted = known.vectors[own:][mine[own:]] if orphan else known.vectors[:0]
        vector = known.vectors[place]
        return self.row(
            vector,
            near=known.vectors[~gone],
            alike=rows[~gone[:own]] @ rows[place],
            outside=known.outside,
            background=np.concatenate([known.background, adopted]),
            passages=known.passages[[owner in experts for owner in known.library]],
            centres=model.centres[experts],
            distance=float(model.distances(vector[None], but=but)[0]),
            certainty=float(log_softmax(self.log_gate[place][experts][None]).max())
            + float(np.log(len(experts) / len(known.experts))),
            words=float(self.keywords[place][experts].max()),
        )

    def stranger(self, text: str, vector: Floats, traits: Floats, *, outside: Floats, background: Floats) -> Row:
        known, model = self.known, self.model
        found = known.index.search(vector[None], min(NEIGHBOURS, len(known.vectors)))
        alike = model.familiarity.nearest(traits[None])
        gate = model.gate(Queries([text], vector[None], traits[None], found, alike, model.familiarity.rank(alike)))
        return self.row(
            vector,
            near=known.vectors,
            alike=alike,
            outside=outside,
            background=background,
            passages=known.passages,
            centres=model.centres,
            distance=float(model.distances(vector[None])[0]),
            certainty=float(gate.max()),
            words=float(known.table.score([text])[0].max()),
        )

    def at_home(self) -> list[Row]:
        return [self.exemplar(place, orphan=False) for place in range(self.known.n_own)]

    def orphans(self) -> list[Row]:
        return [self.exemplar(place, orphan=True) for place in range(self.known.n_own)]

    def world(self) -> list[Row]:
        """Each without its topic."""
        known = self.known
        return [
            self.stranger(
                known.background_texts[at],
                known.background[at],
                known.background_traits[at],
                outside=known.outside,
                background=known.background[known.topic != known.topic[at]],
            )
            for at in range(len(known.background))
        ]

    def outside(self) -> list[Row]:
        """Each without itself."""
        known = self.known
        return [
            self.stranger(
                known.outside_texts[at],
                known.outside[at],
                known.outside_traits[at],
                outside=np.delete(known.outside, at, axis=0),
                background=known.background,
            )
            for at in range(len(known.outside))
        ]


def judge(inside: Sequence[list[Row]], outside: Sequence[list[Row]], share: float) -> Logistic:
    """Every part counts alike, however many are in it."""
    parts = [part for part in (*inside, *outside) if part]
    labels = np.concatenate([np.full(len(part), at < len(inside)) for at, part in enumerate(parts)])
    weight = np.concatenate([np.full(len(part), 1 / len(part)) for part in parts])
    rows = np.concatenate([np.array(part, np.float32) for part in parts])
    return fit_logistic(rows, labels, positive_share=share, weight=weight, strength=0.1)


def assert_same(found: Logistic, expected: Logistic) -> None:
    for name, array in found.arrays("it").items():
        np.testing.assert_allclose(array, expected.arrays("it")[name], atol=5e-3, rtol=1e-3, err_msg=name)


def data(n: int, *, outsiders: int = 5, around: bool = True, library: bool = True) -> TrainingSet:
    examples = clusters.draw(n, seed=1)
    if outsiders:
        examples = clusters.both(examples, clusters.beyond(outsiders, seed=2))
    made = clusters.training_set(examples, around=clusters.world() if around else None)
    read = clusters.draw(3, seed=9)
    assert read.embedded is not None
    passages = [read.embedded.vectors[read.owner == place] if library and place < 2 else None for place in range(4)]
    return replace(
        made, experts=[replace(expert, passages=held) for expert, held in zip(made.experts, passages, strict=True)]
    )


def shown(given: TrainingSet, kind: str = "knn") -> tuple[RouterModel, Floats, Floats]:
    """A router, log-probabilities of its own exemplars that somebody else made up, and their keyword scores."""
    model = train_router(kind, given)
    logits = np.random.default_rng(5).normal(size=(model.known.n_own, len(model.experts)))
    return model, log_softmax(logits.astype(np.float32)), model.known.table.score(model.known.texts)[0]


@pytest.mark.parametrize(
    ("n", "outsiders", "around", "library"),
    [(30, 5, True, True), (4, 0, True, True), (4, 5, False, True), (4, 2, False, False), (4, 0, False, False)],
    ids=["everything", "nothing outside", "no world", "no library", "exemplars only"],
)
def test_it_is_taught_on_what_the_documentation_says(n: int, outsiders: int, around: bool, library: bool) -> None:
    given = data(n, outsiders=outsiders, around=around, library=library)
    model, log_gate, keywords = shown(given)
    assert (len(model.known.background) > 0, len(model.known.owner) > 4 * n) == (around, around)
    near = nearest_but_self(model.known.vectors, NEIGHBOURS)
    found = fit_coverage(model, given, log_gate, near, keywords, inside_share=0.8)
    slow = Reference(model, log_gate, keywords)
    assert_same(found, judge([slow.at_home()], [slow.orphans(), slow.world(), slow.outside()], 0.8))
    assert len(found.weights) == 13


def test_exemplars_are_looked_at_in_blocks_that_make_no_difference() -> None:
    given = data(130, around=False)
    model, log_gate, keywords = shown(given)
    near = nearest_but_self(model.known.vectors, NEIGHBOURS)
    found = fit_coverage(model, given, log_gate, near, keywords, inside_share=0.5)
    slow = Reference(model, log_gate, keywords)
    assert_same(found, judge([slow.at_home()], [slow.orphans(), slow.outside()], 0.5))


def test_held_out_queries_are_shown_as_they_are() -> None:
    held_out = clusters.both(clusters.draw(5, seed=3), clusters.beyond(7, seed=4))
    given = replace(data(4, around=False), held_out=held_out)
    model, log_gate, keywords = shown(given)
    near = nearest_but_self(model.known.vectors, NEIGHBOURS)
    found = fit_coverage(model, given, log_gate, near, keywords, inside_share=0.8)
    slow = Reference(model, log_gate, keywords)
    queries = model.queries(held_out.texts, held_out.embedded)
    evidence = model.evidence(queries, model.gate(queries), model.known.table.score(held_out.texts)[0])
    rows = coverage_features(evidence)
    covered, uncovered = rows[held_out.owner != OUTSIDE].tolist(), rows[held_out.owner == OUTSIDE].tolist()
    assert (len(covered), len(uncovered)) == (20, 7)
    assert_same(found, judge([slow.at_home(), covered], [slow.orphans(), slow.outside(), uncovered], 0.8))


def test_the_only_expert_has_no_orphans() -> None:
    drawn = clusters.draw(6, seed=1)
    examples = clusters.both(drawn.take(np.flatnonzero(drawn.owner == 0)), clusters.beyond(4, seed=2))
    given = clusters.training_set(examples, names=clusters.NAMES[:1])
    model, log_gate, keywords = shown(given)
    near = nearest_but_self(model.known.vectors, NEIGHBOURS)
    found = fit_coverage(model, given, log_gate, near, keywords, inside_share=0.8)
    slow = Reference(model, log_gate, keywords)
    assert_same(found, judge([slow.at_home()], [slow.outside()], 0.8))


def test_where_nothing_lies_outside_everything_is_covered() -> None:
    drawn = clusters.draw(6, seed=1)
    given = clusters.training_set(drawn.take(np.flatnonzero(drawn.owner == 0)), names=clusters.NAMES[:1])
    model, log_gate, keywords = shown(given)
    near = nearest_but_self(model.known.vectors, NEIGHBOURS)
    found = fit_coverage(model, given, log_gate, near, keywords, inside_share=0.8)
    np.testing.assert_allclose(found(np.ones((1, 13), np.float32)), [0.98201376], atol=1e-6)


def test_of_words_alone_it_is_taught_on_certainty_and_keywords() -> None:
    given = data(6, outsiders=0)
    model, log_gate, keywords = shown(given, "heuristic")
    found = fit_coverage(model, given, log_gate, None, keywords, inside_share=0.8)
    owner = model.known.owner
    inside, orphans = [], []
    for place in range(24):
        experts = [expert for expert in range(4) if expert != owner[place]]
        inside.append([float(log_gate[place].max()), float(keywords[place].max())])
        alone = log_softmax(log_gate[place][experts][None])
        fewer = float(np.log(len(experts) / log_gate.shape[1]))
        orphans.append([float(alone.max()) + fewer, float(keywords[place][experts].max())])
    assert_same(found, judge([inside], [orphans], 0.8))


def test_of_words_alone_what_lies_outside_is_shown_as_it_will_be_met() -> None:
    """A query outside may hold an expert's keyword, and is then scored like any other."""
    given = data(6, outsiders=3)
    texts = [*given.examples.texts[:-3], "north wind", "south sea and east wind", "nothing"]
    given = replace(given, examples=replace(given.examples, texts=texts))
    model, log_gate, keywords = shown(given, "heuristic")
    found = fit_coverage(model, given, log_gate, None, keywords, inside_share=0.8)
    owner, scores = model.known.owner, model.known.table.score(texts[-3:])[0]
    inside, orphans = [], []
    for place in range(24):
        experts = [expert for expert in range(4) if expert != owner[place]]
        inside.append([float(log_gate[place].max()), float(keywords[place].max())])
        alone = log_softmax(log_gate[place][experts][None])
        fewer = float(np.log(len(experts) / log_gate.shape[1]))
        orphans.append([float(alone.max()) + fewer, float(keywords[place][experts].max())])
    gate = model.gate(model.queries(texts[-3:], None))
    outside = [[float(row.max()), float(score.max())] for row, score in zip(gate, scores, strict=True)]
    assert_same(found, judge([inside], [orphans, outside], 0.8))
