"""Reading: a few passages about invented people and things, then a question that one of them answers, or none."""

from random import Random

from experts.pretraining.items import Item
from experts.pretraining.words import COMMON, code, distinct, invented, name, number

_FOLLOW_UPS = 2
UNKNOWN = "The passages do not say."

# What is told of somebody, how it is asked; the answer is the value.
_RELATIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("{who} lives in {what}.", "The home of {who} is {what}."), ("Where does {who} live?", "Home of {who}?")),
    (("{who} works as a {what}.", "{who} is a {what} by trade."), ("What does {who} work as?", "Trade of {who}?")),
    (("The code of {who} is {what}.", "{who} uses the code {what}."), ("What is the code of {who}?", "Code of {who}?")),
    (("{who} was born in {what}.", "In {what}, {who} was born."), ("When was {who} born?", "Birth year of {who}?")),
    (("{who} carries a {what}.", "In the bag of {who} is a {what}."), ("What does {who} carry?",)),
    (("{who} married {what}.", "The wife of {who} is {what}."), ("Whom did {who} marry?", "Who is the wife of {who}?")),
    (("{who} paid {what} coins.", "It cost {who} {what} coins."), ("How many coins did {who} pay?",)),
)
_LAYOUTS = (
    "Context: {text}\n\nQuestion: {question}",
    "Read the passages and answer.\n{lines}\n\nQuestion: {question}",
    "Passages:\n{lines}\n\n{question}",
    "{text}\n{question}",
    "Use what is written here.\n{text}\nQ: {question}",
)


def _value(rng: Random, relation: int) -> str:
    match relation:
        case 0 | 5:
            return name(rng)
        case 1:
            return invented(rng)
        case 2:
            return code(rng)
        case 3:
            return number(rng, 4, 4)
        case 4:
            return rng.choice(COMMON)
        case _:
            return number(rng, 1, 3)


def reading(rng: Random) -> Item:
    """Two to five told facts and one question; one question in eight has no answer among them."""
    people = distinct(rng, name, rng.randint(2, 3))
    told: dict[tuple[str, int], str] = {}
    for _ in range(rng.choice((2, 2, 3, 3, 4, 5))):
        relation = rng.randrange(len(_RELATIONS))
        told[rng.choice(people), relation] = _value(rng, relation)
    first, *others = rng.sample(list(told), min(len(told), 1 + _FOLLOW_UPS))
    answer = told[first]
    if rng.random() < 0.125:
        del told[first]
        answer = UNKNOWN
    follow_ups = tuple(Item(_ask(rng, other), told[other]) for other in others)
    return Item(_layout(rng, told, _ask(rng, first)), answer, follow_ups)


def _ask(rng: Random, fact: tuple[str, int]) -> str:
    who, relation = fact
    return rng.choice(_RELATIONS[relation][1]).format(who=who)


def _layout(rng: Random, told: dict[tuple[str, int], str], question: str) -> str:
    sentences = [rng.choice(_RELATIONS[kind][0]).format(who=who, what=what) for (who, kind), what in told.items()]
    if rng.random() < 0.5:
        lines = "\n".join(f"[{number}] {sentence}" for number, sentence in enumerate(sentences, 1))
    else:
        lines = "\n".join(f"- {sentence}" for sentence in sentences)
    return rng.choice(_LAYOUTS).format(text=" ".join(sentences), lines=lines, question=question)
