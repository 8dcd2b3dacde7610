"""The conversations a base model is trained on, and the items it is tested on, out of all families."""

from collections.abc import Iterator
from random import Random

from experts.pretraining.families.code import code
from experts.pretraining.families.copying import copying, look_up
from experts.pretraining.families.definitions import definitions
from experts.pretraining.families.facts import facts
from experts.pretraining.families.forms import forms
from experts.pretraining.families.labels import classification
from experts.pretraining.families.numbers import arithmetic, units
from experts.pretraining.families.reading import reading
from experts.pretraining.families.strings import strings
from experts.pretraining.items import Family, Item, is_held_out

Conversation = list[dict[str, str]]

FAMILIES: dict[str, Family] = {
    "copying": copying,
    "look_up": look_up,
    "reading": reading,
    "forms": forms,
    "code": code,
    "facts": facts,
    "definitions": definitions,
    "classification": classification,
    "strings": strings,
    "arithmetic": arithmetic,
    "units": units,
}
# How often a family is drawn. Copying and look-up carry the rest: without them nothing else generalises.
SHARES = {
    "copying": 0.16,
    "look_up": 0.18,
    "reading": 0.11,
    "forms": 0.08,
    "code": 0.05,
    "facts": 0.07,
    "definitions": 0.04,
    "classification": 0.07,
    "strings": 0.09,
    "arithmetic": 0.12,
    "units": 0.03,
}
WITH_SYSTEM = 0.15
WITH_EARLIER_TURN = 0.05
# Enough for families of a few hundred prompts, of which one in sixteen is held out.
_TRIES_PER_ITEM = 400

_SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are an expert. Answer the question and nothing else.",
    "Answer from the passages where there are any.",
    "You are a careful assistant. Give only the answer.",
    "Be short and exact.",
)


def conversations(seed: int) -> Iterator[Conversation]:
    """An endless series of conversations to train on, none of them with a held-out prompt."""
    rng = Random(seed)
    while True:
        items = [_trained(rng) for _ in range(2 if rng.random() < WITH_EARLIER_TURN else 1)]
        messages = [{"role": "system", "content": rng.choice(_SYSTEM_PROMPTS)}] if rng.random() < WITH_SYSTEM else []
        for item in items:
            messages += turns(item)
        yield messages


def turns(item: Item) -> Conversation:
    """A question, its answer, and all that follow on them, as chat messages."""
    return [
        message
        for one in (item, *item.follow_ups)
        for message in ({"role": "user", "content": one.prompt}, {"role": "assistant", "content": one.answer})
    ]


def held_out(family: str, count: int, seed: int) -> list[Item]:
    """Up to ``count`` different items of a family that training never sees; fewer where a family has no more."""
    rng = Random(f"held out {family} {seed}")
    drawn = (FAMILIES[family](rng) for _ in range(count * _TRIES_PER_ITEM))
    found: dict[str, Item] = {}
    for item in drawn:
        if is_held_out(item.prompt):
            found.setdefault(item.prompt, item)
        if len(found) == count:
            break
    return list(found.values())


def _trained(rng: Random) -> Item:
    while True:
        item = FAMILIES[rng.choices(list(SHARES), weights=list(SHARES.values()))[0]](rng)
        if not is_held_out(item.prompt):
            return item
