"""Why a query goes where it goes: the sentence, the scores behind it, and what would have changed it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from experts.routing.base import Neighbour
from experts.routing.explaining import Choice, explained, otherwise
from experts.standing import Standing
from tests.unit.experts.routing.shown import floats


def choice(**changes: Any) -> Choice:
    """Of bank, code and earth the first is asked; code is shown beside it."""
    given: dict[str, Any] = {
        "experts": ["bank", "code", "earth"],
        "shown": [0, 1],
        "kept": [0],
        "share": floats([0.5, 0.3, 0.2]),
        "final": floats([0.5, 0.3, 0.2]),
        "gate": floats([0.6, 0.25, 0.15]),
        "own": floats([0.4, 0.35, 0.05]),
        "factors": [1.0, 1.0, 1.0],
        "keywords": {},
        "neighbours": [],
        "coverage": 0.75,
        "threshold": 0.5,
    }
    return Choice(**{**given, **changes})


def reason(of: Choice, standings: Mapping[str, Standing] | None = None) -> str:
    return explained(of, standings or {}, {})[0]


def explanation(of: Choice, parents: Mapping[str, str | None] | None = None) -> dict[str, Any]:
    return explained(of, {}, parents or {})[1]


START = "bank scores highest (gate 0.60, own assessment 0.40)"


class TestReason:
    def test_the_least_that_is_said_are_the_two_parts_of_the_score(self) -> None:
        assert reason(choice()) == f"{START}."

    def test_the_first_three_of_its_keywords_are_named_and_nobody_elses(self) -> None:
        keywords = {"bank": ["a", "b", "c", "d"], "code": ["python"]}
        assert reason(choice(keywords=keywords)) == f"{START}; keywords a, b, c."
        assert reason(choice(keywords={"bank": [], "code": ["python"]})) == f"{START}."

    def test_its_nearest_example_is_quoted_and_nobody_elses(self) -> None:
        near = [
            Neighbour("code", "another", 0.9),
            Neighbour(None, "outside", 0.8),
            Neighbour("bank", "what is a loan", 0.756),
            Neighbour("bank", "one farther away", 0.5),
        ]
        assert reason(choice(neighbours=near)) == f"{START}; like its example “what is a loan” (0.76)."
        assert reason(choice(neighbours=near[:2])) == f"{START}."

    @pytest.mark.parametrize(
        ("text", "quoted"),
        [("x" * 60, "x" * 60), ("x" * 61, "x" * 59 + "…"), ("x" * 58 + " y z", "x" * 58 + "…"), ("", "")],
    )
    def test_long_examples_are_cut(self, text: str, quoted: str) -> None:
        near = [Neighbour("bank", text, 1.0)]
        assert reason(choice(neighbours=near)) == f"{START}; like its example “{quoted}” (1.00)."

    def test_a_busy_expert_is_said_to_be_busy(self) -> None:
        of = choice(factors=[0.75, 1.0, 1.0], final=floats([0.375, 0.3, 0.2]))
        assert reason(of) == f"{START}; although it is busy (load factor 0.75)."

    def test_an_expert_that_gave_way_is_named(self) -> None:
        of = choice(kept=[1], shown=[1, 0])
        assert reason(of) == "code is asked in place of bank, which scores 0.20 more."

    def test_an_expert_that_fits_better_but_is_not_available_is_named(self) -> None:
        of = choice(kept=[1], shown=[1, 2], factors=[0.0, 1.0, 1.0], final=floats([0, 0.3, 0.2]))
        assert reason(of) == (
            "code scores highest (gate 0.25, own assessment 0.35); bank, which fits better, is not available."
        )

    def test_those_asked_as_well_are_named_in_order(self) -> None:
        assert reason(choice(kept=[0, 2, 1])) == f"{START}; earth, code asked as well."

    def test_a_query_that_nobody_covers_is_said_to_be_one(self) -> None:
        of = choice(coverage=0.123, kept=[0, 1])
        assert reason(of) == f"No expert covers this well (coverage 0.12); {START}."

    def test_a_coverage_at_the_threshold_is_enough(self) -> None:
        assert reason(choice(coverage=0.5)) == f"{START}."


class TestExplained:
    NEAR = (Neighbour("bank", "what is a loan", 0.87654), Neighbour(None, "sing a song", 0.5))

    def test_everything_the_decision_was_made_from_is_plain_data(self) -> None:
        of = choice(
            keywords={"bank": ("loan",)},
            neighbours=self.NEAR,
            factors=[1.0, 0.51234, 1.0],
            final=floats([0.5, 0.153702, 0.2]),
        )
        assert explanation(of) == {
            "scores": {
                "bank": {"gate": 0.6, "self": 0.4, "share": 0.5, "load": 1.0, "final": 0.5},
                "code": {"gate": 0.25, "self": 0.35, "share": 0.3, "load": 0.512, "final": 0.1537},
            },
            "keywords": {"bank": ["loan"]},
            "nearest": [
                {"expert": "bank", "text": "what is a loan", "cosine": 0.877},
                {"expert": None, "text": "sing a song", "cosine": 0.5},
            ],
            "otherwise": {"alone": {}, "coverage": 0.25, "runner_up": "code", "margin": 0.3463},
        }

    def test_the_standing_of_those_shown_is_added_where_it_is_known(self) -> None:
        why = ("errors 50 %, over 20 %", "2.5 s per query, over 2 s")
        standings = {
            "bank": Standing("bank", True, (), (), 0.9, 3, 1, 512, 0.99, 0.25, 1.23456, 0.93456),
            "code": Standing("code", False, why, (), 0.5, 3, 1, 512, 0.99, None, None, 0.5),
            "earth": Standing("earth", True, (), (), 0.5, 3, 1, 512, 0.99, None, None, 0.5),
        }
        _, found = explained(choice(), standings, {})
        assert list(found["scores"]) == ["bank", "code"]
        bank, code = found["scores"]["bank"], found["scores"]["code"]
        assert (bank["priority"], bank["wait_s"], "unavailable" in bank) == (0.935, 1.235, False)
        assert (code["priority"], code["wait_s"], code["unavailable"]) == (0.5, None, list(why))

    @pytest.mark.parametrize(
        ("parents", "expected"),
        [
            ({"bank": "code", "code": "earth"}, ["earth", "code", "bank"]),
            ({"bank": "money"}, None),  # not an expert
            ({"bank": None}, None),
            ({"code": "technology"}, None),
            ({}, None),
        ],
    )
    def test_the_way_down_to_the_first_is_named(
        self, parents: dict[str, str | None], expected: list[str] | None
    ) -> None:
        assert explanation(choice(kept=[0, 1]), parents).get("path") == expected

    def test_experts_and_texts_of_any_kind_are_passed_on_as_they_are(self) -> None:
        name = "<b>“bank”\u202e"
        of = choice(experts=[name, "code", "earth"], neighbours=[Neighbour(name, "a\x00b\nc", 1.0)])
        words, found = explained(of, {}, {})
        assert words.startswith(f"{name} scores highest")
        assert "like its example “a\x00b\nc” (1.00)" in words
        assert found["nearest"] == [{"expert": name, "text": "a\x00b\nc", "cosine": 1.0}]


class TestOtherwise:
    @pytest.mark.parametrize(
        ("gate", "own", "share", "expected"),
        [
            ([0.6, 0.3, 0.1], [0.9, 0.1, 0.1], [0.6, 0.3, 0.1], {}),
            ([0.3, 0.6, 0.1], [0.9, 0.1, 0.1], [0.6, 0.3, 0.1], {"the gate alone": "code"}),
            ([0.6, 0.3, 0.1], [0.1, 0.2, 0.3], [0.6, 0.3, 0.1], {"own assessment alone": "earth"}),
            ([0.6, 0.3, 0.1], [0.9, 0.1, 0.1], [0.3, 0.4, 0.3], {"load and standing aside": "code"}),
            (
                [0.1, 0.2, 0.7],
                [0.1, 0.2, 0.1],
                [0.2, 0.2, 0.6],
                {"the gate alone": "earth", "own assessment alone": "code", "load and standing aside": "earth"},
            ),
        ],
    )
    def test_parts_that_would_have_chosen_another_are_named(
        self, gate: Sequence[float], own: Sequence[float], share: Sequence[float], expected: dict[str, str]
    ) -> None:
        of = choice(gate=floats(gate), own=floats(own), share=floats(share))
        assert otherwise(of)["alone"] == expected

    def test_the_runner_up_is_the_best_shown_beside_the_first(self) -> None:
        found = otherwise(choice(kept=[0, 2], shown=[0, 2, 1]))
        assert (found["runner_up"], found["margin"]) == ("earth", 0.3)

    def test_one_that_was_passed_over_lies_ahead(self) -> None:
        found = otherwise(choice(kept=[1], shown=[0, 1]))
        assert (found["runner_up"], found["margin"]) == ("bank", -0.2)

    def test_an_only_expert_has_no_rival(self) -> None:
        one = floats([1])
        of = choice(experts=["bank"], shown=[0], share=one, final=one, gate=one, own=one, factors=[1.0])
        assert otherwise(of) == {"alone": {}, "coverage": 0.25}

    @pytest.mark.parametrize(("coverage", "distance"), [(1.0, 0.5), (0.5, 0.0), (0.0, -0.5), (0.12344, -0.3766)])
    def test_coverage_is_told_as_the_distance_from_the_threshold(self, coverage: float, distance: float) -> None:
        assert otherwise(choice(coverage=coverage))["coverage"] == distance
