"""Training, from the command line to the written folder, at a width at which it takes seconds."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experts.pretraining.__main__ import main
from experts.pretraining.tokens import train_tokenizer
from experts.pretraining.training import Plan, new_model, train, weighted_loss

TINY = Plan(tokens=6_000, width=16, layers=1, heads=2, mlp=16, row_tokens=128, batch_rows=4)
SMALL = "--width 32 --layers 1 --heads 2 --mlp 32 --row-tokens 128 --vocabulary 300 --tokenizer-conversations 50"
WRITTEN = {
    *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("chat_template.jinja", "training.json", "README.md", "loss.svg"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretraining") / "model"
    main(["--out", str(folder), "--tokens", "12000", "--held-out", "2", "--report-every", "5", *SMALL.split()])
    return folder


def test_every_file_is_written(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == WRITTEN


def test_the_loss_falls_and_is_noted_with_the_figures(folder: Path) -> None:
    noted = json.loads((folder / "training.json").read_text())
    assert noted["losses"][-1][1] < noted["losses"][0][1]
    assert noted["tokens"] >= 12_000
    assert noted["seconds"] > 0
    assert noted["seed"] == 0
    assert set(noted["exact_match"]) >= {"copying", "look_up", "reading"}
    assert "| copying |" in (folder / "README.md").read_text()


def test_the_written_model_is_sixteen_bits_wide_and_is_read_as_thirty_two(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert (folder / "model.safetensors").stat().st_size < 2.5 * model.num_parameters()
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == model.generation_config.eos_token_id


def test_the_same_seed_trains_the_same_weights_and_another_seed_others() -> None:
    tokenizer = train_tokenizer(["some words to begin with"], 300)
    trained = []
    for seed in (3, 3, 4):
        model = new_model(Plan(**{**vars(TINY), "seed": seed}), tokenizer)
        train(model, tokenizer, Plan(**{**vars(TINY), "seed": seed}))
        trained.append(torch.cat([weights.flatten() for weights in model.parameters()]))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_training_by_the_clock_ends() -> None:
    tokenizer = train_tokenizer(["some words to begin with"], 300)
    plan = Plan(**{**vars(TINY), "minutes": 0.002})
    assert train(new_model(plan, tokenizer), tokenizer, plan).steps >= 1


def test_the_loss_is_the_weighted_mean_over_what_is_predicted() -> None:
    model = new_model(TINY, train_tokenizer(["words"], 300))
    ids = torch.tensor([[7, 8, 9, 10], [11, 12, 13, 0]])
    weights = torch.tensor([[0.1, 0.1, 1.0, 1.0], [0.1, 1.0, 0.0, 0.0]])
    logs = torch.log_softmax(model(input_ids=ids).logits.detach(), dim=-1)
    total = sum(-float(weights[row, at] * logs[row, at - 1, ids[row, at]]) for row in range(2) for at in range(1, 4))
    assert weighted_loss(model, ids, weights).item() == pytest.approx(total / 3.1, rel=1e-5)
