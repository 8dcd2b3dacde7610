"""The folder of a trained base model: weights, tokenizer, figures, model card and loss curve."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, MistralForCausalLM, PreTrainedTokenizerFast

from experts.pretraining.exact_match import MAX_ANSWER_TOKENS
from experts.pretraining.training import Plan, Progress

WEIGHTS = "model.safetensors"
_CARD = Path(__file__).with_name("card.md")


@dataclass(frozen=True)
class Outcome:
    """What a training run came to: its plan, its progress, and the exact match of each family on held-out items."""

    plan: Plan
    progress: Progress
    exact_match: dict[str, float]

    @property
    def mean(self) -> float:
        return sum(self.exact_match.values()) / len(self.exact_match)


def write_model(folder: Path, model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write configuration, weights and tokenizer so that ``from_pretrained(folder)`` loads them.

    Weights are stored as float16; the configuration says float32, so that they are widened when they are loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=MAX_ANSWER_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    narrow = {name: weights.to(torch.float16) for name, weights in load_file(folder / WEIGHTS).items()}
    save_file(narrow, folder / WEIGHTS, metadata=_metadata(folder / WEIGHTS))
    tokenizer.save_pretrained(folder)


def write_report(folder: Path, model: MistralForCausalLM, outcome: Outcome) -> None:
    """Write ``training.json``, the model card ``README.md`` and the curve ``loss.svg``."""
    progress = outcome.progress
    figures = {
        **asdict(outcome.plan),
        "tokens": progress.tokens,
        "steps": progress.steps,
        "seconds": round(progress.seconds, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "exact_match": outcome.exact_match,
        "exact_match_mean": round(outcome.mean, 4),
        "losses": progress.losses,
    }
    (folder / "training.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(model, outcome), encoding="utf-8")
    _draw(folder / "loss.svg", progress.losses)


def _metadata(path: Path) -> dict[str, str] | None:
    with safe_open(path, "pt") as file:
        found: dict[str, str] | None = file.metadata()
    return found


def _card(model: MistralForCausalLM, outcome: Outcome) -> str:
    plan, progress = outcome.plan, outcome.progress
    return _CARD.read_text(encoding="utf-8").format(
        parameters=model.num_parameters(),
        vocabulary=model.config.vocab_size,
        width=plan.width,
        layers=plan.layers,
        heads=plan.heads,
        mlp=plan.mlp,
        row_tokens=plan.row_tokens,
        tokens=progress.tokens,
        steps=progress.steps,
        seconds=progress.seconds,
        rows="\n".join(
            f"| {family.replace('_', ' ')} | {share:.3f} |" for family, share in outcome.exact_match.items()
        ),
        mean=outcome.mean,
    )


def _draw(path: Path, losses: list[tuple[int, float]]) -> None:
    # A fixed salt and no date: the same losses give the same file.
    with rc_context({"svg.hashsalt": "loss", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot([step for step, _ in losses], [loss for _, loss in losses], linewidth=1)
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_ylabel("weighted loss (nats per token)")
        axes.grid(alpha=0.3)
        figure.savefig(path, format="svg", metadata={"Date": None})
