"""Fitting the judge of coverage: does any expert cover this query at all?

It is shown three sorts of outsiders: queries said to lie outside; the world's queries, each without the rest of its
topic; and exemplars as they would look if their own expert did not exist, which is what a gap in knowledge looks like.
"""

from collections.abc import Sequence

import numpy as np

from experts.routing.base import OUTSIDE, Examples, Floats, Places, TrainingSet, log_softmax
from experts.routing.judging import Evidence, Logistic, coverage_features
from experts.routing.known import NEIGHBOURS, Known, Queries
from experts.routing.logistic import fit_logistic
from experts.routing.router import RouterModel
from experts.routing.search import Near, nearest_in, no_neighbours

_ORPHANS = 3_000
_BLOCK = 500
_NEAREST = 20
_STRENGTH = 0.1


def fit_coverage(
    model: RouterModel, data: TrainingSet, log_gate: Floats, near: Near | None, keywords: Floats, *, inside_share: float
) -> Logistic:
    """``log_gate`` float32[m, E] and ``near`` are of the own exemplars, each left out of what it is compared with;
    ``inside_share`` is the share of traffic that some expert covers."""
    shown = _Shown(model, log_softmax(log_gate), near, keywords)
    inside = [shown.at_home()]
    outside = [part for part in (shown.orphans(data.seed), shown.world(), shown.outside()) if len(part)]
    if data.held_out is not None and len(data.held_out):
        held_out = _features(model, data.held_out)
        covered = data.held_out.owner != OUTSIDE
        inside.append(held_out[covered])
        outside.append(held_out[~covered])
    parts = [(part, True) for part in inside if len(part)] + [(part, False) for part in outside if len(part)]
    features = np.concatenate([part for part, _ in parts])
    labels = np.concatenate([np.full(len(part), label) for part, label in parts])
    weight = np.concatenate([np.full(len(part), 1 / len(part)) for part, _ in parts])
    return fit_logistic(features, labels, positive_share=inside_share, weight=weight, strength=_STRENGTH)


def _features(model: RouterModel, examples: Examples) -> Floats:
    queries = model.queries(examples.texts, examples.embedded)
    keywords, _ = model.known.table.score(queries.texts)
    return coverage_features(model.evidence(queries, model.gate(queries), keywords))


class _Shown:
    """Coverage features of what the router has been shown, as if it had not been."""

    def __init__(self, model: RouterModel, log_gate: Floats, near: Near | None, keywords: Floats) -> None:
        self._model = model
        self._known: Known = model.known
        self._n = model.known.n_own
        self._log_gate = log_gate
        self._near = near
        self._keywords = keywords
        self._rows = model.familiarity.rows

    def at_home(self) -> Floats:
        """The own exemplars, each without itself."""
        n = self._n
        if self._near is None:
            return self._words(self._log_gate, self._keywords)
        places = np.arange(n)
        return np.concatenate([self._block(places[start : start + _BLOCK], None) for start in range(0, n, _BLOCK)])

    def orphans(self, seed: int) -> Floats:
        """Own exemplars without anything of their expert's."""
        owner = self._known.owner[: self._n]
        if len(self._known.experts) < 2:
            return np.zeros((0, 0), np.float32)
        places = np.arange(self._n)
        if len(places) > _ORPHANS:
            places = np.sort(np.random.default_rng(seed).choice(places, _ORPHANS, replace=False))
        if self._near is None:
            log_gate, keywords = self._masked(places, owner[places])
            return self._words(log_gate, keywords)
        return np.concatenate(
            [
                self._block(places[start : start + _BLOCK], owner[places[start : start + _BLOCK]])
                for start in range(0, len(places), _BLOCK)
            ]
        )

    def world(self) -> Floats:
        """The world's queries that no expert adopted, each without its topic."""
        known = self._known
        if len(known.background) == 0:
            return np.zeros((0, 0), np.float32)
        same = known.topic[:, None] == known.topic[None, :]
        between = np.where(same, np.float32(-2), known.background @ known.background.T)
        return self._beyond(
            known.background_texts, known.background, known.background_traits, nearest_in(between, 5), None
        )

    def outside(self) -> Floats:
        """The queries said to lie outside, each without itself."""
        known = self._known
        if not known.outside_texts:
            return np.zeros((0, 0), np.float32)
        if self._near is None:
            keywords, _ = known.table.score(known.outside_texts)
            return self._words(self._model.gate(self._model.queries(known.outside_texts, None)), keywords)
        between = known.outside @ known.outside.T
        np.fill_diagonal(between, -2.0)
        return self._beyond(known.outside_texts, known.outside, known.outside_traits, None, nearest_in(between, 3))

    def _words(self, log_gate: Floats, keywords: Floats) -> Floats:
        nothing = no_neighbours(len(keywords))
        return coverage_features(Evidence(nothing, nothing, keywords, log_gate.max(axis=1), has_vectors=False))

    def _masked(self, places: Places, but: Places) -> tuple[Floats, Floats]:
        rows = np.arange(len(places))
        log_gate, keywords = self._log_gate[places].copy(), self._keywords[places].copy()
        log_gate[rows, but] = -np.inf
        keywords[rows, but] = 0
        # Among one expert fewer everybody's share is larger; that alone must not look like certainty.
        n_experts = log_gate.shape[1]
        return log_softmax(log_gate) + np.float32(np.log((n_experts - 1) / n_experts)), keywords

    def _block(self, places: Places, but: Places | None) -> Floats:
        """Own exemplars at ``places``, compared with all others, or with all that is not of the expert in ``but``."""
        known, rows = self._known, np.arange(len(places))
        vectors = known.vectors[places]
        cosines = vectors @ known.vectors.T
        cosines[rows, places] = -2.0
        background = vectors @ known.background.T
        library = vectors @ known.passages.T
        centre = vectors @ self._model.centres.T
        alike = self._rows[places] @ self._rows.T if len(self._rows) else np.zeros((len(places), 1), np.float32)
        if len(self._rows):
            alike[rows, places] = -2.0
        log_gate, keywords = self._log_gate[places], self._keywords[places]
        if but is not None:
            own = known.owner[None, :] == but[:, None]
            # Without their expert, the topics it adopted would be part of the world again.
            adopted = np.where(own[:, self._n :], cosines[:, self._n :], -2.0)
            background = np.concatenate([background, adopted], axis=1)
            cosines[own] = -2.0
            library = np.where(known.library[None, :] == but[:, None], np.float32(-2), library)
            centre[rows, but] = -1.0
            if len(self._rows):
                alike[own[:, : self._n]] = -2.0
            log_gate, keywords = self._masked(places, but)
        evidence = Evidence(
            near=nearest_in(cosines, _NEAREST),
            library=nearest_in(library, 1),
            keywords=keywords,
            certainty=log_gate.max(axis=1),
            outside=nearest_in(vectors @ known.outside.T, 3) if len(known.outside) else None,
            background=nearest_in(background, 5) if background.shape[1] else None,
            familiar=np.maximum(alike.max(axis=1), -1),
            centre=centre.max(axis=1),
            distance=self._model.distances(vectors, but=but),
        )
        return coverage_features(evidence)

    def _beyond(
        self, texts: Sequence[str], vectors: Floats, traits: Floats, background: Near | None, outside: Near | None
    ) -> Floats:
        known, model = self._known, self._model
        near = known.index.nearest(vectors, at_most=NEIGHBOURS)
        familiar = model.familiarity.nearest(traits)
        gate = model.gate(Queries(texts, vectors, traits, near, familiar, model.familiarity.rank(familiar)))
        if background is None and len(known.background):
            background = nearest_in(vectors @ known.background.T, 5)
        if outside is None and len(known.outside):
            outside = nearest_in(vectors @ known.outside.T, 3)
        evidence = Evidence(
            near=near,
            library=nearest_in(vectors @ known.passages.T, 1),
            keywords=known.table.score(texts)[0],
            certainty=gate.max(axis=1),
            outside=outside,
            background=background,
            familiar=familiar,
            centre=(vectors @ model.centres.T).max(axis=1),
            distance=model.distances(vectors),
        )
        return coverage_features(evidence)
