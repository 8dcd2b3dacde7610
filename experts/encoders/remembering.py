"""An encoder that remembers: the same text is not embedded twice while it is remembered."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from experts.encoders.base import Embedded, Encoder, Vectors


class RememberingEncoder:
    """Another encoder with a memory of the ``limit`` texts used last. Not for several threads at once.

    ``n_asked`` and ``n_remembered`` count texts since the start; texts repeated within one call count as remembered.
    """

    def __init__(self, encoder: Encoder, limit: int) -> None:
        self._encoder = encoder
        self._limit = limit
        self._held: OrderedDict[str, tuple[Vectors, Vectors]] = OrderedDict()
        self.name = encoder.name
        self.dimension = encoder.dimension
        self.n_asked = 0
        self.n_remembered = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self.embed(texts).vectors

    def embed(self, texts: Sequence[str]) -> Embedded:
        new = [text for text in dict.fromkeys(texts) if text not in self._held]
        self.n_asked += len(texts)
        self.n_remembered += len(texts) - len(new)
        fresh = self._encoder.embed(new)
        if len(new) == len(texts):
            self._remember(new, fresh)
            return fresh
        rows = dict(zip(new, zip(fresh.vectors, fresh.layers, strict=True), strict=True))
        found = [rows[text] if text in rows else self._held[text] for text in texts]
        for text in texts:
            if text in self._held:
                self._held.move_to_end(text)
        self._remember(new, fresh)
        return Embedded(np.stack([vector for vector, _ in found]), np.stack([layers for _, layers in found]))

    def _remember(self, texts: Sequence[str], embedded: Embedded) -> None:
        for row, text in enumerate(texts[-self._limit :] if self._limit else ()):
            place = max(len(texts) - self._limit, 0) + row
            self._held[text] = (embedded.vectors[place].copy(), embedded.layers[place].copy())
        while len(self._held) > self._limit:
            self._held.popitem(last=False)
