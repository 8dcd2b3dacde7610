"""Classification: a short text gets one of a few labels."""

from random import Random

from experts.pretraining.items import Item
from experts.pretraining.words import COMMON, name

_GOOD = ("wonderful", "excellent", "lovely", "superb", "delightful", "great")
_BAD = ("terrible", "awful", "dreadful", "horrible", "poor", "disappointing")
_REVIEWS = (
    "The {} was {}.",
    "I found the {} {}.",
    "What a {1} {0}!",
    "My {} is {}.",
    "We thought the {} was really {}.",
)
_KINDS = {
    "animal": ("bear", "cat", "dog", "duck", "eagle", "fox", "frog", "goat", "horse", "lion", "owl", "sheep", "wolf"),
    "food": ("bread", "butter", "cake", "cheese", "egg", "honey", "melon", "onion", "pear", "plum", "potato", "soup"),
    "tool": ("brush", "bucket", "fork", "hammer", "knife", "ladder", "nail", "needle", "rope", "spoon", "wheel"),
    "clothing": ("coat", "glove", "hat", "jacket", "scarf", "shirt", "shoe", "sock"),
}
_ASK_KIND = ("Is {} an animal, a food, a tool or clothing?", "What kind of thing is {}?", "Classify the word: {}")
_ASK_TONE = ("Positive or negative? {}", "Classify the sentiment: {}", "{}\nIs this positive or negative?", "Tone: {}")
_SENTENCES = {
    "question": ("Where is the {0}?", "Did {1} see the {0}?", "Who took the {0}?", "Why is the {0} in the {2}?"),
    "statement": ("The {0} is in the {2}.", "{1} sold the {0}.", "There is a {0} near the {2}.", "{1} likes the {0}."),
    "command": ("Bring the {0}!", "Put the {0} next to the {2}!", "Close the {0}, {1}!", "Look at the {0}!"),
}
_ASK_SENTENCE = ("Question, statement or command? {}", "Classify the sentence: {}", "What kind of sentence is this? {}")
_ASK_PARITY = ("Is {} even or odd?", "Even or odd: {}", "Odd or even? {}")


def classification(rng: Random) -> Item:
    """Tone of a review, kind of a thing, kind of a sentence, or parity of a number."""
    return rng.choice((_tone, _kind, _sentence, _parity))(rng)


def _tone(rng: Random) -> Item:
    label, adjectives = rng.choice((("positive", _GOOD), ("negative", _BAD)))
    text = rng.choice(_REVIEWS).format(rng.choice(COMMON), rng.choice(adjectives))
    return Item(rng.choice(_ASK_TONE).format(text), label)


def _kind(rng: Random) -> Item:
    kind, things = rng.choice(list(_KINDS.items()))
    return Item(rng.choice(_ASK_KIND).format(rng.choice(things)), kind)


def _sentence(rng: Random) -> Item:
    label, forms = rng.choice(list(_SENTENCES.items()))
    text = rng.choice(forms).format(rng.choice(COMMON), name(rng), rng.choice(COMMON))
    return Item(rng.choice(_ASK_SENTENCE).format(text), label)


def _parity(rng: Random) -> Item:
    n = rng.randint(0, 99)
    return Item(rng.choice(_ASK_PARITY).format(n), "odd" if n % 2 else "even")
