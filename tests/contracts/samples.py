"""What the conformance suites share: texts that hurt, small documents, a small training set, encoders loaded once."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import settings

from experts.documents import Document
from experts.encoders.base import Encoder, EncoderSpec, Vectors
from experts.encoders.hashing import HashingEncoder
from experts.kinds import ENCODERS, SENTENCE_TRANSFORMERS, find
from experts.knowledge import KnowledgeBase, build
from experts.routing import base
from experts.routing.base import Examples, ExpertProfile, TrainingSet

LAW = settings(deadline=None, max_examples=50, derandomize=True)

ORDINARY = [
    "How is the monthly payment of a mortgage worked out?",
    "my card was swallowed by the machine",
    "why do volcanoes erupt",
    "Write a function that reverses a linked list in Python, please, and then explain what every line of it does.",
]
HOSTILE = {
    "empty": "",
    "only whitespace": " \t\r\n\u00a0\u2003 ",
    "NUL": "mort\x00gage\x00",
    "emoji joined": "👩\u200d👩\u200d👧\u200d👦 🏴\u200d☠️ 👍🏽",
    "right to left": "\u202eمرحبا بالعالم\u202c שלום",
    "Zalgo": "z" + "\u0301\u0327\u0336" * 3_334 + "algo",
    "100 kB of words": "mortgage volcano " * 6_250,
    "100 kB without a space": "x" * 100_000,
    "only punctuation": "?!… --- ((( \"'",
    "special tokens": "<|im_end|> [CLS] [SEP] [PAD] [MASK] </s>",
    "line separators": "one\u2028two\u2029three\x85four\x0bfive",
    "unassigned and private": "\U0010ffff\ue000\ufeff\ufffd",
}
hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())

DOCUMENTS = (
    Document(
        "mortgages",
        "Mortgages",
        "A mortgage is a loan that is secured by a house. The monthly payment of a mortgage covers interest and part "
        "of the loan.\n\nA fixed rate stays the same for the whole term. A variable rate follows the market.",
    ),
    Document(
        "swallowed-cards",
        "Swallowed cards",
        "A machine swallows a card after three wrong numbers. Call the bank at once, and the card is blocked.",
    ),
    Document(
        "volcanoes",
        "Volcanoes",
        "Volcanoes erupt because gas in the magma expands as the magma rises. Basalt is dark. Ash can stop aircraft.",
    ),
    Document(
        "linked-lists",
        "Linked lists",
        "A linked list is reversed by turning every pointer round. This takes linear time and constant space.",
    ),
)

EXEMPLARS = {
    "bank": ("mortgage", "card", "interest rate"),
    "earth": ("volcano", "lava", "tectonic plate"),
    "code": ("linked list", "python", "function"),
}
OUTSIDE = ("play some music", "how long do I bake bread", "my dog does not eat", "turn the lights off")


@cache
def encoder(kind: str) -> Encoder:
    """The registered encoder of this kind, in 32 bit on the processor; loaded at most once in a test run."""
    name = EncoderSpec().name if kind == SENTENCE_TRANSFORMERS else kind
    made: Encoder = find("encoder", ENCODERS, kind)(EncoderSpec(name, dtype="float32", device="cpu"))
    return made


def embed(texts: Sequence[str]) -> Vectors:
    """``float32[n, 384]`` by the encoder that needs no model."""
    return HashingEncoder().encode(texts)


@cache
def knowledge() -> KnowledgeBase:
    """A base over `DOCUMENTS`."""
    return build(DOCUMENTS, HashingEncoder())[0]


def training_set(names: Sequence[str] = tuple(EXEMPLARS), *, outside: Sequence[str] = OUTSIDE) -> TrainingSet:
    """Twelve exemplars and a few passages for each of these experts, embedded without a model."""
    patterns = ("what is a {}", "explain the {} to me", "my {} does not work", "{} or not?")
    profiles, texts = [], []
    for name in names:
        texts += [pattern.format(keyword) for keyword in EXEMPLARS[name] for pattern in patterns]
        passages = [f"All about the {keyword}. It is a part of {name}." for keyword in EXEMPLARS[name]]
        profiles.append(ExpertProfile(name, EXEMPLARS[name], embed(passages)))
    owner = np.repeat(np.arange(len(names)), len(texts) // len(names))
    owner = np.concatenate([owner, np.full(len(outside), base.OUTSIDE)])
    texts += outside
    return TrainingSet(profiles, Examples(texts, owner, HashingEncoder().embed(texts)), "hashing")
