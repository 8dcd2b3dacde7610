"""One running batch: what each row is given does not depend on who else is in it."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from experts.errors import ModelUnusable
from experts.language.adapting import AdapterWeights, applied
from experts.serving.adapters import AdapterLayers
from experts.serving.generation import LENGTH, STOP, Generated, GenerationSpec, Generator, Row
from experts.serving.parameters import Sampling
from experts.serving.residency import Residency, ResidencySpec
from tests.tiny_base import tiny_model, tiny_tokenizer
from tests.unit.experts.serving.builders import ALL, adapter, residency, rows

NAMES: list[Hashable | None] = ["a", "b", None, "c", "d", "e"]
SPECS = {
    "roomy": GenerationSpec(),
    "few lanes": GenerationSpec(rows=3, prompt_tokens=30),
    "few tokens": GenerationSpec(rows=8, tokens=100, prompt_tokens=16),
    "one at a time": GenerationSpec(rows=1),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def weights(model: Any) -> dict[Hashable, AdapterWeights]:
    return {name: adapter(model, at, targets=ALL if at % 2 else ("q_proj",)) for at, name in enumerate("abcde")}


def plain(model: Any, row: Row, weights: AdapterWeights | None) -> list[int]:
    """The library's own generation for one row, under the plain formula of LoRA."""
    ids = torch.tensor([row.prompt])
    with torch.inference_mode(), applied(model, weights):
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=row.max_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return [int(token) for token in found[0, len(row.prompt) :]]


def run(
    model: Any, asked: Sequence[Row], held: Residency | None = None, spec: GenerationSpec | None = None
) -> list[Generated]:
    made = Generator(model, tiny_tokenizer(), spec).generate(asked, held)
    assert all(isinstance(answer, Generated) for answer in made)
    return [answer for answer in made if isinstance(answer, Generated)]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_row_is_answered_as_if_it_were_alone(
    model: Any, weights: dict[Hashable, AdapterWeights], spec: GenerationSpec
) -> None:
    asked = [replace(row, max_tokens=1 + at % 9) for at, row in enumerate(rows(24, NAMES))]
    held = residency(model, weights, ResidencySpec(adapters=3))
    made = run(model, asked, held, spec)
    assert [answer.tokens for answer in made] == [plain(model, row, weights.get(row.adapter)) for row in asked]
    assert held.statistics.loads >= 5
    assert [answer.prompt_tokens for answer in made] == [len(row.prompt) for row in asked]
    for row, answer in zip(asked, made, strict=True):
        assert answer.finish_reason == (STOP if 1 in answer.tokens else LENGTH)
        assert len(answer.tokens) == row.max_tokens or answer.finish_reason == STOP
        assert 0 < answer.confidence <= 1


def test_the_model_attends_as_before_when_all_is_done(model: Any) -> None:
    before = model.config._attn_implementation
    run(model, rows(3))
    assert model.config._attn_implementation == before


def test_a_window_of_attention_is_kept(weights: dict[Hashable, AdapterWeights]) -> None:
    narrow = tiny_model()
    narrow.config.sliding_window = 8
    asked = rows(6, longest=30)
    narrow.config._attn_implementation = "eager"
    assert [answer.tokens for answer in run(narrow, asked)] == [plain(narrow, row, None) for row in asked]
    wide = [answer.tokens for answer in run(tiny_model(), asked)]
    assert wide != [plain(narrow, row, None) for row in asked]


def test_the_same_seed_gives_the_same_answer_in_any_company(model: Any) -> None:
    sampled = [replace(row, sampling=Sampling(1.0, 0.9, seed)) for seed, row in enumerate(rows(8, max_tokens=12))]
    together = [answer.tokens for answer in run(model, sampled)]
    assert [answer.tokens for answer in run(model, sampled[::-1])] == together[::-1]
    assert [run(model, [row])[0].tokens for row in sampled] == together
    others = [replace(row, sampling=Sampling(1.0, 0.9, seed + 100)) for seed, row in enumerate(sampled)]
    assert [answer.tokens for answer in run(model, others)] != together


def test_an_answer_ends_before_the_string_that_stops_it(model: Any) -> None:
    [whole] = run(model, [Row([40, 41, 42], 40)])
    string = whole.text[5:7]
    [cut] = run(model, [Row([40, 41, 42], 40, stop=("never said", string))])
    assert cut.text == whole.text[: whole.text.index(string)]
    assert cut.finish_reason == STOP
    assert len(cut.tokens) < len(whole.tokens)


def test_an_end_token_ends_the_answer_and_is_not_in_its_text(model: Any) -> None:
    [whole] = run(model, [Row([40, 41, 42], 10)])
    ended = tiny_model()
    ended.generation_config.eos_token_id = [1, whole.tokens[3]]
    [cut] = run(ended, [Row([40, 41, 42], 10)])
    stop = whole.tokens.index(whole.tokens[3]) + 1
    assert cut.tokens == whole.tokens[:stop]
    assert cut.finish_reason == STOP
    assert cut.text == tiny_tokenizer().decode(whole.tokens[: stop - 1])


def test_an_answer_ends_where_the_context_does(model: Any) -> None:
    context = model.config.max_position_embeddings
    [answer] = run(model, [Row([5 + at % 200 for at in range(context - 3)], 50)])
    assert len(answer.tokens) == 4
    assert answer.finish_reason == LENGTH


@pytest.mark.parametrize(("prompt", "max_tokens"), [(0, 5), (512, 5), (3, 0)])
def test_a_row_that_cannot_be_run_is_refused(model: Any, prompt: int, max_tokens: int) -> None:
    with pytest.raises(ValueError, match="tokens"):
        Generator(model, tiny_tokenizer()).generate([Row([5] * prompt, max_tokens)])


def test_no_rows_give_no_answers(model: Any) -> None:
    assert run(model, []) == []


def test_rows_of_an_adapter_that_cannot_be_used_get_its_error_and_the_others_their_answers(
    model: Any, weights: dict[Hashable, AdapterWeights]
) -> None:
    def read(name: Hashable) -> AdapterWeights:
        if name == "b":
            raise ModelUnusable("b is broken")
        return weights[name]

    asked = rows(12, ["a", "b", "c"])
    made = Generator(model, tiny_tokenizer()).generate(asked, Residency(AdapterLayers(model), read))
    for row, answer in zip(asked, made, strict=True):
        if row.adapter == "b":
            assert isinstance(answer, ModelUnusable)
        else:
            assert isinstance(answer, Generated)
            assert answer.tokens == plain(model, row, weights[row.adapter])


def test_adapters_are_let_go_when_a_pass_fails(model: Any, weights: dict[Hashable, AdapterWeights]) -> None:
    held = residency(model, weights, ResidencySpec(adapters=1))
    broken = Row([10**6], 3, "a")  # no such token
    with pytest.raises(IndexError):
        Generator(model, tiny_tokenizer()).generate([broken], held)
    [answer] = run(model, [Row([40, 41], 3, "b")], held)
    assert answer.tokens == plain(model, Row([40, 41], 3), weights["b"])


def test_an_adapter_that_never_finds_room_is_no_endless_wait(
    model: Any, weights: dict[Hashable, AdapterWeights]
) -> None:
    held = residency(model, weights, ResidencySpec(adapters=1))
    assert held.hold("a")
    with pytest.raises(RuntimeError, match="no room"):
        run(model, [Row([40, 41], 3, "b")], held)


def test_a_model_whose_attention_cannot_be_replaced_is_refused() -> None:
    class Closed(torch.nn.Linear):
        _supports_attention_backend = False

    with pytest.raises(ModelUnusable, match="Closed"):
        Generator(Closed(1, 1), tiny_tokenizer())
