"""The shipped sample of what else people ask: 250 topics, a dozen queries each, in every manner of asking."""

import json
from functools import cache
from pathlib import Path

import numpy as np

from experts.encoders.base import Encoder
from experts.routing.base import World

SHIPPED = Path(__file__).parent.parent / "world" / "queries.jsonl"


@cache
def world_queries() -> tuple[tuple[str, str], ...]:
    """(topic, text) of every query."""
    with SHIPPED.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return tuple((row["topic"], row["text"]) for row in rows)


def embedded_world(encoder: Encoder) -> World:
    """The sample in the encoder's space."""
    rows = world_queries()
    topics = {topic: place for place, topic in enumerate(dict.fromkeys(topic for topic, _ in rows))}
    texts = [text for _, text in rows]
    return World(texts, np.array([topics[topic] for topic, _ in rows], np.int64), encoder.embed(texts))
