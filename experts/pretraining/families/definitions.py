"""Definitions of everyday words, asked for both ways round."""

from random import Random

from experts.pretraining.items import Item

MEANINGS = {
    "basket": "a woven container with a handle",
    "bell": "a hollow metal cup that rings when struck",
    "blanket": "a thick cover that keeps a bed warm",
    "bridge": "a road built over water",
    "bucket": "an open pail for carrying liquids",
    "candle": "a stick of wax that burns with a flame",
    "castle": "a large old building with strong walls",
    "clock": "an instrument that shows the time",
    "cloud": "a white or grey mass of drops in the sky",
    "curtain": "a cloth that hangs in front of a window",
    "desk": "a table for writing and reading",
    "engine": "a machine that turns fuel into motion",
    "feather": "a light part of the coat of a bird",
    "fence": "a barrier of wood or wire around land",
    "forest": "a large area covered with trees",
    "garden": "a piece of ground where flowers grow",
    "glove": "a covering for the hand",
    "hammer": "a tool for driving nails",
    "island": "land with water on all sides",
    "kettle": "a pot for boiling water",
    "key": "a small piece of metal that opens a lock",
    "kitchen": "the room where meals are cooked",
    "ladder": "two poles joined by steps for climbing",
    "lake": "a large body of still water inside land",
    "lamp": "a device that gives light",
    "map": "a drawing of a place seen from above",
    "market": "a place where people buy and sell goods",
    "mirror": "a surface that reflects an image",
    "mountain": "a very high piece of land",
    "needle": "a thin pointed tool for sewing",
    "nest": "a home that a bird builds for its eggs",
    "ocean": "a very large expanse of salt water",
    "oven": "a closed box for baking food",
    "pencil": "a wooden stick with a core for writing",
    "pillow": "a soft cushion for the head",
    "pocket": "a small bag sewn into clothes",
    "pond": "a small area of still water",
    "river": "a stream of water flowing to the sea",
    "roof": "the cover on top of a house",
    "rope": "a thick strong cord",
    "scarf": "a long cloth worn around the neck",
    "school": "a place where children learn",
    "seed": "the part of a plant that grows into a new one",
    "shadow": "a dark shape where light is blocked",
    "shelf": "a flat board for holding things",
    "spoon": "a small bowl on a handle for eating soup",
    "stool": "a seat without a back",
    "storm": "bad weather with strong wind and rain",
    "tent": "a shelter made of cloth",
    "tower": "a tall narrow building",
    "umbrella": "a folding cover against rain",
    "valley": "low land between hills",
    "village": "a small group of houses in the country",
    "violin": "a musical instrument with four strings and a bow",
    "wheel": "a round object that turns on an axle",
    "window": "an opening in a wall that lets in light",
}
_ASK = (
    "What is a {}?",
    "Define {}.",
    "What does {} mean?",
    "Meaning of {}",
    "Explain the word {}.",
    "Give a definition of {}.",
    "Please define the word {}.",
)
_ASK_WORD = ("Which word means {}?", "Name this: {}", "What is called {}?", "The word for {}?", "What do we call {}?")


def definitions(rng: Random) -> Item:
    """A word whose meaning is asked for, or a meaning whose word is."""
    word, meaning = rng.choice(list(MEANINGS.items()))
    if rng.random() < 0.5:
        return Item(rng.choice(_ASK).format(word), meaning)
    return Item(rng.choice(_ASK_WORD).format(meaning), word)
