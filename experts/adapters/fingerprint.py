"""The canary of an adapter: what base and adapter said when it was trained, asked again whenever it is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experts.errors import ModelUnusable
from experts.language.adapting import AdapterWeights, applied
from experts.language.base import Base
from experts.language.generating import left_padded
from experts.language.prompting import Turn, encode_prompt

# Never change them: an adapter is checked with the prompts it was trained with, which its fingerprint holds.
PROMPTS = (
    "What is 7 + 5?",
    "Which word comes next: red, green, red,",
    "Write the opposite of cold.",
    "Copy this: a1 b2 c3",
    "Is a whale a fish?",
    "Translate to symbols: two plus two",
    "Name a day of the week.",
    "Hello",
)
TOP = 16
# The largest difference of a logit, as a share of the largest logit, that computing again may make: other threads,
# batches, processors. And the smallest change of the logits, as a share of their norm, that counts as an effect.
_TOLERANCE = {"float32": 5e-4, "float16": 1e-2, "bfloat16": 8e-2, "int8": 1e-1}
_FLOOR = {"float32": 1e-3, "float16": 5e-3, "bfloat16": 2e-2, "int8": 3e-2}
_MAX_PROMPTS, _MAX_PROMPT_CHARS = 64, 400


@dataclass(frozen=True, slots=True)
class Said:
    """The strongest next tokens after one prompt, with the base's and the adapter's logits of these tokens.

    ``change`` is the norm of what the adapter changes over all logits, as a share of the norm of the base's.
    """

    tokens: tuple[int, ...]
    base: tuple[float, ...]
    adapter: tuple[float, ...]
    change: float


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What was said after each prompt, and the precision the base was held in."""

    dtype: str
    prompts: tuple[str, ...]
    said: tuple[Said, ...]


def take_fingerprint(base: Base, weights: AdapterWeights, prompts: Sequence[str] = PROMPTS) -> Fingerprint:
    """The fingerprint of an adapter on its base."""
    plain, adapted = _logits(base, None, prompts), _logits(base, weights, prompts)
    said = []
    for before, after in zip(plain, adapted, strict=True):
        tokens = after.topk(min(TOP, len(after))).indices
        change = float((after - before).norm() / before.norm().clamp(min=1e-12))
        said.append(Said(tuple(tokens.tolist()), _numbers(before[tokens]), _numbers(after[tokens]), change))
    return Fingerprint(_dtype(base), tuple(prompts), tuple(said))


def check_fingerprint(base: Base, weights: AdapterWeights, expected: Fingerprint) -> None:
    """Raise ModelUnusable unless base and adapter say what they said when the adapter was trained.

    Refused are an adapter without effect, an adapter that says something else, and a base that does. The tolerance is
    that of the less exact of the two precisions.
    """
    dtypes = (expected.dtype, _dtype(base))
    tolerance, floor = max(_TOLERANCE[name] for name in dtypes), max(_FLOOR[name] for name in dtypes)
    plain, adapted = _logits(base, None, expected.prompts), _logits(base, weights, expected.prompts)
    if not bool(torch.isfinite(adapted).all()):
        raise ModelUnusable("the adapter makes numbers that are not finite")
    changes = (adapted - plain).norm(dim=1) / plain.norm(dim=1).clamp(min=1e-12)
    for who, mean in (("now", float(changes.mean())), ("in its fingerprint", _mean_change(expected))):
        if not mean >= floor:
            raise ModelUnusable(f"the adapter has no effect {who}: it changes the base by {mean:.1e}, not {floor:.0e}")
    for place, said in enumerate(expected.said):
        tokens = torch.tensor(said.tokens)
        if int(tokens.max()) >= plain.shape[1]:
            raise ModelUnusable("the fingerprint names tokens the base has not")
        _compare("base", plain[place], tokens, said.base, tolerance, place)
        _compare("adapter", adapted[place], tokens, said.adapter, tolerance, place)


def fingerprint_from(values: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint as it was stored. Raises ModelUnusable for anything that is none; it is never left out."""
    try:
        said = tuple(
            Said(
                tuple(int(token) for token in one["tokens"]),
                tuple(float(number) for number in one["base"]),
                tuple(float(number) for number in one["adapter"]),
                float(one["change"]),
            )
            for one in values["said"]
        )
        found = Fingerprint(str(values["dtype"]), tuple(map(str, values["prompts"])), said)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnusable(f"the adapter's fingerprint cannot be read: {error!r:.200}") from error
    if not _is_whole(found):
        raise ModelUnusable("the adapter's fingerprint is not whole")
    return found


def _is_whole(found: Fingerprint) -> bool:
    """As ``take_fingerprint`` makes them, and small enough to be asked again by anybody."""
    lengths = {len(part) for one in found.said for part in (one.tokens, one.base, one.adapter)}
    return (
        found.dtype in _TOLERANCE
        and len(found.said) == len(found.prompts)
        and 0 < len(found.said) <= _MAX_PROMPTS
        and len(lengths) == 1
        and 0 < min(lengths) <= TOP
        and all(len(prompt) <= _MAX_PROMPT_CHARS for prompt in found.prompts)
        and all(0 <= token < 2**31 for one in found.said for token in one.tokens)
    )


def _compare(
    who: str, logits: torch.Tensor, tokens: torch.Tensor, expected: Sequence[float], tolerance: float, place: int
) -> None:
    then, scale = torch.tensor(expected), float(logits.abs().max())
    off = float((logits[tokens] - then).abs().max())
    if not off <= tolerance * max(scale, float(then.abs().max())):  # also when it is no number
        reason = "this is another base" if who == "base" else "this is not what was trained, or not how it is applied"
        raise ModelUnusable(f"the {who} answers prompt {place + 1} of the fingerprint otherwise by {off:.2g}: {reason}")


def _mean_change(fingerprint: Fingerprint) -> float:
    return sum(one.change for one in fingerprint.said) / len(fingerprint.said)


def _numbers(logits: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(number, 5) for number in logits.tolist())


def _logits(base: Base, weights: AdapterWeights | None, prompts: Sequence[str]) -> torch.Tensor:
    """float32[prompts, vocabulary]: the logits of the first token of each answer."""
    ids = [encode_prompt(base.tokenizer, [Turn("user", prompt)]) for prompt in prompts]
    inputs = left_padded(ids, base.tokenizer.pad_token_id, base.device)
    # Positions count from each prompt's own first token, as they do when answers are generated.
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with applied(base.model, weights), torch.inference_mode():
        logits: torch.Tensor = base.model(**inputs, position_ids=positions, use_cache=False).logits[:, -1]
    return logits.float().cpu()


def _dtype(base: Base) -> str:
    return "int8" if base.spec.load_in_8bit else str(base.model.dtype).removeprefix("torch.")
