"""A trained router of any kind, as it runs and as it is stored. Inference needs numpy and faiss only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from experts.encoders.base import Embedded, Vectors
from experts.errors import ModelUnusable, UnknownKind
from experts.kinds import ROUTERS, find
from experts.routing.base import Floats, Neighbour, Scores, log_softmax
from experts.routing.calibration import Calibration, Conformal, confidence_features
from experts.routing.familiarity import Familiarity
from experts.routing.judging import Evidence, Logistic, coverage_features, logistic_from, own_features
from experts.routing.kind import Kind
from experts.routing.known import NEIGHBOURS, Known, Queries, of_words, standardised
from experts.routing.search import Near, NearestNeighbours
from experts.routing.votes import centroids, class_means, shrunk_precision, vote

FORMAT = 2
ABOUT = "router.json"
WEIGHTS = "weights.safetensors"
SHOWN = 3  # exemplars that are shown with a decision
_SHOWN_CHARS = 500
PASSAGES = 16
_SHRINK = 0.3


@dataclass(frozen=True)
class Distances:
    """Relative Mahalanobis distance: to the nearest expert's mean, less that to the mean of all."""

    means: Floats
    centre: Floats
    within: Floats
    overall: Floats

    @cached_property
    def _of_means(self) -> Floats:
        squared: Floats = ((self.means @ self.within) * self.means).sum(axis=1)
        return squared

    def __call__(self, vectors: Vectors, *, but: NDArray[np.int64] | None = None) -> Floats:
        """Float32[n], in hundreds; ``but`` names for each row an expert that is passed over."""
        if len(vectors) == 0 or self.means.shape[1] == 0:
            return np.zeros(len(vectors), np.float32)
        projected = vectors @ self.within
        to_means = (projected * vectors).sum(axis=1)[:, None] - 2 * projected @ self.means.T + self._of_means
        if but is not None:
            to_means[np.arange(len(vectors)), but] = np.inf
        residual = vectors - self.centre
        to_all = ((residual @ self.overall) * residual).sum(axis=1)
        relative: Floats = ((to_means.min(axis=1) - to_all) / 100).astype(np.float32)
        return relative


def distances(known: Known) -> Distances:
    """From the exemplars, adopted ones included."""
    n_experts, dimension = len(known.experts), known.vectors.shape[1]
    if dimension == 0 or len(known.vectors) == 0:
        empty = np.zeros((dimension, dimension), np.float32)
        return Distances(np.zeros((n_experts, dimension), np.float32), np.zeros(dimension, np.float32), empty, empty)
    means, centre = class_means(known.vectors, known.owner, n_experts), known.vectors.mean(axis=0)
    return Distances(
        means,
        centre.astype(np.float32),
        shrunk_precision(known.vectors - means[known.owner], _SHRINK),
        shrunk_precision(known.vectors - centre, _SHRINK),
    )


@dataclass(frozen=True)
class RouterModel:
    """The parts of a trained router. ``score`` is all that routing needs."""

    kind: str
    encoder: str | None
    known: Known
    learned: Mapping[str, NDArray[Any]]
    familiarity: Familiarity
    distances: Distances
    own: Logistic
    calibration: Calibration
    gate_weight: float
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def experts(self) -> tuple[str, ...]:
        return self.known.experts

    @property
    def needs_vectors(self) -> bool:
        return self._kind.needs_vectors

    @cached_property
    def _kind(self) -> Kind:
        made: Kind = find("router kind", ROUTERS, self.kind)(self.known, self.learned)
        return made

    @cached_property
    def centres(self) -> Vectors:
        return centroids(self.known.vectors, self.known.owner, len(self.known.experts))

    @cached_property
    def _indexes(self) -> tuple[NearestNeighbours, ...]:
        return tuple(NearestNeighbours(v) for v in (self.known.outside, self.known.background, self.known.passages))

    def risk(self, max_misroute: float) -> float:
        """The share from which on an expert must be asked so that at most ``max_misroute`` of queries miss theirs."""
        return self.calibration.conformal.threshold(max_misroute)

    def queries(self, texts: Sequence[str], embedded: Embedded | None) -> Queries:
        """What the parts of the router look at. Raises ModelUnusable for vectors of another encoder."""
        if not self.needs_vectors:
            return of_words(texts)
        wanted = self.known.vectors.shape[1]
        if embedded is None or embedded.vectors.shape[1:] != (wanted,):
            raise ModelUnusable(
                f"this router needs vectors of {wanted} numbers, from the encoder it was trained with ({self.encoder})"
            )
        if embedded.layers.shape[1:] != self.known.centre.shape:
            raise ModelUnusable(
                f"this router reads layers of shape {self.known.centre.shape}, not {embedded.layers.shape[1:]}"
            )
        if not np.isfinite(embedded.vectors).all() or not np.isfinite(embedded.layers).all():
            raise ModelUnusable("a query has a vector that is not all numbers")
        traits = standardised(embedded.layers, self.known.centre)
        near = self.known.index.nearest(embedded.vectors, at_most=NEIGHBOURS)
        alike = self.familiarity.nearest(traits)
        return Queries(texts, embedded.vectors, traits, near, alike, self.familiarity.rank(alike))

    def gate(self, queries: Queries) -> Floats:
        """Log-probabilities of the kind at the calibrated temperature, float32[n, E]."""
        return log_softmax(self._kind.score(queries) / self.calibration.temperature)

    def evidence(self, queries: Queries, gate: Floats, keywords: Floats) -> Evidence:
        """What the two judges look at."""
        certainty = gate.max(axis=1)
        if not self.needs_vectors:
            return Evidence(queries.near, queries.near, keywords, certainty, has_vectors=False)
        outside, background, passages = self._indexes
        vectors = queries.vectors
        return Evidence(
            near=queries.near,
            library=passages.nearest(vectors, at_most=PASSAGES),
            keywords=keywords,
            certainty=certainty,
            outside=outside.nearest(vectors, at_most=3),
            background=background.nearest(vectors, at_most=5),
            familiar=queries.alike,
            centre=(vectors @ self.centres.T).max(axis=1),
            distance=self.distances(vectors),
        )

    def score(self, texts: Sequence[str], embedded: Embedded | None) -> Scores:
        """Score ``texts``; ``embedded`` are the same texts embedded, given when ``needs_vectors``."""
        return self.judge(self.queries(texts, embedded))

    def judge(self, queries: Queries) -> Scores:
        """The same for queries that were looked at already."""
        keyword_scores, keywords = self.known.table.score(queries.texts)
        log_gate = self.gate(queries)
        evidence = self.evidence(queries, log_gate, keyword_scores)
        own = self.own(own_features(evidence, self.known.owner, self.known.library))
        gate = np.exp(log_gate)
        share = shares(gate, own, self.gate_weight)
        return Scores(
            gate=gate,
            self_assessment=own,
            share=share,
            confidence=self.calibration.confidence(self.trust(share, gate, own, queries)),
            coverage=self.calibration.coverage(coverage_features(evidence)),
            keywords=keywords,
            neighbours=self._neighbours(queries, evidence.outside),
        )

    def trust(self, share: Floats, gate: Floats, own: Floats, queries: Queries) -> Floats:
        """What confidence is read from, float32[n, 4]; see ``confidence_features``."""
        return confidence_features(share, queries.familiar, self.agreement(share, gate, own, queries))

    def agreement(self, share: Floats, gate: Floats, own: Floats, queries: Queries) -> Floats:
        """Share of the parts (gate, own assessment, neighbours, centroids) that name the first choice, float32[n]."""
        choices = [gate.argmax(axis=1), own.argmax(axis=1)]
        if self.needs_vectors:
            choices.append(vote(queries.near, self.known.owner, len(self.experts)).argmax(axis=1))
            choices.append((queries.vectors @ self.centres.T).argmax(axis=1))
        same: Floats = np.mean([choice == share.argmax(axis=1) for choice in choices], axis=0).astype(np.float32)
        return same

    def _neighbours(self, queries: Queries, outside: Near | None) -> list[list[Neighbour]]:
        n_own, owner, texts = self.known.n_own, self.known.owner, self.known.texts
        # Python numbers: reading single numbers out of arrays costs more than all the rest.
        places, cosines = queries.near.places.tolist(), queries.near.cosines.tolist()
        found = []
        for row in range(len(queries)):
            near = []
            for place, cosine in zip(places[row], cosines[row], strict=True):
                if 0 <= place < n_own:
                    near.append(Neighbour(self.experts[owner[place]], texts[place], cosine))
                    if len(near) == SHOWN:
                        break
            if outside is not None:
                near += [
                    Neighbour(None, self.known.outside_texts[place], float(cosine))
                    for place, cosine in zip(outside.places[row], outside.cosines[row], strict=True)
                    if place >= 0
                ]
            found.append(sorted(near, key=lambda neighbour: -neighbour.cosine)[:SHOWN])
        return found

    def files(self) -> dict[str, bytes]:
        """The router as files of an artefact."""
        known, calibration = self.known, self.calibration
        about = {
            "format": FORMAT,
            "kind": self.kind,
            "encoder": self.encoder,
            "experts": list(known.experts),
            "keywords": {name: list(words) for name, words in known.keywords.items()},
            "texts": [text[:_SHOWN_CHARS] for text in known.texts],
            "outside": [text[:_SHOWN_CHARS] for text in known.outside_texts],
            "temperature": calibration.temperature,
            "gate_weight": self.gate_weight,
            "metrics": dict(self.metrics),
        }
        half = np.float16
        tensors: dict[str, NDArray[Any]] = {
            "known.owner": known.owner.astype(np.int32),
            "known.vectors": known.vectors.astype(half),
            "known.centre": known.centre,
            "known.outside": known.outside.astype(half),
            "known.background": known.background.astype(half),
            "known.passages": known.passages.astype(half),
            "known.library": known.library.astype(np.int32),
            "familiar.basis": self.familiarity.basis,
            "familiar.rows": self.familiarity.rows.astype(half),
            "familiar.steps": self.familiarity.steps,
            "distance.means": self.distances.means,
            "distance.centre": self.distances.centre,
            "distance.within": self.distances.within,
            "distance.overall": self.distances.overall,
            "conformal": calibration.conformal.right_shares,
            **self.own.arrays("own"),
            **calibration.confidence.arrays("confidence"),
            **calibration.coverage.arrays("coverage"),
            **{f"learned.{name}": array for name, array in self.learned.items()},
        }
        return {
            ABOUT: json.dumps(about).encode(),
            WEIGHTS: save({name: np.ascontiguousarray(array) for name, array in tensors.items()}),
        }


def shares(gate: Floats, own: Floats, gate_weight: float) -> Floats:
    """float32[n, E]: ``gate_weight`` × gate + the rest × the experts' own assessment, rows scaled to sum 1."""
    total = own.sum(axis=1, keepdims=True)
    scaled = np.divide(own, total, out=np.array(gate), where=total > 1e-9)
    mixed: Floats = gate_weight * gate + (1 - gate_weight) * scaled
    return mixed


# Whatever can be wrong with files that somebody else wrote, among it what faiss finds.
_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RecursionError,
    SafetensorError,
    UnknownKind,
)


def load_router(folder: Path) -> RouterModel:
    """Read the files of a router. Raises ModelUnusable, with the folder's name."""
    try:
        return _load(folder)
    except _UNREADABLE as error:
        raise ModelUnusable(f"router {folder.name} cannot be read: {error}") from error


def _load(folder: Path) -> RouterModel:
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if about["format"] != FORMAT:
        raise ModelUnusable(f"router {folder.name}: format {about['format']}, this program reads {FORMAT}")
    arrays = load_file(folder / WEIGHTS)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ModelUnusable(f"router {folder.name}: its tensor {name} is not all numbers")
    full = {name: _widened(array) for name, array in arrays.items()}
    vectors = full["known.vectors"]
    nothing = np.zeros((0, 0), np.float32)
    known = Known(
        experts=tuple(about["experts"]),
        keywords=about["keywords"],
        texts=about["texts"],
        owner=full["known.owner"],
        vectors=vectors,
        traits=nothing,
        centre=full["known.centre"],
        outside_texts=about["outside"],
        outside=full["known.outside"],
        outside_traits=nothing,
        background=full["known.background"],
        background_texts=[],
        background_traits=nothing,
        topic=np.zeros(0, np.int64),
        passages=full["known.passages"],
        library=full["known.library"],
    )
    if len(known.owner) != len(vectors) or not known.experts or len(known.texts) > len(vectors):
        raise ModelUnusable(f"router {folder.name}: its parts do not belong together")
    if not 0 < about["temperature"] < float("inf"):
        raise ModelUnusable(f"router {folder.name}: its temperature {about['temperature']} is not above 0 and finite")
    model = RouterModel(
        kind=about["kind"],
        encoder=about["encoder"],
        known=known,
        learned={name.removeprefix("learned."): array for name, array in full.items() if name.startswith("learned.")},
        familiarity=Familiarity(full["familiar.basis"], full["familiar.rows"], full["familiar.steps"]),
        distances=Distances(*(full[f"distance.{part}"] for part in ("means", "centre", "within", "overall"))),
        own=logistic_from(full, "own"),
        calibration=Calibration(
            about["temperature"],
            logistic_from(full, "confidence"),
            logistic_from(full, "coverage"),
            Conformal(full["conformal"]),
        ),
        gate_weight=about["gate_weight"],
        metrics=about["metrics"],
    )
    # Tried once, so that a part that is missing or does not fit is found now and not by the first query.
    layers = np.zeros((1, *known.centre.shape), np.float32)
    tried = model.score([""], Embedded(np.zeros((1, vectors.shape[1]), np.float32), layers))
    if not all(np.isfinite(part).all() for part in (tried.share, tried.confidence, tried.coverage)):
        raise ModelUnusable(f"router {folder.name} gives scores that are not numbers")
    return model


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype == np.float16:
        return array.astype(np.float32)
    # Copied: what is read from a file need not lie where processors multiply fast.
    return array.astype(np.int64) if array.dtype == np.int32 else array.copy()
