"""What a router has been shown: exemplars of the experts, what their libraries hold, and the world around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experts.encoders.base import Embedded, Vectors, joined
from experts.routing.base import OUTSIDE, Examples, ExpertProfile, Floats, Places, World
from experts.routing.keywords import KeywordTable
from experts.routing.search import Near, NearestNeighbours, nearest_in, no_neighbours
from experts.routing.votes import vote

NEIGHBOURS = 64
MAX_PASSAGES = 512  # per expert
# A topic of the world is an expert's when its queries' neighbours say so with at least this share on average.
_ADOPTED_FROM = 0.4
# Among fewer experts than this, somebody always has a large share: the topic must then lie near exemplars as well, as
# near as all but this part of them lie to each other, and less so the more experts there are.
_MANY_EXPERTS = 5
_USUAL = 0.25


@dataclass(frozen=True, slots=True)
class Queries:
    """n queries, with what every way of scoring them looks at.

    ``vectors`` float32[n, d] and ``traits`` float32[n, f] are the encoder's view, ``near`` the nearest exemplars.
    ``alike`` float32[n] is the cosine of the exemplar most alike in meaning and manner, and ``familiar`` float32[n] in
    [0, 1] what that means: the share of exemplars that lie farther from all others than the query from its nearest.
    """

    texts: Sequence[str]
    vectors: Vectors
    traits: Floats
    near: Near
    alike: Floats
    familiar: Floats

    def __len__(self) -> int:
        return len(self.texts)


def of_words(texts: Sequence[str]) -> Queries:
    """Queries for routers that read no vectors."""
    n = len(texts)
    empty, ones = np.zeros((n, 0), np.float32), np.ones(n, np.float32)
    return Queries(texts, empty, empty, no_neighbours(n), ones, ones)


@dataclass(frozen=True)
class Known:
    """Exemplars (the experts' own first, then those adopted from the world), and apart from them what lies outside.

    m exemplars: ``vectors`` float32[m, d], ``owner`` int64[m]; ``texts`` are of the first, own ones. ``outside``
    float32[o, d] are queries that no expert covers; ``background`` float32[b, d] queries of the world that no expert
    adopted, of ``topic`` int64[b]. ``passages`` float32[p, d] are of the libraries of ``library`` int64[p]. Traits
    (float32[·, f]), topics and the background's texts are there in training only.
    """

    experts: tuple[str, ...]
    keywords: Mapping[str, Sequence[str]]
    texts: Sequence[str]
    owner: Places
    vectors: Vectors
    traits: Floats
    centre: Vectors
    outside_texts: Sequence[str]
    outside: Vectors
    outside_traits: Floats
    background: Vectors
    background_texts: Sequence[str]
    background_traits: Floats
    topic: Places
    passages: Vectors
    library: Places

    @property
    def n_own(self) -> int:
        return len(self.texts)

    @cached_property
    def index(self) -> NearestNeighbours:
        """The exemplars, to be searched."""
        return NearestNeighbours(self.vectors)

    @cached_property
    def table(self) -> KeywordTable:
        return KeywordTable(self.experts, self.keywords)

    def without(self, gone: Places) -> "Known":
        """The same without the own exemplars at ``gone``."""
        kept = np.setdiff1d(np.arange(len(self.owner)), gone)
        return Known(
            self.experts,
            self.keywords,
            [self.texts[place] for place in kept[: self.n_own - len(gone)].tolist()],
            self.owner[kept],
            self.vectors[kept],
            self.traits[kept],
            self.centre,
            self.outside_texts,
            self.outside,
            self.outside_traits,
            self.background,
            self.background_texts,
            self.background_traits,
            self.topic,
            self.passages,
            self.library,
        )


def standardised(layers: Vectors, centre: Vectors) -> Floats:
    """Layers float32[n, L, h] as the gate reads them: centred, brought to one length each, side by side."""
    n = len(layers)
    if n == 0:
        return np.zeros((0, centre.size), np.float32)
    centred = layers - centre
    centred = centred / np.maximum(np.linalg.norm(centred, axis=2, keepdims=True), 1e-9)
    traits: Floats = (centred.reshape(n, -1) / len(centre) ** 0.5).astype(np.float32)
    return traits


def gather(experts: Sequence[ExpertProfile], examples: Examples, world: World | None, *, seed: int = 0) -> Known:
    """Everything a router is shown, in order; routers that read only words are shown no vectors."""
    inside = np.flatnonzero(examples.owner != OUTSIDE)
    beyond = np.flatnonzero(examples.owner == OUTSIDE)
    own, outside = examples.take(inside), examples.take(beyond)
    owner = own.owner
    if own.embedded is None or outside.embedded is None:
        nothing = np.zeros((0, 0), np.float32)
        embedded = Embedded(np.zeros((len(own), 0), np.float32), np.zeros((len(own), 1, 0), np.float32))
        beside = Embedded(nothing, np.zeros((0, 1, 0), np.float32))
        world = None
    else:
        embedded, beside = own.embedded, outside.embedded
    centre = embedded.layers.mean(axis=0) if len(own) else np.zeros(embedded.layers.shape[1:], np.float32)
    background, background_layers = np.zeros((0, embedded.vectors.shape[1]), np.float32), embedded.layers[:0]
    background_texts: list[str] = []
    topic = np.zeros(0, np.int64)
    if world is not None and len(own):
        adopted_by = adopt(embedded.vectors, owner, len(experts), world)
        taken = adopted_by != OUTSIDE
        owner = np.concatenate([owner, adopted_by[taken]])
        embedded = joined(embedded, world.embedded.take(np.flatnonzero(taken)))
        background, background_layers = world.embedded.vectors[~taken], world.embedded.layers[~taken]
        background_texts = [world.texts[place] for place in np.flatnonzero(~taken).tolist()]
        topic = world.topic[~taken]
    passages, library = _libraries(experts, embedded.vectors.shape[1], seed)
    return Known(
        tuple(expert.name for expert in experts),
        {expert.name: list(expert.keywords) for expert in experts},
        own.texts,
        owner,
        embedded.vectors,
        standardised(embedded.layers, centre),
        centre.astype(np.float32),
        outside.texts,
        beside.vectors,
        standardised(beside.layers, centre),
        background,
        background_texts,
        standardised(background_layers, centre),
        topic,
        passages,
        library,
    )


def adopt(vectors: Vectors, owner: Places, n_experts: int, world: World) -> Places:
    """Which expert each of the world's queries belongs to, int64[w]; ``OUTSIDE`` for most.

    Queries are judged by topics, not one by one: a dozen that ask for the same in a dozen manners vote together, which
    is right far more often than each alone, and hands the expert manners of asking that its exemplars do not show.
    """
    per_expert = np.bincount(owner, minlength=n_experts)
    k = int(np.clip(np.median(per_expert), 3, 30))
    n_topics = int(world.topic.max(initial=-1)) + 1
    total = np.zeros((n_topics, n_experts))
    index = NearestNeighbours(vectors)
    near = index.search(world.embedded.vectors, k)
    np.add.at(total, world.topic, np.exp(vote(near, owner, n_experts)))
    share = total / np.maximum(np.bincount(world.topic, minlength=n_topics), 1)[:, None]
    nearest = np.zeros(n_topics)
    np.add.at(nearest, world.topic, near.cosines[:, 0])
    nearest /= np.maximum(np.bincount(world.topic, minlength=n_topics), 1)
    adopted_topic = share.max(axis=1, initial=0) > _ADOPTED_FROM
    if n_experts < _MANY_EXPERTS and len(vectors) > 1:
        part = _USUAL * (_MANY_EXPERTS - n_experts) / (_MANY_EXPERTS - 1)
        adopted_topic &= nearest >= np.quantile(nearest_but_self(vectors, 1).cosines, part)
    of_topic = np.where(adopted_topic, share.argmax(axis=1), OUTSIDE)
    adopted: Places = of_topic[world.topic].astype(np.int64)
    return adopted


def _libraries(experts: Sequence[ExpertProfile], dimension: int, seed: int) -> tuple[Vectors, Places]:
    random = np.random.default_rng(seed)
    parts, owners = [np.zeros((0, dimension), np.float32)], [np.zeros(0, np.int64)]
    for place, expert in enumerate(experts):
        passages = expert.passages
        if passages is None or len(passages) == 0 or dimension == 0:
            continue
        if len(passages) > MAX_PASSAGES:
            passages = passages[np.sort(random.choice(len(passages), MAX_PASSAGES, replace=False))]
        parts.append(passages)
        owners.append(np.full(len(passages), place, np.int64))
    return np.concatenate(parts), np.concatenate(owners)


def nearest_but_self(vectors: Vectors, k: int, *, rows: int = 1024) -> Near:
    """For each of ``vectors`` the nearest among all others; exact, in blocks of ``rows``."""
    found = []
    for start in range(0, len(vectors), rows):
        cosines = vectors[start : start + rows] @ vectors.T
        block = np.arange(len(cosines))
        cosines[block, start + block] = -2.0
        found.append(nearest_in(cosines, k))
    if not found:
        return nearest_in(np.zeros((0, 0), np.float32), k)
    return Near(np.concatenate([n.cosines for n in found]), np.concatenate([n.places for n in found]))
