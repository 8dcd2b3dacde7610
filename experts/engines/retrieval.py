"""The passages of an expert's knowledge base that stand in the prompts of engines that generate."""

from typing import NamedTuple

from experts.engines.base import CitedPassage, EngineBatch
from experts.errors import ModelUnusable


class Found(NamedTuple):
    """A passage as the prompt shows it, and as the answer cites it."""

    text: str
    cited: CitedPassage


def retrieve(batch: EngineBatch, passages: int) -> list[list[Found]]:
    """Per query at most ``passages`` nearest to it, best first; none where the expert's card does not ask for them.

    Raises ModelUnusable where they are asked for and the queries' embeddings are missing.
    """
    knowledge = batch.knowledge
    if not batch.card.get("retrieval") or knowledge is None or not len(knowledge) or not batch.queries:
        return [[] for _ in batch.queries]
    if batch.vectors is None:
        raise ModelUnusable("answering with passages needs the queries' embeddings; routing must make them")
    hits = knowledge.search(batch.vectors, min(passages, len(knowledge)))
    held = knowledge.passages
    return [
        [
            Found(held[at].text, CitedPassage(held[at].document, held[at].title, held[at].start, held[at].stop, score))
            for at, score in zip(places, scores, strict=True)
        ]
        for places, scores in zip(hits.indices.tolist(), hits.scores.round(4).tolist(), strict=True)
    ]
