"""What an encoder is, and which there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from experts.kinds import ENCODERS, HASHING, SENTENCE_TRANSFORMERS, find

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Which encoder, and how it runs. Only ``name`` decides what the vectors mean."""

    name: str = "all-MiniLM-L6-v2"
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int = 32
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Embedded:
    """n texts as a router reads them.

    ``vectors`` float32[n, d], each of length 1, say what a text means. ``layers`` float32[n, L, h] are the means over
    its tokens of what the encoder's upper layers hold, which also tell words and manner apart; an encoder without such
    layers repeats its vectors as the only one.
    """

    vectors: Vectors
    layers: Vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, places: NDArray[np.int64] | slice) -> "Embedded":
        """Some of the texts."""
        return Embedded(self.vectors[places], self.layers[places])


def of_vectors(vectors: Vectors) -> Embedded:
    """Texts of an encoder that gives vectors only."""
    return Embedded(vectors, vectors[:, None, :])


def joined(*parts: Embedded) -> Embedded:
    """The texts of all parts, one after the other; a part without texts may be of any shape."""
    parts = tuple(part for part in parts if len(part)) or parts[:1]
    return Embedded(
        np.concatenate([part.vectors for part in parts]), np.concatenate([part.layers for part in parts], axis=0)
    )


class Encoder(Protocol):
    """Turns texts into unit vectors. ``name`` and ``dimension`` say which space they lie in."""

    name: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """``float32[len(texts), dimension]``, each of length 1; the empty list gives ``float32[0, dimension]``."""
        ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The same vectors, and the layers below them."""
        ...


def load_encoder(spec: EncoderSpec) -> Encoder:
    """The encoder; any name but ``hashing`` is a sentence-transformers model. Raises ModelUnusable."""
    kind = HASHING if spec.name == HASHING else SENTENCE_TRANSFORMERS
    encoder: Encoder = find("encoder", ENCODERS, kind)(spec)
    return encoder
