"""Small sums and the conversion of units."""

from random import Random

from experts.pretraining.items import Item

_SUMS = {
    "+": ("What is {a} + {b}?", "{a} + {b} =", "Add {a} and {b}.", "{a} plus {b}", "Compute the sum of {a} and {b}."),
    "-": ("What is {a} - {b}?", "{a} - {b} =", "Subtract {b} from {a}.", "{a} minus {b}", "Take {b} away from {a}."),
    "*": ("What is {a} × {b}?", "{a} * {b} =", "Multiply {a} by {b}.", "{a} times {b}", "The product of {a} and {b}?"),
}
_LARGER = ("Which is larger, {a} or {b}?", "The greater of {a} and {b}?", "Maximum of {a} and {b}?")

# From, to, how many of the second are one of the first, the largest amount asked for.
UNITS = (
    ("metres", "centimetres", 100, 30),
    ("kilometres", "metres", 1000, 30),
    ("kilograms", "grams", 1000, 30),
    ("litres", "millilitres", 1000, 30),
    ("centimetres", "millimetres", 10, 30),
    ("euros", "cents", 100, 30),
    ("hours", "minutes", 60, 6),
    ("minutes", "seconds", 60, 6),
    ("days", "hours", 24, 6),
    ("weeks", "days", 7, 10),
    ("years", "months", 12, 8),
    ("feet", "inches", 12, 8),
    ("dozens", "pieces", 12, 8),
)
_CONVERT = (
    "How many {to} are {n} {unit}?",
    "Convert {n} {unit} to {to}.",
    "{n} {unit} in {to}?",
    "Express {n} {unit} in {to}.",
    "What is {n} {unit} in {to}?",
    "Change {n} {unit} into {to}.",
)


def arithmetic(rng: Random) -> Item:
    """A sum, difference or product of two digits, or the larger of two numbers below 60."""
    sign = rng.choice("+-*>")
    if sign == ">":
        a, b = rng.sample(range(60), 2)
        return Item(rng.choice(_LARGER).format(a=a, b=b), str(max(a, b)))
    low, high = sorted((rng.randint(0, 9), rng.randint(0, 9)))
    if sign == "+":
        a, b = rng.choice(((low, high), (high, low)))
        answer = a + b
    elif sign == "-":
        a, b, answer = high, low, high - low
    else:
        a, b, answer = low, high, low * high
    return Item(rng.choice(_SUMS[sign]).format(a=a, b=b), str(answer))


def units(rng: Random) -> Item:
    """A whole amount in one unit, asked for in a smaller one."""
    unit, to, factor, most = rng.choice(UNITS)
    n = rng.randint(2, most)
    return Item(rng.choice(_CONVERT).format(n=n, unit=unit, to=to), f"{n * factor} {to}")
