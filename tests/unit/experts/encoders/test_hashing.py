"""The encoder without a model, against its definition."""

import re
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experts.encoders.base import EncoderSpec, load_encoder
from experts.encoders.hashing import HashingEncoder
from tests.contracts.samples import LAW


def reference(text: str) -> list[float]:
    """Every word counts two, each of its three-letter pieces a half; an empty text is the first axis."""
    places = [0.0] * 384
    for word in re.findall(r"\w+", text.lower()):
        places[zlib.crc32(word.encode()) % 384] += 2
        for a, b, c in zip(f"<{word}>", f"<{word}>"[1:], f"<{word}>"[2:], strict=False):
            places[zlib.crc32(f"{a}{b}{c}".encode()) % 384] += 0.5
    if not any(places):
        places[0] = 1.0
    length = sum(place**2 for place in places) ** 0.5
    return [place / length for place in places]


@LAW
@given(text=st.text(max_size=80))
def test_a_vector_counts_words_and_their_pieces(text: str) -> None:
    np.testing.assert_allclose(HashingEncoder().encode([text])[0], reference(text), atol=1e-6)


def test_case_and_punctuation_do_not_matter() -> None:
    vectors = HashingEncoder().encode(["My card, please!", "my CARD ... please"])
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_words_in_another_order_are_the_same_text() -> None:
    vectors = HashingEncoder().encode(["my card please", "please my card"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_a_text_without_words_is_the_first_axis() -> None:
    np.testing.assert_array_equal(HashingEncoder().encode(["", "?!"]), np.eye(1, 384).repeat(2, axis=0))


def test_only_the_first_twenty_thousand_characters_are_read() -> None:
    vectors = HashingEncoder().encode(["ab " * 7_000, "ab " * 6_666 + "ab"])
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_texts_are_embedded_as_their_vectors_in_one_layer() -> None:
    texts = ["my card", "", "why?"]
    embedded = HashingEncoder().embed(texts)
    vectors = HashingEncoder().encode(texts)
    np.testing.assert_array_equal(embedded.vectors, vectors)
    np.testing.assert_array_equal(embedded.layers, vectors.reshape(3, 1, 384))


def test_it_is_loaded_by_its_name() -> None:
    encoder = load_encoder(EncoderSpec("hashing"))
    assert isinstance(encoder, HashingEncoder)
    assert (encoder.name, encoder.dimension) == ("hashing", 384)
