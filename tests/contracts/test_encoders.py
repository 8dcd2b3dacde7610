"""What every encoder promises: unit vectors, one per text, that no other text of the batch can change."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts import kinds
from experts.encoders.base import Embedded, Encoder
from tests.contracts import doubles
from tests.contracts.samples import HOSTILE, LAW, ORDINARY, encoder, hostile

# Padding and another order of summing move 32-bit vectors by a few units of the sixth decimal.
TOLERANCE = 2e-5
# Layers are not of length one; their numbers reach about ten.
LAYER_TOLERANCE = 2e-4


@pytest.fixture(scope="module", params=sorted(kinds.ENCODERS | doubles.ENCODERS))
def tested(request: pytest.FixtureRequest) -> Iterator[Encoder]:
    """Every registered encoder, and the double."""
    with pytest.MonkeyPatch.context() as patch:
        for name, target in doubles.ENCODERS.items():
            patch.setitem(kinds.ENCODERS, name, target)
        yield encoder(request.param)


def test_there_is_one_unit_vector_of_32_bit_numbers_per_text(tested: Encoder) -> None:
    vectors = tested.encode(ORDINARY)
    assert vectors.shape == (len(ORDINARY), tested.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_vectors(tested: Encoder) -> None:
    vectors = tested.encode([])
    assert vectors.shape == (0, tested.dimension)
    assert vectors.dtype == np.float32


def test_a_batch_gives_the_vectors_of_its_texts_one_by_one_and_in_their_order(tested: Encoder) -> None:
    texts = [*ORDINARY, ORDINARY[0]]
    alone = np.concatenate([tested.encode([text]) for text in texts])
    np.testing.assert_allclose(tested.encode(texts), alone, atol=TOLERANCE)
    np.testing.assert_allclose(tested.encode(texts[::-1]), alone[::-1], atol=TOLERANCE)


def test_a_tuple_of_texts_is_as_good_as_a_list(tested: Encoder) -> None:
    np.testing.assert_array_equal(tested.encode(tuple(ORDINARY)), tested.encode(ORDINARY))


@hostile
def test_a_hostile_text_has_a_unit_vector_and_leaves_its_neighbours_alone(tested: Encoder, text: str) -> None:
    vectors = tested.encode([ORDINARY[0], text, ORDINARY[1]])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[[0, 2]], tested.encode(ORDINARY[:2]), atol=TOLERANCE)


def test_the_same_texts_give_the_same_vectors_every_time(tested: Encoder) -> None:
    texts = [*ORDINARY, HOSTILE["emoji joined"], HOSTILE["empty"]]
    first, again = tested.encode(texts), tested.encode(texts)
    np.testing.assert_array_equal(first, again)
    assert not np.shares_memory(first, again)


def test_a_text_about_the_same_thing_is_nearer_than_one_about_another(tested: Encoder) -> None:
    asked, same, other = tested.encode(
        ["the monthly payment of a mortgage", "mortgage payments are due monthly", "volcanoes erupt lava and ash"]
    )
    assert asked @ same > asked @ other + 0.2


@LAW
@given(texts=st.lists(st.text(max_size=40), max_size=4))
def test_whatever_the_texts_say_their_vectors_are_finite_and_of_length_one(tested: Encoder, texts: list[str]) -> None:
    vectors = tested.encode(texts)
    assert vectors.shape == (len(texts), tested.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


class TestEmbed:
    """What routers read: the vectors, and what lies below them."""

    @staticmethod
    def assert_sound(embedded: Embedded, encoder: Encoder, n: int) -> None:
        assert len(embedded) == n
        assert embedded.vectors.shape == (n, encoder.dimension)
        assert embedded.vectors.dtype == np.float32
        assert embedded.layers.dtype == np.float32
        assert embedded.layers.ndim == 3
        assert len(embedded.layers) == n
        assert embedded.layers.shape[1] >= 1
        assert np.isfinite(embedded.layers).all()

    def test_the_vectors_are_those_of_encode(self, tested: Encoder) -> None:
        embedded = tested.embed(ORDINARY)
        self.assert_sound(embedded, tested, len(ORDINARY))
        np.testing.assert_array_equal(embedded.vectors, tested.encode(ORDINARY))

    def test_every_text_has_layers_of_its_own(self, tested: Encoder) -> None:
        layers = tested.embed(ORDINARY).layers
        assert (np.linalg.norm(layers, axis=2) > 0.1).all()
        for one in range(len(ORDINARY)):
            for other in range(one):
                assert np.abs(layers[one] - layers[other]).max() > 0.05

    def test_no_texts_have_no_layers_but_their_shape(self, tested: Encoder) -> None:
        nothing = tested.embed([])
        self.assert_sound(nothing, tested, 0)
        assert nothing.layers.shape[1:] == tested.embed(ORDINARY[:1]).layers.shape[1:]

    def test_a_batch_has_the_layers_of_its_texts_one_by_one_and_in_their_order(self, tested: Encoder) -> None:
        texts = [*ORDINARY, ORDINARY[0]]
        alone = np.concatenate([tested.embed([text]).layers for text in texts])
        np.testing.assert_allclose(tested.embed(texts).layers, alone, atol=LAYER_TOLERANCE)
        np.testing.assert_allclose(tested.embed(texts[::-1]).layers, alone[::-1], atol=LAYER_TOLERANCE)

    @hostile
    def test_a_hostile_text_has_finite_layers_and_leaves_its_neighbours_alone(self, tested: Encoder, text: str) -> None:
        embedded = tested.embed([ORDINARY[0], text, ORDINARY[1]])
        self.assert_sound(embedded, tested, 3)
        beside = tested.embed(ORDINARY[:2]).layers
        np.testing.assert_allclose(embedded.layers[[0, 2]], beside, atol=LAYER_TOLERANCE)

    def test_the_same_texts_have_the_same_layers_every_time(self, tested: Encoder) -> None:
        texts = [*ORDINARY, HOSTILE["emoji joined"], HOSTILE["empty"]]
        first, again = tested.embed(texts), tested.embed(texts)
        np.testing.assert_array_equal(first.layers, again.layers)
        assert not np.shares_memory(first.layers, again.layers)
