"""Words to build items from: everyday English ones, and invented strings that no other text holds.

Invented strings are what teaches a small model to copy instead of to remember.
"""

from collections.abc import Callable
from random import Random
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

# Draws one string.
Kind = Callable[[Random], str]

_EVERYDAY = """
apple arrow autumn bag ball banana basket bear bed bell bird blanket boat book bottle bowl box branch bread brick
bridge brush bucket butter button cabin cake candle car carpet castle cat chair cheese cherry circle clock cloud coat
coin corner cotton cup curtain desk dinner dog door dream drum duck dust eagle egg engine evening farm feather fence
field finger fire fish flag flower forest fork fox friend frog fruit garden gate ghost gift glass glove goat gold
grape grass hammer hat heart hill honey horse house ice island jacket jar jewel juice kettle key king kitchen kite
knife ladder lake lamp leaf lemon letter light lion lock map market meadow melon milk mirror money moon morning moth
mountain mouse music nail needle nest night nut ocean onion orange oven owl paint paper parrot pear pebble pencil
pepper piano pillow pin plate plum pocket pond potato queen rabbit rain ribbon ring river road robin rock roof room
rope rose sail salt sand scarf school seed shadow sheep shelf shell ship shirt shoe silver sky snow soap sock song
soup spider spoon spring square squirrel star stone stool storm story street sugar summer sun table tail tea tent
thread tiger tomato tower town train tree turtle umbrella valley vase village violin wagon wall watch water wave wheel
wind window winter wolf wood wool yard
"""
COMMON = tuple(_EVERYDAY.split())

_ONSETS = (*"bcdfghjklmnprstvwz", "br", "ch", "cl", "dr", "fl", "gr", "kr", "pl", "qu", "sh", "sk", "st", "th", "tr")
_VOWELS = (*"aeiou", "ai", "ea", "ee", "oo", "ou", "y")
_CODAS = ("", "", "", "l", "m", "n", "r", "s", "t", "ck", "nd", "rk", "sh", "x")
_ENDINGS = ("txt", "log", "csv", "md", "py", "json", "bak", "dat", "tar", "html", "conf", "pdf", "jpg")
_SYMBOLS = "#$%&*+-/:;<=>?@^_~!|"
_FOREIGN = "äöüßéèêçñåøæłžšăğαβγδλπωжкшяюאבשدهو日本語中文한국→€✓😀"


def invented(rng: Random, syllables: tuple[int, int] = (1, 2)) -> str:
    """A word that can be pronounced and that means nothing, in small letters."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.randint(*syllables))
    )


def name(rng: Random) -> str:
    """An invented name with a capital."""
    return invented(rng).capitalize()


def letters(rng: Random, low: int = 2, high: int = 9) -> str:
    """Random letters, ``low`` to ``high`` of them: small, capital or both."""
    alphabet = rng.choice((ascii_lowercase, ascii_lowercase, ascii_uppercase, ascii_letters))
    return "".join(rng.choices(alphabet, k=rng.randint(low, high)))


def short(rng: Random) -> str:
    """Two to five random letters."""
    return letters(rng, 2, 5)


def number(rng: Random, low: int = 1, high: int = 6) -> str:
    """Random digits, ``low`` to ``high`` of them, the first of which is not 0."""
    return rng.choice("123456789") + "".join(rng.choices(digits, k=rng.randint(low, high) - 1))


def mixed(rng: Random, low: int = 3, high: int = 8) -> str:
    """Random letters and digits, as in a password."""
    return "".join(rng.choices(ascii_lowercase + ascii_uppercase + digits, k=rng.randint(low, high)))


def code(rng: Random) -> str:
    """Three to five random letters and digits."""
    return mixed(rng, 3, 5)


def identifier(rng: Random) -> str:
    """A name as programs use it: small words joined by underscores."""
    return "_".join(rng.choice((rng.choice(COMMON), invented(rng, (1, 2)))) for _ in range(rng.randint(1, 2)))


def file_name(rng: Random) -> str:
    """A file's name with an ending, at times in a folder."""
    stem = rng.choice((invented(rng), rng.choice(COMMON), letters(rng, 2, 6), identifier(rng)))
    folder = rng.choice(("", "", "", f"{invented(rng)}/", f"/{rng.choice(COMMON)}/{invented(rng)}/", "./"))
    return f"{folder}{stem}.{rng.choice(_ENDINGS)}"


def symbols(rng: Random) -> str:
    """Random punctuation between random letters."""
    return "".join(rng.choices(_SYMBOLS + ascii_lowercase, k=rng.randint(2, 7)))


def foreign(rng: Random) -> str:
    """Random characters from beyond ASCII."""
    return "".join(rng.choices(_FOREIGN, k=rng.randint(1, 4)))


_KINDS = (invented, name, letters, number, mixed, identifier, file_name, symbols)


def anything(rng: Random) -> str:
    """One string without spaces, of any of the kinds above, or an everyday word."""
    chosen = rng.random()
    if chosen < 0.15:
        return rng.choice(COMMON)
    if chosen < 0.18:
        return foreign(rng)
    return rng.choice(_KINDS)(rng)


def distinct(rng: Random, kind: Kind, count: int) -> list[str]:
    """``count`` different strings of one kind."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[kind(rng)] = None
    return list(found)
