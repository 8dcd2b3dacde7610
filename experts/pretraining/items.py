"""One question with its one right answer, and where it belongs: into training or into the held-out test."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

HELD_OUT_ONE_IN = 16


@dataclass(frozen=True)
class Item:
    """A prompt and the only answer that counts as right.

    ``follow_ups`` are more questions about the same text, in the order in which they may follow the first. They make
    training cheaper: one table that was read serves several answers.
    """

    prompt: str
    answer: str
    follow_ups: tuple["Item", ...] = ()


# A family draws an item from a random source; the same state of the source gives the same item.
Family = Callable[[Random], Item]


def is_held_out(prompt: str) -> bool:
    """Whether a prompt is never trained on: one in sixteen, decided by its text alone, whatever the seed."""
    digest = blake2b(prompt.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0
