"""Work on the letters of everyday words, and on the order of random ones."""

from collections.abc import Callable
from random import Random

from experts.pretraining.items import Item
from experts.pretraining.words import COMMON, invented, letters

# The letters of a word are hidden in its tokens and must be learned word by word, so these are few and short.
_SPELLED = [word for word in COMMON if len(word) <= 4][:40]
# What is done to a word -> the ways to ask for it.
_ON_WORDS: dict[Callable[[str], str], tuple[str, ...]] = {
    str.upper: ("Write {} in capitals.", "{} in upper case", "Put {} into capital letters.", "Upper case: {}"),
    str.capitalize: ("Write {} with a capital letter.", "Capitalise {}.", "Start {} with a capital."),
    lambda word: word[0]: ("What is the first letter of {}?", "First letter of {}", "Which letter does {} begin with?"),
    lambda word: word[-1]: ("What is the last letter of {}?", "Last letter of {}", "Which letter does {} end with?"),
    "-".join: ("Spell {}.", "Spell the word {} with dashes.", "How is {} spelled?", "Spell out {}"),
    lambda word: str(len(word)): ("How many letters has {}?", "Count the letters of {}.", "Length of the word {}?"),
}
_REVERSE = ("Reverse: {}", "Turn round the order of {}", "{} backwards", "Say {} in reverse order.")
_FIRST = ("First word of: {}", "Which word comes first in: {}", "Give the first word: {}")
_LAST = ("Last word of: {}", "Which word comes last in: {}", "Give the last word: {}")


def strings(rng: Random) -> Item:
    """A word with its letters changed, counted or picked, or a list turned round or cut."""
    if rng.random() < 0.6:
        change, prompts = rng.choice(list(_ON_WORDS.items()))
        word = rng.choice(_SPELLED)
        return Item(rng.choice(prompts).format(word), change(word))
    return rng.choice((_reversed, _picked))(rng)


def _reversed(rng: Random) -> Item:
    parts = [letters(rng, 1, 1) if rng.random() < 0.5 else rng.choice(COMMON) for _ in range(rng.randint(2, 4))]
    return Item(rng.choice(_REVERSE).format(" ".join(parts)), " ".join(reversed(parts)))


def _picked(rng: Random) -> Item:
    parts = [invented(rng) for _ in range(rng.randint(2, 5))]
    prompts, at = rng.choice(((_FIRST, 0), (_LAST, -1)))
    return Item(rng.choice(prompts).format(" ".join(parts)), parts[at])
