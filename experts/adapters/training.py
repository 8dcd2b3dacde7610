"""An adapter is trained: the base stays as it is, and a training that was cut short goes on where it was."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments, set_seed

from experts.adapters.batching import Collator, Encoded, encode, sorted_batches, training_batches
from experts.adapters.checkpoints import Checkpoint, checkpoint_of, last_whole
from experts.adapters.data import Example
from experts.adapters.failing import clearly
from experts.adapters.following import Follower, Progress
from experts.adapters.spec import LoraSpec, check_budget
from experts.adapters.tensors import WEIGHTS, weights_of
from experts.errors import CannotTrain, TrainingFailed
from experts.language.adapting import AdapterWeights
from experts.language.base import Base, weights_sha256


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained adapter, from the step of its lowest validation loss. Losses are nats a token of the answers.

    ``stopped_by`` is ``steps`` (all of them were made), ``patience`` or ``seconds``; ``seconds`` counts those before an
    interruption, too. ``too_long`` are the lines of examples that were left out for their length.
    """

    weights: AdapterWeights
    spec: LoraSpec
    base_sha256: str
    steps: int
    total_steps: int
    best_step: int
    train_loss: float
    validation_loss_before: float
    validation_loss: float
    seconds: float
    stopped_by: str
    trainable_parameters: int
    examples: int
    too_long: tuple[int, ...] = ()
    history: tuple[Progress, ...] = field(default=())


def train_adapter(
    base: Base,
    train: Sequence[Example],
    validation: Sequence[Example],
    spec: LoraSpec,
    *,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """The adapter learned from ``train``; ``folder`` holds checkpoints and is the caller's to remove afterwards.

    Called again with the same arguments after an end of any kind, it goes on from the last whole checkpoint, and on a
    CPU comes to the same numbers as if it had never ended. ``should_stop`` is asked after every step. The base is free
    of the adapter again when this returns or raises.

    Raises CannotTrain where there is nothing to learn from, Stopped after ``should_stop`` said so and a checkpoint was
    written, TrainingFailed if memory or disk are full, the loss is no number, or the base was changed.
    """
    parameters = check_budget(base.model, spec)
    encoded, too_long = _encoded(base, train, spec, "train on")
    held_out, held_too_long = _encoded(base, validation, spec, "validate with")
    batches = training_batches(encoded, batch_size=spec.batch_size, epochs=spec.epochs, seed=spec.seed)
    before = weights_sha256(base.model)
    identity = _identity(base, spec, encoded, held_out)
    with clearly(folder):
        folder.mkdir(parents=True, exist_ok=True)
        begun = last_whole(folder, identity)
        follower = Follower(spec, identity, begun.seconds if begun else 0.0, on_progress, should_stop)
        wrapped = _wrapped(base, spec)
        try:
            trainer = _trainer(base, wrapped, batches, sorted_batches(held_out, spec.batch_size), spec, folder)
            trainer.add_callback(follower)
            _run(trainer, begun, follower)
        finally:
            wrapped.unload()
            base.model.eval()
            base.model.requires_grad_(False)
        weights = weights_of(load_file(_best(folder, trainer.state) / WEIGHTS), spec.alpha / spec.rank)
    if weights_sha256(base.model) != before:
        raise TrainingFailed("the base was changed by the training; the adapter is thrown away")
    return Trained(
        weights=weights,
        spec=spec,
        base_sha256=base.sha256,
        steps=trainer.state.global_step,
        total_steps=len(batches),
        best_step=trainer.state.best_global_step,
        train_loss=follower.train_loss(trainer.state),
        validation_loss_before=follower.validation_losses(trainer.state)[0],
        validation_loss=float(trainer.state.best_metric),
        seconds=follower.seconds(),
        stopped_by=follower.stopped_by,
        trainable_parameters=parameters,
        examples=len(encoded),
        too_long=(*too_long, *held_too_long),
        history=tuple(follower.history),
    )


def _encoded(base: Base, examples: Sequence[Example], spec: LoraSpec, purpose: str) -> tuple[list[Encoded], list[int]]:
    encoded, too_long = encode(base.tokenizer, examples, spec.max_length)
    if not encoded:
        long = f": all {len(too_long)} have more than {spec.max_length} tokens" if too_long else ""
        raise CannotTrain(f"there are no examples to {purpose}{long}")
    return encoded, too_long


def _identity(base: Base, spec: LoraSpec, *parts: Sequence[Encoded]) -> str:
    """What is trained on what: a checkpoint of anything else is not gone on from."""
    settings = {name: value for name, value in asdict(spec).items() if name not in ("max_seconds", "budget")}
    digest = hashlib.sha256(f"{base.sha256} {base.model.dtype} {sorted(settings.items())}".encode())
    for part in parts:
        digest.update(repr([(example.ids, example.prompt) for example in part]).encode())
    return digest.hexdigest()


def lora_config(spec: LoraSpec) -> LoraConfig:
    """The plain LoRA configuration of PEFT for ``spec``."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=sorted(spec.target_modules),
    )


def _wrapped(base: Base, spec: LoraSpec) -> Any:
    set_seed(spec.seed)
    with warnings.catch_warnings():
        # PEFT asks the model by a name that transformers has deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return get_peft_model(base.model, lora_config(spec))


def _trainer(
    base: Base, model: Any, batches: list[list[Encoded]], held_out: list[list[Encoded]], spec: LoraSpec, folder: Path
) -> Any:
    """A trainer whose items are whole batches, in an order fixed beforehand, so that it can go on at any step."""
    every = max(1, len(batches) // spec.evaluations)
    make: Any = TrainingArguments
    arguments = make(
        output_dir=str(folder),
        max_steps=len(batches),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        train_sampling_strategy="sequential",
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(spec.warmup * len(batches)),
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim="adamw_torch",
        seed=spec.seed,
        eval_strategy="steps",
        eval_steps=every,
        prediction_loss_only=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=3,  # the best, the one before, and the one that is being written
        logging_steps=max(1, every // 2),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=base.device.type == "cpu",
        dataloader_pin_memory=base.device.type == "cuda",
        remove_unused_columns=False,
        label_names=["labels"],
    )
    make_trainer: Any = Trainer
    trainer = make_trainer(
        model=model,
        args=arguments,
        train_dataset=batches,
        eval_dataset=held_out,
        data_collator=Collator(base.tokenizer.pad_token_id),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _run(trainer: Any, begun: Checkpoint | None, follower: Follower) -> None:
    """Train, from the checkpoint if there is one; one that had come to its end already is left as it is."""
    if begun is not None:
        trainer.state = TrainerState.load_from_json(str(begun.folder / "trainer_state.json"))
        if follower.has_ended(trainer.state):
            return
    trainer.args.eval_on_start = begun is None
    trainer.train(resume_from_checkpoint=str(begun.folder) if begun else None)


def _best(folder: Path, state: Any) -> Path:
    if state.best_global_step is None:
        raise TrainingFailed("no step of the training had a validation loss that is a number")
    return checkpoint_of(folder, state.best_global_step)
