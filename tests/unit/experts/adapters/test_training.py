"""A training learns, stops, goes on, and leaves the base as it was."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from experts.adapters.checkpoints import SEAL
from experts.adapters.data import Example
from experts.adapters.following import Progress
from experts.adapters.training import Trained, train_adapter
from experts.errors import CannotTrain, Stopped, TrainingFailed
from experts.language.adapting import applied
from experts.language.base import Base, load_base, weights_sha256
from experts.language.generating import generate
from experts.language.prompting import encode_prompt, encode_text
from tests.unit.experts.adapters.learning import EXAMPLES, SPEC, TRAIN, VALIDATION

SHORT = replace(SPEC, epochs=1, evaluations=1)  # three steps


def loss(base: Base, examples: list[Example], trained: Trained | None) -> float:
    """The mean loss of the answers' tokens, one example at a time."""
    losses = []
    with applied(base.model, trained.weights if trained else None), torch.inference_mode():
        for example in examples:
            prompt = encode_prompt(base.tokenizer, example.prompt)
            ids = [*prompt, *encode_text(base.tokenizer, example.answer), base.tokenizer.eos_token_id]
            logits = base.model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
            losses += cross_entropy(logits, torch.tensor(ids[len(prompt) :]), reduction="none").tolist()
    return sum(losses) / len(losses)


def test_an_adapter_learns_what_the_base_does_not_know(base: Base, trained: Trained) -> None:
    answers = generate(base, trained.weights, TRAIN, 5)

    right = [answer == example.answer for answer, example in zip(answers, TRAIN, strict=True)]
    assert sum(right) >= 0.8 * len(TRAIN)
    assert trained.validation_loss < 0.5 * trained.validation_loss_before


def test_the_losses_are_those_of_the_answers(base: Base, trained: Trained) -> None:
    """All of the validation examples are of one length, so a mean of batches is a mean of tokens."""
    assert trained.validation_loss_before == pytest.approx(loss(base, VALIDATION, None), rel=1e-4)
    assert trained.validation_loss == pytest.approx(loss(base, VALIDATION, trained), rel=1e-4)


def test_what_comes_back_is_the_step_of_the_lowest_validation_loss(trained: Trained) -> None:
    losses = {one.step: one.validation_loss for one in trained.history}

    assert trained.validation_loss == min(loss for loss in losses.values() if loss is not None)
    assert trained.validation_loss == losses[trained.best_step]


def test_the_base_is_as_before_in_hash_logits_and_state(base: Base, tmp_path: Path) -> None:
    ids = torch.arange(5, 40)[None]
    before = base.model(ids).logits

    train_adapter(base, TRAIN, VALIDATION, SHORT, folder=tmp_path)

    assert weights_sha256(base.model) == base.sha256
    assert torch.equal(base.model(ids).logits, before)
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not hasattr(base.model, "peft_config")
    assert not any("lora" in name for name, _ in base.model.named_modules())


def test_a_training_that_was_stopped_goes_on_to_the_same_numbers(base: Base, trained: Trained, tmp_path: Path) -> None:
    asked = iter([False] * 16 + [True])
    with pytest.raises(Stopped, match="after step 17 of 36"):
        train_adapter(base, TRAIN, VALIDATION, SPEC, folder=tmp_path, should_stop=lambda: next(asked))
    assert weights_sha256(base.model) == base.sha256
    steps: list[int] = []

    again = train_adapter(base, TRAIN, VALIDATION, SPEC, folder=tmp_path, on_progress=lambda p: steps.append(p.step))

    assert steps[0] > 17
    assert again.weights.sha256 == trained.weights.sha256
    assert (again.best_step, again.validation_loss) == (trained.best_step, trained.validation_loss)
    assert again.validation_loss_before == trained.validation_loss_before


def test_a_checkpoint_cut_short_by_a_kill_is_passed_over(
    base: Base, trained: Trained, checkpoints: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints, tmp_path / "copy")
    last = tmp_path / "copy" / f"checkpoint-{trained.steps}"
    (last / SEAL).unlink()
    (last / "optimizer.pt").write_bytes((last / "optimizer.pt").read_bytes()[:100])
    steps: list[int] = []

    again = train_adapter(
        base, TRAIN, VALIDATION, SPEC, folder=tmp_path / "copy", on_progress=lambda p: steps.append(p.step)
    )

    assert 0 < steps[0] <= trained.steps
    assert again.weights.sha256 == trained.weights.sha256


def test_a_training_that_was_at_its_end_comes_back_at_once(
    base: Base, trained: Trained, checkpoints: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoints, tmp_path / "elsewhere")
    steps: list[Progress] = []

    again = train_adapter(base, TRAIN, VALIDATION, SPEC, folder=tmp_path / "elsewhere", on_progress=steps.append)

    assert steps == []
    assert replace(again, seconds=0, history=()) == replace(trained, seconds=0, history=(), weights=again.weights)
    assert again.weights.sha256 == trained.weights.sha256


def test_checkpoints_of_other_data_are_not_gone_on_from(base: Base, tmp_path: Path) -> None:
    train_adapter(base, TRAIN, VALIDATION, SHORT, folder=tmp_path)
    steps: list[int] = []

    train_adapter(base, TRAIN[1:], VALIDATION, SHORT, folder=tmp_path, on_progress=lambda p: steps.append(p.step))

    assert steps[0] == 0


def test_a_seed_gives_one_adapter_and_another_seed_another(base: Base, tmp_path: Path) -> None:
    found = [
        train_adapter(base, TRAIN, VALIDATION, replace(SHORT, seed=seed), folder=tmp_path / str(place)).weights.sha256
        for place, seed in enumerate((1, 1, 2))
    ]

    assert found[0] == found[1] != found[2]


def test_training_ends_when_patience_does(base: Base, tmp_path: Path) -> None:
    """With answers nobody can foresee, the validation loss only rises."""
    noise = [replace(example, answer=chr(33 + place * 3)) for place, example in enumerate(EXAMPLES)]
    spec = replace(SPEC, epochs=60, evaluations=60, patience=2)

    ended = train_adapter(base, noise[:16], noise[16:], spec, folder=tmp_path)

    assert ended.stopped_by == "patience"
    assert ended.best_step < ended.steps < ended.total_steps


def test_training_ends_when_its_time_does(base: Base, tmp_path: Path) -> None:
    ended = train_adapter(base, TRAIN, VALIDATION, replace(SPEC, max_seconds=1e-6), folder=tmp_path)

    assert (ended.stopped_by, ended.steps, ended.best_step) == ("seconds", 1, 1)


def test_progress_is_told_from_the_first_step_to_the_last(trained: Trained) -> None:
    first, last = trained.history[0], trained.history[-1]

    assert (first.step, first.train_loss, first.validation_loss) == (0, None, trained.validation_loss_before)
    assert (last.step, last.total_steps, last.seconds_left) == (36, 36, 0)
    assert [one.step for one in trained.history] == sorted(one.step for one in trained.history)


def test_no_pickle_but_those_read_as_plain_tensors_is_left_in_a_checkpoint(trained: Trained, checkpoints: Path) -> None:
    files = {file.name: file for file in (checkpoints / f"checkpoint-{trained.steps}").iterdir()}

    assert set(files) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
        SEAL,
    }
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(files[name], weights_only=True)


def test_a_loss_that_is_no_number_is_a_clear_error_and_leaves_the_base_alone(base: Base, tmp_path: Path) -> None:
    """Numbers of 16 bits end at 65 504."""
    small = load_base(replace(base.spec, dtype="float16"))
    before = weights_sha256(small.model)

    with pytest.raises(TrainingFailed, match="learning rate below 1 "):
        train_adapter(small, TRAIN, VALIDATION, replace(SHORT, learning_rate=1.0, alpha=8192), folder=tmp_path)

    assert weights_sha256(small.model) == before


@pytest.mark.parametrize(
    ("train", "validation", "max_length", "reason"),
    [
        ([], VALIDATION, 100, "no examples to train on"),
        (TRAIN, [], 100, "no examples to validate with"),
        ([replace(TRAIN[0], answer="a" * 100)], VALIDATION, 20, "all 1 have more than 20 tokens"),
    ],
)
def test_nothing_to_learn_from_is_said(
    base: Base, tmp_path: Path, train: list[Example], validation: list[Example], max_length: int, reason: str
) -> None:
    with pytest.raises(CannotTrain, match=reason):
        train_adapter(base, train, validation, replace(SPEC, max_length=max_length), folder=tmp_path)
