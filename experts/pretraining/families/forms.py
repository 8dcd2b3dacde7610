"""Strings from the prompt put into a fixed form: how a model learns to fill templates with what it copies."""

from random import Random

from experts.pretraining.items import Item
from experts.pretraining.words import anything, identifier, invented, name, number

# Prompts -> the answer; a, b, c are any strings, name, other, word and id are invented, n is a number.
_FORMS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Write JSON with the name {name} and the size {n}.", "JSON of name {name}, size {n}"),
        '{{"name": "{name}", "size": {n}}}',
    ),
    (("Greet {name} from {other}.", "Write a greeting to {name}, signed {other}."), "Dear {name}, greetings! {other}"),
    (("List {a}, {b} and {c} as bullets.", "Make bullets of {a}, {b}, {c}"), "- {a}\n- {b}\n- {c}"),
    (("Join {a} and {b} with a plus.", "Put a plus between {a} and {b}"), "{a}+{b}"),
    (("Join {a} and {b} with a slash.", "Put a slash between {a} and {b}"), "{a}/{b}"),
    (("Swap {a} and {b}.", "Exchange the order of {a} {b}"), "{b} {a}"),
    (("Put {a} in brackets.", "Brackets around {a}"), "({a})"),
    (("Put {a} in quotes.", "Quote {a}"), '"{a}"'),
    (("Make an address of {word} at {id}.", "E-mail address: {word} at {id}"), "{word}@{id}.org"),
    (("Link to {a} with the text {b}.", "Make a link named {b} that leads to {a}."), "[{b}]({a})"),
    (("Put the tag {word} around {a}.", "Wrap {a} in the tag {word}."), "<{word}>{a}</{word}>"),
    (("Call {id} with {a} and {b}.", "Pass {a} and {b} to the function {id}."), "{id}({a}, {b})"),
    (("Call {id} with {n}.", "Run {id} on {n}"), "{id}({n})"),
    (("Set {id} to {a}.", "Give the variable {id} the value {a}."), "{id} = {a}"),
    (("Set the options {word} to {n} and {id} to {a}.", "Options: {word} {n}, {id} {a}"), "--{word} {n} --{id} {a}"),
    (("CSV line of {a}, {b} and {n}", "Write {a}, {b} and {n} as a CSV line."), "{a},{b},{n}"),
    (("Heading {a}", "Make a heading of {a}."), "# {a}"),
    (("Ask {name} for {n} {word}.", "Write to {name} that we need {n} {word}."), "{name}, please send {n} {word}."),
    (("Repeat {a} twice.", "Say {a} two times"), "{a} {a}"),
    (("Meeting of {name} and {other} at {n}", "{name} meets {other} at {n}, note it."), "{n}: {name} with {other}"),
)


def forms(rng: Random) -> Item:
    """A template filled with strings that only the prompt holds."""
    prompts, answer = rng.choice(_FORMS)
    slots = {
        "a": anything(rng),
        "b": anything(rng),
        "c": anything(rng),
        "name": name(rng),
        "other": name(rng),
        "word": invented(rng),
        "id": identifier(rng),
        "n": number(rng, 1, 4),
    }
    return Item(rng.choice(prompts).format(**slots), answer.format(**slots))
