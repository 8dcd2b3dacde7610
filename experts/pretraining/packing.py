"""Conversations packed into rows of equal length."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Prompts are learned too, but ten times more weakly than answers.
PROMPT_WEIGHT = 0.1


@dataclass(frozen=True)
class Row:
    """``ids`` int64[length], and ``weights`` float32[length]: how much each token counts as something to predict."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


def pack(encoded: Iterable[list[tuple[int, bool]]], length: int, pad: int) -> Iterator[Row]:
    """Rows of ``length`` tokens; each begins with a new conversation, and what does not fit into it is cut off.

    Only a conversation longer than a whole row loses tokens; padding has weight 0, and so has the first token.
    """
    open_row: list[tuple[int, bool]] = []
    for tokens in encoded:
        if open_row and len(open_row) + len(tokens) > length:
            yield _row(open_row, length, pad)
            open_row = []
        open_row += tokens[:length]
    if open_row:
        yield _row(open_row, length, pad)


def _row(tokens: list[tuple[int, bool]], length: int, pad: int) -> Row:
    ids = np.full(length, pad, dtype=np.int64)
    weights = np.zeros(length, dtype=np.float32)
    ids[: len(tokens)] = [token for token, _ in tokens]
    weights[: len(tokens)] = [1.0 if answer else PROMPT_WEIGHT for _, answer in tokens]
    return Row(ids, weights)
