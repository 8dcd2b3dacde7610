"""What watches a training from step to step: progress, the end of patience and time, and the wish to stop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from experts.adapters.checkpoints import checkpoint_of, seal
from experts.adapters.spec import LoraSpec
from experts.errors import Stopped, TrainingFailed


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is. Losses are nats a token, the latest there are; None before the first."""

    step: int
    total_steps: int
    train_loss: float | None
    validation_loss: float | None
    seconds: float
    seconds_left: float


class Follower(TrainerCallback):
    """Called by the trainer. It keeps nothing that going on from a checkpoint would miss: losses are in the state."""

    def __init__(
        self,
        spec: LoraSpec,
        identity: str,
        seconds_before: float,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.stopped_by = "steps"
        self.history: list[Progress] = []
        self._spec = spec
        self._identity = identity
        self._before = seconds_before
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._stopping = False
        self._started = time.monotonic()
        self._first_step = 0

    def seconds(self) -> float:
        """How long the training has taken, interruptions left out."""
        return self._before + time.monotonic() - self._started

    def has_ended(self, state: Any) -> bool:
        """Whether nothing is left to do; ``stopped_by`` then says why."""
        losses = self.validation_losses(state)
        if self._out_of_steps_or_time(state):
            return True
        if losses and len(losses) - 1 - losses.index(min(losses)) >= self._spec.patience:
            self.stopped_by = "patience"
            return True
        return False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._out_of_steps_or_time(state):
            control.should_evaluate = control.should_save = control.should_training_stop = True
        elif self._should_stop():
            self._stopping = True
            control.should_evaluate = False
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.has_ended(state):
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        for name in ("loss", "eval_loss"):
            if not math.isfinite((logs or {}).get(name, 0.0)):
                raise TrainingFailed(
                    f"the loss is no number any more at step {state.global_step}; a learning rate below "
                    f"{self._spec.learning_rate:g} may help"
                )
        if "train_runtime" not in (logs or {}):
            self._report(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seal(checkpoint_of(Path(args.output_dir), state.global_step), identity=self._identity, seconds=self.seconds())
        if self._stopping:
            raise Stopped(f"training stopped as asked, after step {state.global_step} of {state.max_steps}")

    def validation_losses(self, state: Any) -> list[float]:
        """Every validation loss so far, in the order of the steps; the first is that of the base."""
        return list({log["step"]: log["eval_loss"] for log in state.log_history if "eval_loss" in log}.values())

    def train_loss(self, state: Any) -> float:
        """The latest training loss; nan before the first."""
        return next((float(log["loss"]) for log in reversed(state.log_history) if "loss" in log), math.nan)

    def _out_of_steps_or_time(self, state: Any) -> bool:
        if state.global_step >= state.max_steps:
            return True
        limit = self._spec.max_seconds
        if limit is not None and self.seconds() >= limit:
            self.stopped_by = "seconds"
            return True
        return False

    def _report(self, state: Any) -> None:
        losses = self.validation_losses(state)
        train_loss = self.train_loss(state)
        progress = Progress(
            step=state.global_step,
            total_steps=state.max_steps,
            train_loss=None if math.isnan(train_loss) else train_loss,
            validation_loss=losses[-1] if losses else None,
            seconds=self.seconds(),
            seconds_left=self._seconds_left(state),
        )
        self.history.append(progress)
        self._on_progress(progress)

    def _seconds_left(self, state: Any) -> float:
        done = int(state.global_step) - self._first_step
        rate = (time.monotonic() - self._started) / max(done, 1)
        left = rate * (int(state.max_steps) - int(state.global_step))
        limit = self._spec.max_seconds
        return left if limit is None else max(0.0, min(left, limit - self.seconds()))
