"""Python of one to three lines, with names that the prompt gives."""

from random import Random

from experts.pretraining.items import Item
from experts.pretraining.words import identifier, name, number

_OPERATIONS = {"adds": "+", "multiplies": "*", "subtracts": "-", "divides": "/"}
_COMPARISONS = {"greater than": ">", "less than": "<", "equal to": "==", "different from": "!="}
_SNIPPETS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Write a Python function {f} that {verb} {x} and {y}.", "Python function {f}, which {verb} {x} and {y}"),
        "def {f}({x}, {y}):\n    return {x} {sign} {y}",
    ),
    (
        ("Python: loop over {xs} and print each {x}.", "Print every {x} of {xs} in Python."),
        "for {x} in {xs}:\n    print({x})",
    ),
    (("Python: import {x} from {y}.", "Import {x} from the module {y} in Python."), "from {y} import {x}"),
    (
        ("Python: check whether {x} is {relation} {n}.", "Write an if for {x} {relation} {n} in Python."),
        "if {x} {compare} {n}:\n    pass",
    ),
    (("Python: the length of {xs}", "How do I get the length of {xs} in Python?"), "len({xs})"),
    (("Python: sort {xs}", "How do I sort {xs} in Python?"), "sorted({xs})"),
    (("Python: append {x} to {xs}", "Add {x} to the end of the Python list {xs}."), "{xs}.append({x})"),
    (("Python: squares of {xs}", "List comprehension with the squares of {xs}"), "[x * x for x in {xs}]"),
    (
        ("Python class {c} with the attribute {x}", "Write a Python class {c} that holds {x}."),
        "class {c}:\n    def __init__(self, {x}):\n        self.{x} = {x}",
    ),
    (("Python: raise an error named {c}", "Raise {c} in Python."), "raise {c}"),
    (("Python: assign {n} to {x}", "Store {n} in the Python variable {x}."), "{x} = {n}"),
    (("Python: a function {f} that returns {n}", "Python function {f} returning {n}"), "def {f}():\n    return {n}"),
)


def code(rng: Random) -> Item:
    """A request for a small piece of Python and the piece."""
    prompts, answer = rng.choice(_SNIPPETS)
    verb, relation = rng.choice(list(_OPERATIONS)), rng.choice(list(_COMPARISONS))
    slots = {
        "f": identifier(rng),
        "x": identifier(rng),
        "y": identifier(rng),
        "xs": identifier(rng),
        "c": name(rng),
        "n": number(rng, 1, 3),
        "verb": verb,
        "sign": _OPERATIONS[verb],
        "relation": relation,
        "compare": _COMPARISONS[relation],
    }
    return Item(rng.choice(prompts).format(**slots), answer.format(**slots))
