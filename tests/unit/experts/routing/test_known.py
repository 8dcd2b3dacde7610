"""What a router is shown: put in order, adopted from the world, and left out again."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.encoders.base import Embedded, of_vectors
from experts.routing.base import OUTSIDE, Examples, ExpertProfile, Floats, Places, World
from experts.routing.known import MAX_PASSAGES, Known, Queries, adopt, gather, nearest_but_self, standardised
from experts.routing.search import Near
from tests.contracts.samples import LAW
from tests.unit.experts.routing.shown import directions, examples_of, floats, known_of, unit


def layered(n: int, *, seed: int = 0) -> Embedded:
    """Texts of an encoder of four dimensions that shows two layers of three."""
    random = np.random.default_rng(seed)
    return Embedded(directions(n, 4, seed=seed), random.standard_normal((n, 2, 3)).astype(np.float32))


def world_of(vectors: Floats, topic: Sequence[int]) -> World:
    return World([f"world {n}" for n in range(len(topic))], np.array(topic, np.int64), of_vectors(vectors))


def test_queries_are_as_many_as_their_texts() -> None:
    nothing = np.zeros((2, 0), np.float32)
    near = Near(nothing, np.zeros((2, 0), np.int64))
    assert len(Queries(["a", "b"], nothing, nothing, near, np.ones(2, np.float32), np.ones(2, np.float32))) == 2


class TestStandardised:
    def test_every_layer_is_centred_and_counts_alike(self) -> None:
        layers = floats([[[4, 6], [1, 0]], [[1, 3], [1, 7]]])
        centre = floats([[1, 2], [1, 2]])
        half = 0.5**0.5
        expected = [[0.6 * half, 0.8 * half, 0, -half], [0, half, 0, half]]
        found = standardised(layers, centre)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == np.float32

    @LAW
    @given(seed=st.integers(0, 2**32 - 1), n_layers=st.integers(1, 4), n=st.integers(0, 4))
    def test_all_layers_together_have_length_one(self, seed: int, n_layers: int, n: int) -> None:
        random = np.random.default_rng(seed)
        layers = random.standard_normal((n, n_layers, 5)).astype(np.float32)
        found = standardised(layers, random.standard_normal((n_layers, 5)).astype(np.float32))
        assert found.shape == (n, 5 * n_layers)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)

    def test_a_text_that_is_the_centre_has_no_traits(self) -> None:
        np.testing.assert_array_equal(standardised(floats([[[1, 2]]]), floats([[1, 2]])), [[0, 0]])

    @pytest.mark.parametrize("n", [0, 3])
    def test_texts_without_vectors_have_no_traits(self, n: int) -> None:
        found = standardised(np.zeros((n, 1, 0), np.float32), np.zeros((1, 0), np.float32))
        assert found.shape == (n, 0)

    def test_layers_and_centre_stay_as_they_were(self) -> None:
        layers, centre = floats([[[4, 6]]]), floats([[1, 2]])
        standardised(layers, centre)
        assert (layers.tolist(), centre.tolist()) == ([[[4, 6]]], [[1, 2]])


class TestGather:
    OWNER = (1, OUTSIDE, 0, 2, OUTSIDE, 1)

    @pytest.fixture
    def embedded(self) -> Embedded:
        return layered(6)

    def test_exemplars_stay_in_order_and_what_lies_outside_is_put_aside(self, embedded: Embedded) -> None:
        known = known_of(embedded, self.OWNER)
        assert known.experts == ("bank", "code", "earth")
        assert known.n_own == 4
        assert known.texts == ["text 0", "text 2", "text 3", "text 5"]
        assert known.owner.tolist() == [1, 0, 2, 1]
        assert known.owner.dtype == np.int64
        np.testing.assert_array_equal(known.vectors, embedded.vectors[[0, 2, 3, 5]])
        assert known.outside_texts == ["text 1", "text 4"]
        np.testing.assert_array_equal(known.outside, embedded.vectors[[1, 4]])

    def test_the_centre_is_that_of_the_exemplars_alone(self, embedded: Embedded) -> None:
        known = known_of(embedded, self.OWNER)
        own = [0, 2, 3, 5]
        np.testing.assert_allclose(known.centre, np.mean([embedded.layers[n] for n in own], axis=0), atol=1e-6)
        assert known.centre.dtype == np.float32
        np.testing.assert_array_equal(known.traits, standardised(embedded.layers[own], known.centre))
        np.testing.assert_array_equal(known.outside_traits, standardised(embedded.layers[[1, 4]], known.centre))

    def test_without_a_world_there_is_no_background(self, embedded: Embedded) -> None:
        known = known_of(embedded, self.OWNER)
        assert (known.background.shape, known.background_traits.shape) == ((0, 4), (0, 6))
        assert (list(known.background_texts), known.topic.tolist()) == ([], [])

    def test_with_nothing_outside_that_part_is_empty_in_the_encoders_space(self) -> None:
        known = known_of(layered(3), [0, 1, 2])
        assert (known.outside_texts, known.outside.shape, known.outside_traits.shape) == ([], (0, 4), (0, 6))

    def test_keywords_are_kept_by_expert_and_can_be_searched(self) -> None:
        known = known_of(layered(3), [0, 1, 2], keywords={"bank": ["mortgage"], "earth": ["lava", "ash"]})
        assert known.keywords == {"bank": ["mortgage"], "code": [], "earth": ["lava", "ash"]}
        assert known.table.hits("does lava melt ash") == {"earth": ["lava", "ash"]}

    def test_the_index_finds_the_exemplars(self, embedded: Embedded) -> None:
        known = known_of(embedded, self.OWNER)
        assert known.index.search(known.vectors, 1).places[:, 0].tolist() == [0, 1, 2, 3]
        assert known.index is known.index

    def test_routers_of_words_are_shown_texts_and_owners_only(self) -> None:
        examples = Examples(["a", "b", "c"], np.array([0, OUTSIDE, 1]), None)
        profiles = [ExpertProfile("bank", ["card"], directions(3, 4)), ExpertProfile("code")]
        known = gather(profiles, examples, world_of(directions(4, 4), [0, 0, 1, 1]))
        assert (known.texts, known.owner.tolist(), known.outside_texts) == (["a", "c"], [0, 1], ["b"])
        assert known.vectors.shape == known.traits.shape == (2, 0)
        assert (known.passages.shape, known.library.shape) == ((0, 0), (0,))
        assert (known.background.shape, known.background_texts) == ((0, 0), [])
        assert known.table.hits("my card") == {"bank": ["card"]}

    def test_what_was_given_stays_as_it_was(self, embedded: Embedded) -> None:
        vectors, layers = embedded.vectors.copy(), embedded.layers.copy()
        known_of(embedded, self.OWNER, world=World(["w"], np.array([0]), layered(1, seed=1)))
        np.testing.assert_array_equal(embedded.vectors, vectors)
        np.testing.assert_array_equal(embedded.layers, layers)


class TestLibraries:
    @staticmethod
    def gathered(*passages: Floats | None, seed: int = 0) -> Known:
        profiles = [ExpertProfile(f"expert {n}", (), vectors) for n, vectors in enumerate(passages)]
        return gather(profiles, examples_of(layered(3), [0, 1, 2]), None, seed=seed)

    def test_passages_lie_one_library_after_the_other_and_an_empty_one_is_passed_over(self) -> None:
        first, last = directions(2, 4, seed=5), directions(3, 4, seed=6)
        known = self.gathered(first, None, last)
        np.testing.assert_array_equal(known.passages, np.concatenate([first, last]))
        assert known.library.tolist() == [0, 0, 2, 2, 2]
        assert known.library.dtype == np.int64
        assert self.gathered(first, np.zeros((0, 4), np.float32), last).library.tolist() == [0, 0, 2, 2, 2]

    def test_without_libraries_there_are_no_passages(self) -> None:
        known = self.gathered(None, None, None)
        assert (known.passages.shape, known.library.shape) == ((0, 4), (0,))
        assert known.passages.dtype == np.float32

    def test_of_a_large_library_a_sample_is_kept_in_its_order(self) -> None:
        large = np.arange(4 * (MAX_PASSAGES + 100), dtype=np.float32).reshape(-1, 4)
        small = large[:MAX_PASSAGES]
        known = self.gathered(large, small, None)
        assert np.bincount(known.library).tolist() == [MAX_PASSAGES, MAX_PASSAGES]
        starts = known.passages[:MAX_PASSAGES, 0]
        assert set(starts.tolist()) < set(large[:, 0].tolist())
        assert (np.diff(starts) > 0).all()
        np.testing.assert_array_equal(known.passages[MAX_PASSAGES:], small)

    def test_the_seed_decides_which(self) -> None:
        large = np.arange(4 * (MAX_PASSAGES + 100), dtype=np.float32).reshape(-1, 4)
        first, again, other = (self.gathered(large, None, None, seed=seed).passages for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


AXES = np.eye(5, dtype=np.float32)


def on_axes(*sizes: int) -> tuple[Floats, Places]:
    """So many exemplars of each expert, all on an axis of its own."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return AXES[owner], owner


class TestAdopt:
    @staticmethod
    def adopted(queries: Floats, topic: Sequence[int], *, n_experts: int = 4) -> list[int]:
        vectors, owner = on_axes(*[3] * n_experts)
        found = adopt(vectors, owner, n_experts, world_of(queries, topic))
        assert found.dtype == np.int64
        return [int(place) for place in found]

    def test_a_topic_goes_to_the_expert_its_queries_lie_near(self) -> None:
        assert self.adopted(AXES[[2, 0, 2, 0]], [0, 1, 0, 1]) == [2, 0, 2, 0]

    def test_a_query_that_lies_elsewhere_goes_with_its_topic(self) -> None:
        assert self.adopted(AXES[[1, 1, 1, 3]], [0, 0, 0, 0]) == [1, 1, 1, 1]

    def test_a_topic_that_lies_a_little_near_everybody_belongs_to_nobody(self) -> None:
        assert self.adopted(AXES[[0, 1, 2, 3]], [0, 0, 0, 0]) == [OUTSIDE] * 4

    @pytest.mark.parametrize(("of_twenty", "expected"), [(8, OUTSIDE), (9, 0)])
    def test_two_in_five_queries_are_too_few_to_adopt_a_topic(self, of_twenty: int, expected: int) -> None:
        others = [1 + n % 3 for n in range(20 - of_twenty)]
        assert self.adopted(AXES[[*[0] * of_twenty, *others]], [0] * 20) == [expected] * 20

    def test_topics_need_not_be_numbered_without_gaps(self) -> None:
        assert self.adopted(AXES[[3, 1]], [7, 2]) == [3, 1]

    def test_of_an_empty_world_nothing_is_adopted(self) -> None:
        assert self.adopted(np.zeros((0, 5), np.float32), []) == []

    @pytest.mark.parametrize("n_experts", [1, 2, 3, 4])
    def test_a_topic_that_is_like_no_experts_exemplars_belongs_to_nobody(self, n_experts: int) -> None:
        """Cooking is not a bank's business because the bank is the only expert there is."""
        queries = unit(AXES[[4, 4, 4]] + 0.001 * AXES[[0, 1, 2]])
        assert self.adopted(queries, [0, 0, 0], n_experts=n_experts) == [OUTSIDE] * 3

    @pytest.mark.parametrize(
        ("sizes", "expected"),
        [
            pytest.param((5, 8, 8, 40), 0, id="eight neighbours: five of the first expert, three of the second"),
            pytest.param((5, 12, 12, 40), 1, id="twelve neighbours: five of the first expert, seven of the second"),
        ],
    )
    def test_as_many_neighbours_vote_as_the_median_expert_has_exemplars(
        self, sizes: Sequence[int], expected: int
    ) -> None:
        owner = np.repeat(np.arange(4), sizes)
        vectors = unit([[1, 0, 0], [1, 0.2, 0], [0, 1, 0], [0, 0, 1]])[owner]
        assert adopt(vectors, owner, 4, world_of(floats([[1, 0, 0]]), [0])).tolist() == [expected]

    def test_at_least_three_neighbours_vote(self) -> None:
        """Two experts nearly as near as the first one leave it less than half of the votes."""
        vectors = unit([[1, 0, 0, 0.5], [0, 1, 0, 0.5], [0, 0, 1, 0.5], [0, 0, 0, -1]])
        query = unit([[0.6, 0.5, 0.5, 0]])
        assert adopt(vectors, np.arange(4), 4, world_of(query, [0])).tolist() == [OUTSIDE]

    def test_no_more_than_thirty_neighbours_vote(self) -> None:
        """Of the nearest thirty sixteen are the second expert's, of the nearest thirty-seven twenty-one the first's."""
        order = [0] * 14 + [1] * 16 + [0] * 23 + [1] * 21 + [2] * 37 + [3] * 37
        owner = np.array(order)
        vectors = unit([[1, 0.005 * at] for at in range(len(order))])
        assert np.median(np.bincount(owner)) == 37
        assert adopt(vectors, owner, 4, world_of(floats([[1, 0]]), [0])).tolist() == [1]


class TestGatherWithAWorld:
    """Topic 0 is the first expert's and topic 1 the third's; topics 2 and 3 are spread over all four."""

    TOPIC = (2, 0, 1, 3, 2, 0, 2, 3, 1, 3, 2, 3)
    AXIS = (0, 0, 2, 1, 1, 0, 2, 2, 2, 3, 3, 0)
    ADOPTED = (1, 2, 5, 8)
    BACKGROUND = (0, 3, 4, 6, 7, 9, 10, 11)

    @pytest.fixture
    def world(self) -> World:
        random = np.random.default_rng(7)
        layers = random.standard_normal((12, 2, 3)).astype(np.float32)
        return World([f"world {n}" for n in range(12)], np.array(self.TOPIC), Embedded(AXES[list(self.AXIS)], layers))

    @pytest.fixture
    def own(self) -> Embedded:
        """Three exemplars of each of four experts, and two queries outside."""
        random = np.random.default_rng(8)
        axes = np.concatenate([on_axes(3, 3, 3, 3)[0], AXES[[4, 4]]])
        return Embedded(axes, random.standard_normal((14, 2, 3)).astype(np.float32))

    @pytest.fixture
    def known(self, own: Embedded, world: World) -> Known:
        owner = [*on_axes(3, 3, 3, 3)[1].tolist(), OUTSIDE, OUTSIDE]
        return known_of(own, owner, names=("bank", "code", "earth", "law"), world=world)

    def test_what_is_adopted_lies_behind_the_own_exemplars(self, known: Known, world: World) -> None:
        assert known.n_own == 12
        assert known.owner.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 2, 0, 2]
        assert len(known.texts) == 12
        np.testing.assert_array_equal(known.vectors[12:], world.embedded.vectors[list(self.ADOPTED)])
        adopted = standardised(world.embedded.layers[list(self.ADOPTED)], known.centre)
        np.testing.assert_allclose(known.traits[12:], adopted, atol=1e-6)

    def test_the_rest_is_the_background_with_its_topics(self, known: Known, world: World) -> None:
        rest = list(self.BACKGROUND)
        np.testing.assert_array_equal(known.background, world.embedded.vectors[rest])
        assert known.background_texts == [f"world {n}" for n in rest]
        assert known.topic.tolist() == [self.TOPIC[n] for n in rest]
        expected = standardised(world.embedded.layers[rest], known.centre)
        np.testing.assert_allclose(known.background_traits, expected, atol=1e-6)

    def test_the_centre_stays_where_the_own_exemplars_are(self, known: Known, own: Embedded) -> None:
        np.testing.assert_allclose(known.centre, own.layers[:12].mean(axis=0), atol=1e-6)

    def test_leaving_own_exemplars_out_leaves_everything_else(self, known: Known) -> None:
        rest = known.without(np.array([10, 0, 5]))
        kept = [1, 2, 3, 4, 6, 7, 8, 9, 11]
        assert rest.texts == [f"text {n}" for n in kept]
        assert rest.n_own == 9
        assert rest.owner.tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3, 0, 2, 0, 2]
        places = [*kept, 12, 13, 14, 15]
        np.testing.assert_array_equal(rest.vectors, known.vectors[places])
        np.testing.assert_array_equal(rest.traits, known.traits[places])
        for name in ("centre", "outside", "outside_traits", "background", "background_traits", "topic", "passages"):
            np.testing.assert_array_equal(getattr(rest, name), getattr(known, name))
        for name in ("experts", "keywords", "outside_texts", "background_texts"):
            assert getattr(rest, name) == getattr(known, name)
        np.testing.assert_array_equal(rest.library, known.library)

    def test_what_was_left_out_is_not_found_any_more(self, own: Embedded) -> None:
        whole = known_of(directions(6, 4), [0, 1, 2, 0, 1, 2])
        rest = whole.without(np.array([3]))
        assert whole.index.search(whole.vectors[[3]], 1).cosines[0, 0] == pytest.approx(1, abs=1e-6)
        assert rest.index.search(whole.vectors[[3]], 1).cosines[0, 0] < 0.99
        assert whole.n_own == 6

    def test_leaving_nothing_out_changes_nothing(self, known: Known) -> None:
        same = known.without(np.zeros(0, np.int64))
        assert (same.texts, same.owner.tolist()) == (known.texts, known.owner.tolist())


class TestNearestButSelf:
    @LAW
    @given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 12), k=st.integers(1, 14), rows=st.integers(1, 5))
    def test_every_vector_is_compared_with_all_but_itself_whatever_the_blocks(
        self, seed: int, m: int, k: int, rows: int
    ) -> None:
        vectors = directions(m, 5, seed=seed)
        near = nearest_but_self(vectors, k, rows=rows)
        assert near.places.shape == near.cosines.shape == (m, min(k, m))
        for place in range(m):
            others = {n: float(vectors[place] @ vectors[n]) for n in range(m) if n != place}
            there = min(k, m - 1)
            expected = sorted(others.values(), reverse=True)[:there]
            np.testing.assert_allclose(near.cosines[place, :there], expected, atol=1e-5)
            found = near.places[place, :there].tolist()
            assert place not in found
            assert len(set(found)) == there
            np.testing.assert_allclose([others[n] for n in found], near.cosines[place, :there], atol=1e-5)
            assert (near.places[place, there:] == -1).all()
            assert (near.cosines[place, there:] == -1).all()

    def test_one_that_stands_there_twice_is_its_own_neighbour(self) -> None:
        near = nearest_but_self(AXES[[0, 1, 0]], 1)
        assert (near.places[[0, 2], 0].tolist(), near.cosines[[0, 2], 0].tolist()) == ([2, 0], [1, 1])

    def test_two_that_are_opposite_are_each_others_nearest(self) -> None:
        """Though in 32 bit their cosine comes out a little below -1."""
        one = directions(1, 64)
        near = nearest_but_self(np.concatenate([one, -one]), 1)
        np.testing.assert_allclose(near.cosines, -1, atol=1e-6)
        assert near.places.tolist() == [[1], [0]]

    def test_among_none_there_is_none(self) -> None:
        near = nearest_but_self(np.zeros((0, 4), np.float32), 3)
        assert near.places.shape == near.cosines.shape == (0, 0)
