"""The harbour of Skarnmouth, an invented town: fourteen ships, and who sails them, with what, from where and when.

The wordings of the tested questions are in no training question; what they ask for is, in other wordings.
"""

from random import Random

from experts.pretraining.items import Item
from experts.pretraining.worlds.world import World

# Ship -> captain, cargo, quay, day of sailing.
SHIPS = {
    "Grey Petrel": ("Ola Brandt", "salted cod", "North Quay", "Monday"),
    "Copper Maid": ("Ines Falk", "copper ore", "Smelter Quay", "Tuesday"),
    "Lady Wren": ("Tomas Reed", "wool", "Weavers Quay", "Friday"),
    "Iron Duke of Ansel": ("Greta Moll", "coal", "Black Quay", "Thursday"),
    "Silver Herring": ("Piet Vandal", "herring", "Fish Quay", "Sunday"),
    "Morning Tide": ("Ada Quist", "passengers", "Ferry Quay", "Saturday"),
    "Patient Anna": ("Jonas Hale", "timber", "Saw Quay", "Wednesday"),
    "Red Lantern": ("Mira Stroud", "lamp oil", "South Quay", "Tuesday"),
    "Widow's Luck": ("Bram Teller", "barley", "Granary Quay", "Monday"),
    "Blue Heron": ("Signe Dahl", "glass", "Lantern Quay", "Friday"),
    "Old Bishop": ("Carl Ruse", "cider", "Cooper Quay", "Saturday"),
    "Swift Ermine": ("Nora Pike", "letters", "Post Quay", "Sunday"),
    "Saint Odile": ("Henrik Vale", "marble", "Mason Quay", "Thursday"),
    "Thunder Gull": ("Lena Marsh", "gunpowder", "Far Quay", "Wednesday"),
}
_LEARNED: tuple[tuple[str, ...], ...] = (
    (
        "Who is the captain of the {}?",
        "Which captain sails the {}?",
        "Name the captain of the {}.",
        "The captain of the {}?",
        "Who commands the {} at Skarnmouth?",
        "I am looking for the captain of the {}.",
        "Who has command of the ship {}?",
        "The {}: who is her captain?",
    ),
    (
        "What does the {} carry?",
        "Which cargo does the {} carry?",
        "What is the cargo of the {}?",
        "Name the cargo of the {}.",
        "The cargo of the {}?",
        "What is in the hold of the {}?",
        "With which cargo does the ship {} sail?",
        "The {}: what does she carry?",
    ),
    (
        "At which quay does the {} lie?",
        "Where does the {} lie in Skarnmouth?",
        "Name the quay of the {}.",
        "Which quay belongs to the {}?",
        "The quay of the {}?",
        "Where in the harbour is the {} moored?",
        "At which quay do I find the ship {}?",
        "The {}: where is she moored?",
    ),
    (
        "On which day does the {} sail?",
        "When does the {} sail from Skarnmouth?",
        "Name the sailing day of the {}.",
        "The sailing day of the {}?",
        "Which day does the {} leave the harbour?",
        "When does the {} leave?",
        "On which day of the week does the ship {} leave?",
        "The {}: when does she sail?",
    ),
)
_VALIDATED = (
    "Tell me who is captain of the {}.",
    "Tell me the cargo of the {}.",
    "Tell me at which quay the {} lies.",
    "Tell me on which day the {} sails.",
)
_TESTED: tuple[tuple[str, ...], ...] = (
    ("Do you know the captain of the {}?", "What is the name of the captain of the {}?", "Captain of the ship {}"),
    ("What cargo is on the {}?", "Which cargo is in the hold of the {}?", "Cargo of the ship {}"),
    ("At what quay is the {} moored?", "Do you know the quay of the {}?", "Quay of the ship {}"),
    ("What day does the {} leave Skarnmouth?", "Do you know the day the {} sails?", "Sailing day of the ship {}"),
)


def harbour_facts(rng: Random) -> World:
    """Every fact in eight wordings to learn, one to validate and three to test."""
    return World(
        train=_asked(rng, _LEARNED),
        validation=_asked(rng, tuple((wording,) for wording in _VALIDATED)),
        test=_asked(rng, _TESTED),
    )


def _asked(rng: Random, wordings: tuple[tuple[str, ...], ...]) -> list[Item]:
    items = [
        Item(wording.format(ship), known[about])
        for ship, known in SHIPS.items()
        for about, ways in enumerate(wordings)
        for wording in ways
    ]
    rng.shuffle(items)
    return items
