"""The encoder that runs a model: batches by tokens, numbers against the library's own."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.encoders import sentence
from experts.encoders.base import EncoderSpec, load_encoder
from experts.encoders.sentence import SentenceEncoder
from experts.errors import ModelUnusable
from experts.kinds import SENTENCE_TRANSFORMERS
from tests.contracts.samples import HOSTILE, LAW, encoder

TOLERANCE = 2e-5
# Layers are not of length one; their numbers reach about ten.
LAYER_TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    """The bundled model in 32 bit."""
    loaded = encoder(SENTENCE_TRANSFORMERS)
    assert isinstance(loaded, SentenceEncoder)
    return loaded


def n_tokens(minilm: SentenceEncoder, text: str) -> int:
    return len(minilm._model.tokenizer(text, truncation=True, max_length=256)["input_ids"])


def test_the_bundled_model_is_what_it_says(minilm: SentenceEncoder) -> None:
    assert (minilm.name, minilm.dimension) == ("all-MiniLM-L6-v2", 384)


def test_vectors_are_those_of_the_librarys_own_encode(minilm: SentenceEncoder) -> None:
    texts = ["why", "a swallowed card", "volcanoes erupt because gas in the magma expands " * 3, ""]
    expected = [minilm._model.encode(text, normalize_embeddings=True, show_progress_bar=False) for text in texts]
    np.testing.assert_allclose(minilm.encode(texts), np.array(expected), atol=TOLERANCE)


def test_batches_sorted_by_tokens_give_the_vectors_of_one_by_one(minilm: SentenceEncoder) -> None:
    random = np.random.default_rng(0)
    words = ["loan", "volcano", "pointer", "lava", "statutory", "antidisestablishmentarianism", "of", "the"]
    texts = [" ".join(random.choice(words, int(n))) for n in random.integers(1, 60, 24)]
    one_by_one = np.concatenate([minilm.encode([text]) for text in texts])
    np.testing.assert_allclose(minilm.encode(texts), one_by_one, atol=TOLERANCE)


@LAW
@given(lengths=st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_every_text_is_in_one_batch_longest_first_and_no_batch_exceeds_its_tokens(
    minilm: SentenceEncoder, lengths: list[int]
) -> None:
    texts = ["word " * length for length in lengths]
    tokens = [min(length + 2, 256) for length in lengths]
    batches = list(minilm._batches(texts))
    flat = [place for batch in batches for place in batch]
    assert sorted(flat) == list(range(len(texts)))
    assert [tokens[place] for place in flat] == sorted(tokens, reverse=True)
    budget = 32 * 32
    for batch in batches:
        padded = tokens[batch[0]] * len(batch)
        assert padded <= budget or len(batch) == 1
    for batch, following in pairwise(batches):
        assert tokens[batch[0]] * (len(batch) + 1) > budget, f"{following[0]} would have fitted"


def test_what_lies_beyond_the_models_window_changes_nothing(minilm: SentenceEncoder) -> None:
    beginning = "the monthly payment of a mortgage " * 50
    first, second = minilm.encode([beginning + "volcano " * 100, beginning + "statute " * 5000])
    np.testing.assert_allclose(first, second, atol=TOLERANCE)
    assert n_tokens(minilm, beginning) == 256


def test_a_text_of_marks_is_read_beyond_them(minilm: SentenceEncoder) -> None:
    """The marks of a few hundred letters are not tokens; only a bomb of them cuts a text short."""
    plain, marked = minilm.encode(["mortgage payment", "m\u0301ort\u0327gage pay\u0336ment"])
    assert float(plain @ marked) > 0.99


def test_special_tokens_in_a_text_leave_a_finite_vector(minilm: SentenceEncoder) -> None:
    vectors = minilm.encode([HOSTILE["special tokens"], "[PAD]" * 300, "[SEP]"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_it_is_frozen_and_makes_no_gradients(minilm: SentenceEncoder) -> None:
    assert not minilm._model.training
    before = {name: value.clone() for name, value in minilm._model.state_dict().items()}
    minilm.encode(["a", "b"])
    assert all(torch.equal(value, before[name]) for name, value in minilm._model.state_dict().items())
    assert all(parameter.grad is None for parameter in minilm._model.parameters())


class TestEmbed:
    """What a router reads beside the vectors."""

    TEXTS = ("why", "a swallowed card", "volcanoes erupt because gas in the magma expands " * 6, "", "[PAD] it")

    @staticmethod
    def reference(minilm: SentenceEncoder, text: str) -> list[torch.Tensor]:
        """Means over the tokens of the third to the sixth layer, of one text without padding."""
        model: Any = minilm._model[0].auto_model
        ids = minilm._model.tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            states = model(**ids, output_hidden_states=True).hidden_states
        assert len(states) == 7  # the embedded tokens, and after each of six layers
        return [states[layer][0].mean(dim=0) for layer in (3, 4, 5, 6)]

    def test_layers_are_the_means_over_the_tokens_of_the_upper_four(self, minilm: SentenceEncoder) -> None:
        found = minilm.embed(self.TEXTS).layers
        assert found.shape == (5, 4, 384)
        assert found.dtype == np.float32
        for layers, text in zip(found, self.TEXTS, strict=True):
            for layer, expected in zip(layers, self.reference(minilm, text), strict=True):
                np.testing.assert_allclose(layer, expected.numpy(), atol=LAYER_TOLERANCE)

    def test_the_vectors_are_those_of_encode_and_lie_along_the_last_layer(self, minilm: SentenceEncoder) -> None:
        embedded = minilm.embed(self.TEXTS)
        np.testing.assert_array_equal(embedded.vectors, minilm.encode(self.TEXTS))
        last = embedded.layers[:, -1]
        np.testing.assert_allclose(last / np.linalg.norm(last, axis=1, keepdims=True), embedded.vectors, atol=TOLERANCE)

    def test_layers_of_a_batch_are_those_of_its_texts_one_by_one(self, minilm: SentenceEncoder) -> None:
        """Though the batch is sorted by tokens, cut, and padded."""
        random = np.random.default_rng(0)
        words = ["loan", "volcano", "pointer", "lava", "statutory", "of", "the"]
        texts = [" ".join(random.choice(words, int(n))) for n in random.integers(1, 150, 12)]
        assert len(list(minilm._batches(texts))) > 1
        one_by_one = np.concatenate([minilm.embed([text]).layers for text in texts])
        np.testing.assert_allclose(minilm.embed(texts).layers, one_by_one, atol=LAYER_TOLERANCE)

    def test_layers_tell_texts_apart_that_mean_the_same(self, minilm: SentenceEncoder) -> None:
        """Lower layers more than upper ones: that is why they are read."""
        one, other = minilm.embed(["How do I get a refund?", "refund how to get"]).layers
        cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosines[0] < cosines[-1]


class TestLayerMeans:
    STATES = tuple(
        torch.tensor([[[float(n), 1], [n + 2, 3], [99, 99]], [[n, 5], [77, 77], [77, 77]]]) for n in range(7)
    )
    MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])

    def test_only_tokens_of_the_text_count(self) -> None:
        found = sentence._layer_means({"all_layer_embeddings": self.STATES, "attention_mask": self.MASK})  # type: ignore[dict-item]
        assert found is not None
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[0], [[4, 2], [5, 2], [6, 2], [7, 2]])
        np.testing.assert_array_equal(found[1], [[3, 5], [4, 5], [5, 5], [6, 5]])

    @pytest.mark.parametrize(("n_layers", "chosen"), [(12, [6, 8, 10, 12]), (24, [12, 16, 20, 24]), (1, [0, 1, 1, 1])])
    def test_deeper_and_shallower_models_are_read_at_the_same_shares_of_their_depth(
        self, n_layers: int, chosen: list[int]
    ) -> None:
        states = tuple(torch.full((1, 2, 1), float(n)) for n in range(n_layers + 1))
        found = sentence._layer_means({"all_layer_embeddings": states, "attention_mask": torch.ones(1, 2)})  # type: ignore[dict-item]
        assert found is not None
        assert found[0, :, 0].tolist() == chosen

    def test_a_text_without_tokens_has_means_of_nought(self) -> None:
        found = sentence._layer_means(
            {"all_layer_embeddings": self.STATES, "attention_mask": torch.zeros(2, 3, dtype=torch.long)}  # type: ignore[dict-item]
        )
        np.testing.assert_array_equal(found, np.zeros((2, 4, 2)))

    @pytest.mark.parametrize("shown", [{}, {"attention_mask": MASK}, {"all_layer_embeddings": STATES}])
    def test_a_model_that_shows_no_layers_has_none(self, shown: dict[str, torch.Tensor]) -> None:
        assert sentence._layer_means(shown) is None


@pytest.mark.parametrize("content", [None, "{}", "no json"], ids=["an empty folder", "no model", "not json"])
def test_a_folder_that_holds_no_model_is_unusable(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelUnusable, match="cannot be loaded"):
        load_encoder(EncoderSpec(str(tmp_path), device="cpu"))


class TestPrecision:
    @pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_a_named_precision_is_taken_everywhere(self, name: str, device: str) -> None:
        assert sentence._dtype(name, device) is getattr(torch, name)

    @pytest.mark.parametrize(
        ("avx512", "amx", "expected"),
        [
            (False, False, torch.float32),
            (True, False, torch.bfloat16),
            (False, True, torch.bfloat16),
        ],
    )
    def test_auto_is_sixteen_bit_only_where_the_processor_computes_in_it(
        self, monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: torch.dtype
    ) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        assert sentence._dtype("auto", "cpu") is expected

    def test_auto_is_float16_on_an_accelerator(self) -> None:
        assert sentence._dtype("auto", "cuda:0") is torch.float16

    @pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
    def test_the_device_is_an_accelerator_where_there_is_one(
        self, monkeypatch: pytest.MonkeyPatch, available: bool, expected: str
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        assert sentence._device("auto") == expected
        assert sentence._device("cpu") == "cpu"

    def test_an_unknown_precision_is_unusable(self) -> None:
        spec = EncoderSpec(dtype="float7", device="cpu")
        with pytest.raises(ModelUnusable, match="float7"):
            load_encoder(spec)
