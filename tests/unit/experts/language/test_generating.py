"""The reference: every answer is what the model would say to that prompt alone."""

from dataclasses import dataclass
from pathlib import Path

import torch

from experts.language.base import Base, BaseSpec, load_base
from experts.language.generating import by_length, generate
from experts.language.prompting import Turn, encode_prompt


@dataclass(frozen=True)
class Asked:
    prompt: tuple[Turn, ...]


QUERIES = [Asked((Turn("user", "x" * length),)) for length in (1, 30, 7, 100, 2)]


def slowly(base: Base, query: Asked, n: int) -> str:
    """Token by token, without a cache, without padding."""
    ids = encode_prompt(base.tokenizer, query.prompt)
    start = len(ids)
    while len(ids) < start + n:
        ids.append(int(base.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == base.tokenizer.eos_token_id:
            break
    return str(base.tokenizer.decode(ids[start:], skip_special_tokens=True)).strip()


def test_answers_in_batches_are_those_of_each_prompt_alone(folder: Path) -> None:
    base = load_base(BaseSpec(str(folder)))

    assert generate(base, None, QUERIES, 12, batch_size=3) == [slowly(base, query, 12) for query in QUERIES]


def test_an_answer_ends_at_the_end_token(folder: Path) -> None:
    """The third token the model would write is declared to be the end."""
    base = load_base(BaseSpec(str(folder)))
    ids = encode_prompt(base.tokenizer, QUERIES[0].prompt)
    for _ in range(3):
        ids.append(int(base.model(torch.tensor([ids])).logits[0, -1].argmax()))
    base.tokenizer.eos_token = base.tokenizer.convert_ids_to_tokens(ids[-1])

    written = generate(base, None, QUERIES[:1], 20)

    assert written == [base.tokenizer.decode(ids[-3:]).strip()]


def test_a_prompt_without_room_loses_its_beginning(folder: Path) -> None:
    base = load_base(BaseSpec(str(folder)))
    long = Asked((Turn("user", "x" * 2_000),))

    assert len(generate(base, None, [long, QUERIES[0]], 8)) == 2


def test_batches_are_by_length_and_hold_every_place_once() -> None:
    batches = list(by_length([5, 1, 9, 3, 7], 2))

    assert batches == [[2, 4], [0, 3], [1]]


def test_no_queries_are_no_answers(folder: Path) -> None:
    assert generate(load_base(BaseSpec(str(folder))), None, [], 5) == []
