"""The tokenizer of the base model and its chat template."""

from itertools import islice
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from experts.pretraining.corpus import FAMILIES, conversations, held_out
from experts.pretraining.items import is_held_out
from experts.pretraining.packing import PROMPT_WEIGHT, pack
from experts.pretraining.tokens import PAD, encode, train_tokenizer

TALKS = list(islice(conversations(5), 400))
TOKENIZER = train_tokenizer((message["content"] for talk in TALKS for message in talk), 400)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Copy: zork"},
    {"role": "assistant", "content": "zork"},
]


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_any_text_is_given_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"]) == text


def test_training_the_tokenizer_again_gives_the_same_tokens(tmp_path: Path) -> None:
    again = train_tokenizer((message["content"] for talk in TALKS for message in talk), 400)
    assert again.get_vocab() == TOKENIZER.get_vocab()
    assert again.backend_tokenizer.to_str() == TOKENIZER.backend_tokenizer.to_str()


@pytest.mark.parametrize("text", ["say quvox", '"quvox"', "\nquvox", "(quvox)", "7quvox"])
def test_a_word_has_the_same_tokens_wherever_it_stands(text: str) -> None:
    alone, around = TOKENIZER("quvox")["input_ids"], TOKENIZER(text)["input_ids"]
    assert alone in [around[start : start + len(alone)] for start in range(len(around))]


def test_the_generation_prompt_is_a_prefix_of_the_whole_chat() -> None:
    prompt = TOKENIZER.apply_chat_template(CHAT[:2], add_generation_prompt=True, tokenize=False)
    whole = TOKENIZER.apply_chat_template(CHAT, tokenize=False)
    assert isinstance(prompt, str)
    assert isinstance(whole, str)
    assert whole.startswith(prompt)
    assert whole.removeprefix(prompt) == "zork" + TOKENIZER.eos_token


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(jinja2.TemplateError, match="the role is tool"):
        TOKENIZER.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_training_sees_exactly_the_tokens_of_the_template() -> None:
    for talk, tokens in zip(TALKS[:50], encode(TOKENIZER, TALKS[:50]), strict=True):
        rendered = TOKENIZER.apply_chat_template(talk, return_dict=True)
        assert [token for token, _ in tokens] == rendered["input_ids"]


def test_only_answers_and_their_end_are_marked_as_answers() -> None:
    (tokens,) = encode(TOKENIZER, [CHAT])
    assert TOKENIZER.decode([token for token, answer in tokens if answer]) == "zork" + TOKENIZER.eos_token


def test_a_saved_tokenizer_is_the_same_when_it_is_read(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(read, PreTrainedTokenizerFast)
    assert read.padding_side == "left"
    assert read.apply_chat_template(CHAT) == TOKENIZER.apply_chat_template(CHAT)


def test_rows_begin_with_a_conversation_and_padding_counts_for_nothing() -> None:
    pad = TOKENIZER.convert_tokens_to_ids(PAD)
    encoded = [[(7, False), (8, True)], [(9, False)] * 3, [(5, True)] * 9]
    rows = list(pack(encoded, 4, pad))
    assert [row.ids.tolist() for row in rows] == [[7, 8, pad, pad], [9, 9, 9, pad], [5, 5, 5, 5]]
    assert rows[0].weights.tolist() == pytest.approx([PROMPT_WEIGHT, 1, 0, 0])


def test_nothing_that_is_tested_was_trained_on() -> None:
    trained = {message["content"] for talk in islice(conversations(0), 5000) for message in talk}
    for family in FAMILIES:
        tested = {item.prompt for item in held_out(family, 30, seed=0)}
        assert len(tested) == 30
        assert all(map(is_held_out, tested))
        assert not tested & trained
