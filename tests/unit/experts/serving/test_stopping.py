"""Where answers end."""

from experts.serving.stopping import Stops, end_tokens
from tests.tiny_base import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
END = frozenset({TOKENIZER.eos_token_id})


def encode(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def reached_after(stops: Stops, tokens: list[int]) -> int | None:
    """How many tokens were made when the answer ended."""
    return next((n for n in range(1, len(tokens) + 1) if stops.reached(tokens[:n])), None)


def test_a_string_stops_as_soon_as_it_is_whole_though_its_characters_take_several_tokens() -> None:
    stops, tokens = Stops(END, TOKENIZER, ("→ö",)), encode("a long answer → and →ö then more")
    assert reached_after(stops, tokens) == len(encode("a long answer → and →ö"))
    assert stops.text(tokens) == "a long answer → and "


def test_the_first_of_several_strings_cuts_the_answer() -> None:
    stops = Stops(END, TOKENIZER, ("two", "one", ""))
    assert stops.text(encode("zero one two")) == "zero "
    assert reached_after(stops, encode("zero one two")) == len("zero one")


def test_without_strings_only_an_end_token_stops() -> None:
    stops, tokens = Stops(END, TOKENIZER), encode("all of it")
    assert reached_after(stops, tokens) is None
    assert stops.reached([*tokens, *END])
    assert stops.text([*tokens, *END]) == "all of it"


def test_end_tokens_are_those_of_the_model_and_of_its_tokenizer() -> None:
    model = tiny_model()
    model.generation_config.eos_token_id = [7, 8]
    assert end_tokens(model, TOKENIZER) == {7, 8, TOKENIZER.eos_token_id}
    model.generation_config.eos_token_id = None
    assert end_tokens(model, TOKENIZER) == END
