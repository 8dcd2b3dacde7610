"""Lanes and how they are looked at."""

import torch

from experts.serving.attention import Block, joining, running
from experts.serving.generation import Generated, Generator, Row
from tests.tiny_base import tiny_model, tiny_tokenizer

CPU = torch.device("cpu")


def test_long_and_short_lanes_are_looked_at_apart_and_empty_ones_not_at_all() -> None:
    lanes = [*range(16), *range(32, 64)]
    rows = running(lanes, [300] * 16 + [20] * 16 + [21] * 16, CPU)
    assert list(rows.blocks) == [Block(0, 16, 300), Block(32, 64, 21)]
    assert not rows.in_order
    assert rows.positions.tolist() == [299] * 16 + [19] * 16 + [20] * 16


def test_lanes_of_about_one_length_are_looked_at_together() -> None:
    rows = running(range(40), [50 + at for at in range(40)], CPU)
    assert list(rows.blocks) == [Block(0, 40, 89)]
    assert rows.in_order


def test_a_new_token_looks_at_its_own_lane_and_within_the_window() -> None:
    rows = running([0, 1], [4, 2], CPU)
    [block] = rows.blocks
    seen = [[value == 0 for value in row] for row in rows.mask(block, None, torch.ones(1))[:, 0, 0].tolist()]
    assert seen == [[True] * 4, [True, True, False, False]]
    seen = [[value == 0 for value in row] for row in rows.mask(block, 2, torch.ones(1))[:, 0, 0].tolist()]
    assert seen == [[False, False, True, True], [True, True, False, False]]


def test_prompts_lie_one_after_the_other() -> None:
    rows = joining([2, 3], [7, 4], CPU)
    assert rows.gather.tolist() == [[0, 1, 0], [2, 3, 4]]
    assert rows.kept.tolist() == [0, 1, 3, 4, 5]
    assert rows.lanes.tolist() == [7, 7, 4, 4, 4]
    assert rows.positions.tolist() == [0, 1, 0, 1, 2]


def test_rows_of_very_different_lengths_are_answered_as_if_they_were_alone() -> None:
    generator = Generator(tiny_model(), tiny_tokenizer())
    rows = [Row([5 + (at * 7 + n) % 250 for n in range(300 if at % 2 else 4)], 6) for at in range(36)]
    alone = [generator.generate([row])[0] for row in rows[:4]]
    together = generator.generate(rows)
    assert [a.tokens for a in together[:4] if isinstance(a, Generated)] == [
        a.tokens for a in alone if isinstance(a, Generated)
    ]
