"""Something a tiny base can learn in two seconds: to say a letter twice."""

from experts.adapters.data import Example
from experts.adapters.spec import LoraSpec
from experts.language.prompting import Turn

EXAMPLES = [
    Example((Turn("user", f"{letter}{noise}"),), letter * 2, line)
    for line, (letter, noise) in enumerate(((letter, noise) for letter in "abcd" for noise in "uvwxyz"), 1)
]
VALIDATION, TRAIN = EXAMPLES[::5], [example for example in EXAMPLES if example not in EXAMPLES[::5]]
SPEC = LoraSpec(
    rank=8,
    alpha=16,
    target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"),
    learning_rate=3e-2,
    epochs=12,
    batch_size=8,
    evaluations=5,
    patience=100,
)
