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


class Encoder(Protocol):
    """Turns texts into unit vectors. ``name`` and ``dimension`` say which space they lie in."""

    name: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """``float32[len(texts), dimension]``, each of length 1; the empty list gives ``float32[0, dimension]``."""
        ...


def load_encoder(spec: EncoderSpec) -> Encoder:
    """The encoder; any name but ``hashing`` is a sentence-transformers model. Raises ModelUnusable."""
    kind = HASHING if spec.name == HASHING else SENTENCE_TRANSFORMERS
    encoder: Encoder = find("encoder", ENCODERS, kind)(spec)
    return encoder
