"""An encoder without a model: words and their pieces, hashed. For tests, and for machines without models."""

import re
import zlib
from collections.abc import Sequence

import numpy as np

from experts.encoders.base import Embedded, EncoderSpec, Vectors, of_vectors
from experts.kinds import HASHING

_WORD = re.compile(r"\w+")


class HashingEncoder:
    """Each word and each of its three-letter pieces adds one to a place chosen by its hash; then to unit length."""

    name = HASHING
    dimension = 384

    def encode(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in _WORD.findall(text.lower()[:20_000]):
                row[zlib.crc32(word.encode()) % self.dimension] += 2
                padded = f"<{word}>"
                for at in range(len(padded) - 2):
                    row[zlib.crc32(padded[at : at + 3].encode()) % self.dimension] += 0.5
            if not row.any():
                row[0] = 1
            row /= np.linalg.norm(row)
        return vectors

    def embed(self, texts: Sequence[str]) -> Embedded:
        return of_vectors(self.encode(texts))


def make(spec: EncoderSpec) -> HashingEncoder:
    return HashingEncoder()
