"""Train the small base model and write its folder: ``python -m experts.pretraining --out DIR``."""

import sys
from argparse import ArgumentParser, Namespace
from itertools import islice
from pathlib import Path

from transformers import MistralForCausalLM, PreTrainedTokenizerFast

from experts.pretraining.corpus import FAMILIES, conversations, held_out
from experts.pretraining.exact_match import exact_match
from experts.pretraining.tokens import VOCABULARY, train_tokenizer
from experts.pretraining.training import Plan, Progress, new_model, train
from experts.pretraining.writing import Outcome, write_model, write_report

# Tokens are learned from other conversations than weights are.
_TOKENIZER_SEED, _TOKENIZER_CONVERSATIONS = 1_000_003, 20_000


def main(arguments: list[str] | None = None) -> None:
    """Train, test and write; progress goes to the standard error."""
    options = _parser().parse_args(arguments)
    plan = _plan(options)
    texts = (
        message["content"]
        for talk in islice(conversations(_TOKENIZER_SEED), options.tokenizer_conversations)
        for message in talk
    )
    tokenizer = train_tokenizer(texts, options.vocabulary)
    model = new_model(plan, tokenizer)
    progress = train(model, tokenizer, plan, _say, options.report_every)
    write_model(options.out, model, tokenizer)
    # What is tested is what was written: 16 bits, read back.
    model = MistralForCausalLM.from_pretrained(options.out)
    outcome = Outcome(plan, progress, _test(model, tokenizer, options.held_out))
    write_report(options.out, model, outcome)
    sys.stderr.write(f"exact match {outcome.mean:.3f}; written to {options.out}\n")


def _parser() -> ArgumentParser:
    plan = Plan()
    parser = ArgumentParser(prog="python -m experts.pretraining", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--seed", type=int, default=plan.seed)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--tokens", type=int, default=plan.tokens, help="train on so many tokens (%(default)s)")
    length.add_argument("--minutes", type=float, help="train for so long instead")
    for setting in ("width", "layers", "heads", "mlp", "row_tokens", "batch_rows"):
        parser.add_argument(f"--{setting.replace('_', '-')}", type=int, default=getattr(plan, setting))
    parser.add_argument("--bfloat16", action="store_true", help="faster where the processor computes in bfloat16")
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--tokenizer-conversations", type=int, default=_TOKENIZER_CONVERSATIONS)
    parser.add_argument("--held-out", type=int, default=300, help="items to test each family on")
    parser.add_argument("--report-every", type=int, default=20, help="steps between two losses")
    return parser


def _plan(options: Namespace) -> Plan:
    return Plan(
        seed=options.seed,
        tokens=options.tokens,
        minutes=options.minutes,
        width=options.width,
        layers=options.layers,
        heads=options.heads,
        mlp=options.mlp,
        row_tokens=options.row_tokens,
        batch_rows=options.batch_rows,
        bfloat16=options.bfloat16,
    )


def _test(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int) -> dict[str, float]:
    return {family: round(exact_match(model, tokenizer, held_out(family, count, seed=0)), 4) for family in FAMILIES}


def _say(progress: Progress) -> None:
    step, loss = progress.losses[-1]
    sys.stderr.write(f"step {step:5d}  {progress.tokens:9,d} tokens  {progress.seconds:6.0f} s  loss {loss:.4f}\n")


if __name__ == "__main__":
    main()
