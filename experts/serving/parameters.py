"""What a query may ask of the way its tokens are chosen."""

from typing import NamedTuple


class Sampling(NamedTuple):
    """How a row's tokens are chosen; temperature 0 takes the likeliest. ``top_p`` is in (0, 1]."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
