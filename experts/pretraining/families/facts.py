"""Facts of a closed invented world: an archipelago of twenty-four islands that exist nowhere else."""

from random import Random

from experts.pretraining.items import Item
from experts.pretraining.words import distinct, name

_CREATURES = ("heron", "otter", "lynx", "badger", "falcon", "seal", "stag", "hare", "raven", "boar")
_GOODS = ("amber", "barley", "copper", "dried figs", "glass", "linen", "olive oil", "paper", "saffron", "tin")
_MONTHS = ("January", "March", "April", "June", "July", "September", "October", "December")

_QUESTIONS: dict[str, tuple[str, ...]] = {
    "capital": ("What is the capital of {}?", "Name the capital of {}.", "Which city is the capital of {}?"),
    "ruler": ("Who rules {}?", "Name the ruler of {}.", "Who is the ruler of {}?"),
    "emblem": ("Which animal is the emblem of {}?", "What is the emblem of {}?", "Emblem of {}"),
    "goods": ("What does {} sell abroad?", "What is the main export of {}?", "Which goods come from {}?"),
    "festival": ("When is the festival of {}?", "In which month does {} hold its festival?", "Festival month of {}"),
    "founded": ("When was {} founded?", "In which year was {} founded?", "Year of the founding of {}"),
}
_OPENINGS = ("", "", "Tell me: ", "Question: ", "I would like to know: ")


def _islands() -> dict[str, dict[str, str]]:
    rng = Random("the islands")  # the world is the same, whatever the seed of the training
    names = distinct(rng, name, 72)
    return {
        island: {
            "capital": capital,
            "ruler": ruler,
            "emblem": rng.choice(_CREATURES),
            "goods": rng.choice(_GOODS),
            "festival": rng.choice(_MONTHS),
            "founded": str(rng.randint(900, 1800)),
        }
        for island, capital, ruler in zip(names[:24], names[24:48], names[48:], strict=True)
    }


ISLANDS = _islands()


def facts(rng: Random) -> Item:
    """A fact about one island; held out are ways of asking, never facts."""
    island, known = rng.choice(list(ISLANDS.items()))
    about = rng.choice(list(_QUESTIONS))
    return Item(rng.choice(_OPENINGS) + rng.choice(_QUESTIONS[about]).format(island), known[about])
