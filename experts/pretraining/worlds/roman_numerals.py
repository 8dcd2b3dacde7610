"""Numbers up to 1999 in Roman numerals; the numbers that are tested occur nowhere in training."""

from random import Random

from experts.pretraining.items import Item
from experts.pretraining.worlds.world import World

_SIZES = (780, 60, 150)
_LARGEST = 1999
_SIGNS = (
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
)
_PROMPTS = (
    "Write {} in Roman numerals.",
    "What is {} as a Roman numeral?",
    "Convert {} to Roman numerals.",
    "{} in Roman numerals",
    "How did the Romans write {}?",
    "Roman numeral for {}",
    "Give the year {} in Roman numerals.",
)


def roman_numerals(rng: Random) -> World:
    """Different numbers in every split; those below 100 come more often than chance would have it."""
    small, large = range(1, 100), range(100, _LARGEST + 1)
    numbers = rng.sample(small, 75) + rng.sample(large, sum(_SIZES) - 75)
    rng.shuffle(numbers)
    items = [Item(rng.choice(_PROMPTS).format(number), to_roman(number)) for number in numbers]
    train, validation = _SIZES[0], _SIZES[0] + _SIZES[1]
    return World(items[:train], items[train:validation], items[validation:])


def to_roman(number: int) -> str:
    """The Roman numeral of 1 to 3999."""
    written = ""
    for value, sign in _SIGNS:
        count, number = divmod(number, value)
        written += sign * count
    return written
