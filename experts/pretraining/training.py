"""Training of the small base model: next-token prediction, Muon for the matrices and AdamW for the rest."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import AdamW, Muon
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from experts.pretraining.corpus import conversations
from experts.pretraining.packing import Row, pack
from experts.pretraining.tokens import encode

_ENCODED_AT_ONCE = 2000
_WARM_UP = 0.02
# The rate falls linearly to this share of its peak.
_LAST_RATE = 0.02


@dataclass(frozen=True)
class Plan:
    """What is trained and for how long: until ``tokens`` are seen or, where ``minutes`` are given, for that long."""

    seed: int = 0
    tokens: int = 5_000_000
    minutes: float | None = None
    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp: int = 384
    row_tokens: int = 512
    batch_rows: int = 4
    muon_rate: float = 5e-3
    adam_rate: float = 1e-2
    # Computes in bfloat16 what loses nothing by it; half the time where the processor has it, longer where not.
    bfloat16: bool = False


@dataclass
class Progress:
    """What training has seen so far; ``losses`` are (step, mean weighted loss since the one before)."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)


def new_model(plan: Plan, tokenizer: PreTrainedTokenizerFast) -> MistralForCausalLM:
    """A model with random weights drawn from the plan's seed."""
    torch.manual_seed(plan.seed)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.width,
        intermediate_size=plan.mlp,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=2048,
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return MistralForCausalLM(config)


def train(
    model: MistralForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    plan: Plan,
    report: Callable[[Progress], None] = lambda progress: None,
    report_every: int = 20,
) -> Progress:
    """Train in place until the plan is done; ``report`` is called every ``report_every`` steps.

    With ``plan.tokens`` the outcome is the same for the same seed on the same machine and number of threads; with
    ``plan.minutes`` it depends on the machine's speed.
    """
    optimizers = _optimizers(model, plan)
    progress, waiting, begun = Progress(), [], time.monotonic()
    batches = _batches(tokenizer, plan)
    model.train()
    while (share := _share_done(progress, plan)) < 1:
        for optimizer, rate in optimizers:
            optimizer.param_groups[0]["lr"] = rate * _schedule(share)
        ids, weights = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.bfloat16):
            loss = weighted_loss(model, ids, weights)
        _step(model, [optimizer for optimizer, _ in optimizers], loss)
        waiting.append(float(loss.detach()))
        progress.steps += 1
        progress.tokens += int((weights > 0).sum())
        progress.seconds = time.monotonic() - begun
        if progress.steps % report_every == 0:
            progress.losses.append((progress.steps, round(float(np.mean(waiting)), 5)))
            waiting.clear()
            report(progress)
    model.eval()  # type: ignore[no-untyped-call]
    return progress


def weighted_loss(model: MistralForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of predicting int64[b, n] from what stands before, weighted by float32[b, n]; in nats."""
    logits = model(input_ids=ids).logits[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    wanted = weights[:, 1:].flatten()
    return (losses * wanted).sum() / wanted.sum()


def _step(model: MistralForCausalLM, optimizers: list[torch.optim.Optimizer], loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _optimizers(model: MistralForCausalLM, plan: Plan) -> list[tuple[torch.optim.Optimizer, float]]:
    matrices = [weights for name, weights in model.named_parameters() if weights.ndim == 2 and "layers." in name]
    chosen = {id(weights) for weights in matrices}
    rest = [weights for weights in model.parameters() if id(weights) not in chosen]
    muon = Muon(matrices, lr=plan.muon_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = AdamW(rest, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, plan.muon_rate), (adam, plan.adam_rate)]


def _schedule(share: float) -> float:
    """The rate's factor when ``share`` of the training is done: a short warm-up, then straight down."""
    return min(1.0, (share + 1e-4) / _WARM_UP) * (1 - (1 - _LAST_RATE) * share)


def _share_done(progress: Progress, plan: Plan) -> float:
    if plan.minutes is not None:
        return progress.seconds / (60 * plan.minutes)
    return progress.tokens / plan.tokens


def _batches(tokenizer: PreTrainedTokenizerFast, plan: Plan) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    rows = pack(_encoded(tokenizer, plan.seed), plan.row_tokens, tokenizer.pad_token_id)
    while batch := list(islice(rows, plan.batch_rows)):
        yield _stack(batch)


def _stack(batch: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(np.stack([row.ids for row in batch]))
    return ids, torch.from_numpy(np.stack([row.weights for row in batch]))


def _encoded(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[tuple[int, bool]]]:
    talks = conversations(seed)
    while True:
        yield from encode(tokenizer, list(islice(talks, _ENCODED_AT_ONCE)))
