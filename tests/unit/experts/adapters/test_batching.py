"""What the model is shown, and in which order."""

from collections import Counter

from experts.adapters.batching import IGNORED, Collator, Encoded, encode, sorted_batches, training_batches
from experts.adapters.data import Example
from experts.language.prompting import Turn
from tests.tiny_base import tiny_tokenizer

ENCODED = [Encoded([9] * (1 + line % 7), 1, line) for line in range(50)]


def test_the_loss_is_of_the_answer_and_its_end_alone() -> None:
    tokenizer = tiny_tokenizer()
    examples = [Example((Turn("user", "why"),), "so", 1), Example((Turn("user", "a<end>b"),), "<end>", 2)]

    encoded, _ = encode(tokenizer, examples, 100)
    batch = Collator(tokenizer.pad_token_id)([encoded])

    for row, example in enumerate(examples):
        labels = [label for label in batch["labels"][row].tolist() if label != IGNORED]
        assert tokenizer.decode(labels) == f"{example.answer}<end>"
        assert labels.count(tokenizer.eos_token_id) == 1
        kept = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        assert tokenizer.decode(kept) == f"<user>{example.prompt[0].content}<assistant>{example.answer}<end>"


def test_an_example_that_is_too_long_is_left_out_and_named() -> None:
    examples = [Example((Turn("user", "why" * length),), "so", length) for length in (1, 9)]

    encoded, too_long = encode(tiny_tokenizer(), examples, 20)

    assert ([one.line for one in encoded], too_long) == ([1], [9])


def test_every_epoch_shows_every_example_once_in_another_order() -> None:
    batches = training_batches(ENCODED, batch_size=8, epochs=2, seed=3)
    epochs = [[one.line for batch in half for one in batch] for half in (batches[:7], batches[7:])]

    assert all(Counter(epoch) == Counter(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_order_is_the_seed_s() -> None:
    def lines(seed: int) -> list[list[int]]:
        return [[one.line for one in batch] for batch in training_batches(ENCODED, batch_size=8, epochs=1.5, seed=seed)]

    assert lines(1) == lines(1) != lines(2)
    assert len(lines(1)) == 11


def test_batches_are_of_nearly_one_length() -> None:
    batches = sorted_batches(ENCODED, 8)

    lengths = [[len(one.ids) for one in batch] for batch in batches]
    assert sum(map(len, lengths)) == len(ENCODED)
    assert all(max(batch) - min(batch) <= 1 for batch in lengths)
