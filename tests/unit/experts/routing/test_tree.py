"""Going down the tree of experts, against a walk written out step by step."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from experts.routing.tree import by_level, path
from tests.contracts.samples import LAW
from tests.unit.experts.routing.deciding import EXPERTS
from tests.unit.experts.routing.shown import floats

TREE: dict[str, str | None] = {"code": "bank", "earth": "bank", "law": None, "medicine": "nobody"}


class TestPath:
    @pytest.mark.parametrize(
        ("name", "parents", "expected"),
        [
            ("earth", {}, ["earth"]),
            ("earth", {"earth": None}, ["earth"]),
            ("earth", {"earth": "nobody", "nobody": "bank"}, ["earth"]),
            ("earth", {"earth": "code", "code": "bank", "bank": "nobody"}, ["bank", "code", "earth"]),
            ("earth", {"earth": "earth"}, ["earth"]),
            ("earth", {"earth": "code", "code": "earth"}, ["code", "earth"]),
            ("earth", {"earth": "code", "code": "bank", "bank": "code"}, ["bank", "code", "earth"]),
        ],
    )
    def test_it_goes_up_until_nobody_new_is_there(
        self, name: str, parents: dict[str, str | None], expected: list[str]
    ) -> None:
        assert path(name, EXPERTS, parents) == expected


def levelled(share: Sequence[float], experts: Sequence[str], parents: Mapping[str, str | None]) -> list[float]:
    """Slow: go into the largest branch of each level, and halve what lies beside it."""
    result = list(share)
    paths = [path(name, experts, parents) for name in experts]
    entered = list(range(len(experts)))
    for level in range(max(map(len, paths))):
        branches: dict[str, list[int]] = {}
        for place in entered:
            branches.setdefault(paths[place][min(level, len(paths[place]) - 1)], []).append(place)
        best = max(branches, key=lambda name: (sum(share[p] for p in branches[name]), -experts.index(name)))
        for place in entered:
            result[place] *= 1 if place in branches[best] else 0.5
        entered = branches[best]
    return [value / sum(result) for value in result]


@st.composite
def forests(draw: st.DrawFn) -> tuple[list[int], dict[str, str | None]]:
    """Sixteenths for each expert, and parents that come before their children."""
    parts = draw(st.lists(st.integers(0, 16), min_size=5, max_size=5))
    assume(sum(parts) > 0)
    above = {
        name: draw(st.sampled_from([None, "nobody", *EXPERTS[:place]])) for place, name in enumerate(EXPERTS) if place
    }
    return parts, above


class TestByLevel:
    def test_a_field_that_several_divide_among_them_beats_a_narrow_one(self) -> None:
        """The three of bank's hold 0.5625 and halve law's 0.4375; among them code leads and halves the other two."""
        found = by_level(floats([[0.0, 0.3125, 0.25, 0.4375, 0.0]]), EXPERTS, TREE)
        total = 0.3125 + 0.125 + 0.21875
        np.testing.assert_allclose(found, [[0, 0.3125 / total, 0.125 / total, 0.21875 / total, 0]], atol=1e-6)
        assert found.dtype == np.float32

    def test_every_query_goes_its_own_way(self) -> None:
        rows = floats([[0.0, 0.3125, 0.25, 0.4375, 0.0], [0, 0.25, 0, 0, 0.75], [0.5, 0.25, 0.25, 0, 0]])
        together = by_level(rows, EXPERTS, TREE)
        np.testing.assert_allclose(together, [levelled(row, EXPERTS, TREE) for row in rows.tolist()], atol=1e-6)

    @LAW
    @given(forest=forests())
    def test_it_is_what_a_walk_down_the_tree_gives(self, forest: tuple[list[int], dict[str, str | None]]) -> None:
        parts, above = forest
        # Fractions of a power of two add up without rounding, so that equal branches are equal.
        share = floats([[part / 128 for part in parts]])
        expected = (
            levelled(share[0].tolist(), EXPERTS, above)
            if any(parent in EXPERTS for parent in above.values())
            else share[0]
        )
        np.testing.assert_allclose(by_level(share, EXPERTS, above)[0], expected, atol=1e-6)

    @pytest.mark.parametrize("parents", [{}, {"bank": "nobody"}, {"nobody": "bank"}, dict.fromkeys(EXPERTS)])
    def test_where_no_expert_lies_under_another_nothing_changes(self, parents: dict[str, str | None]) -> None:
        share = floats([[0.5, 0.5]])
        assert by_level(share, EXPERTS[:2], parents) is share

    @pytest.mark.parametrize(
        "parents",
        [{"bank": "bank"}, {"bank": "code", "code": "bank"}, {"bank": "code", "code": "earth", "earth": "bank"}],
    )
    def test_a_ring_of_parents_ends_and_leaves_shares(self, parents: dict[str, str | None]) -> None:
        found = by_level(floats([[0.125, 0.125, 0.125, 0.625], [0.625, 0.125, 0.125, 0.125]]), EXPERTS[:4], parents)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
        assert found.argmax(axis=1).tolist() == [3, 0]

    def test_no_queries_have_no_shares(self) -> None:
        assert by_level(np.zeros((0, 5), np.float32), EXPERTS, TREE).shape == (0, 5)
