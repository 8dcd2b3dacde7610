"""The bundled base model: what it can do as it lies in the package."""

import json
from pathlib import Path
from random import Random
from string import ascii_lowercase

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralForCausalLM, PreTrainedTokenizerFast

import experts
from experts.pretraining.corpus import FAMILIES, held_out
from experts.pretraining.exact_match import answer, exact_match
from experts.pretraining.worlds.__main__ import WORLDS

FOLDER = Path(experts.__file__).parent / "pretraining" / "model"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> MistralForCausalLM:
    return AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True)


def test_the_folder_is_small_and_holds_only_data() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8 * MEGABYTE
    assert {path.suffix for path in files} == {".json", ".safetensors", ".jinja", ".md", ".svg"}


def test_it_is_a_mistral_of_about_a_million_parameters_in_32_bits(model: MistralForCausalLM) -> None:
    assert isinstance(model, MistralForCausalLM)
    assert 900_000 < model.num_parameters() < 1_100_000
    assert model.dtype == torch.float32


def test_it_copies_strings_it_has_never_seen(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    rng = Random("never seen")
    texts = ["".join(rng.choices(ascii_lowercase, k=8)) for _ in range(20)]
    answers = answer(model, tokenizer, [f"Repeat exactly: {text}" for text in texts])
    assert sum(given == text for given, text in zip(answers, texts, strict=True)) >= 19


def test_it_reads_passages_under_a_system_prompt(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    items = held_out("reading", 12, seed=5)
    right = 0
    for item in items:
        chat = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": item.prompt}]
        inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        made = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        right += tokenizer.decode(made, skip_special_tokens=True) == item.answer
    assert right >= 8


def test_the_noted_figures_are_good_and_true(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    noted = json.loads((FOLDER / "training.json").read_text())["exact_match"]
    assert set(noted) == set(FAMILIES)
    assert sum(noted.values()) / len(noted) >= 0.85
    assert min(noted["copying"], noted["look_up"]) >= 0.95
    items = held_out("facts", 40, seed=0)
    assert exact_match(model, tokenizer, items) == pytest.approx(noted["facts"], abs=0.1)


@pytest.mark.parametrize("name", WORLDS)
def test_it_knows_nothing_of_the_learned_experts(
    name: str, model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    lines = (FOLDER.parent.parent / "learned" / name / "test.jsonl").read_text().splitlines()[:32]
    rows = [json.loads(line) for line in lines]
    answers = answer(model, tokenizer, [row["instruction"] for row in rows])
    assert sum(given == row["output"] for given, row in zip(answers, rows, strict=True)) <= 1
