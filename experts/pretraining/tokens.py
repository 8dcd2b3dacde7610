"""The base model's tokenizer: byte-level BPE with a chat template.

A space is always a token of its own. So a word has the same tokens wherever it stands (after a space, after a quotation
mark, at the start of an answer), and to copy a string is to copy tokens, which is what attention learns first.
"""

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from experts.pretraining.corpus import Conversation

VOCABULARY = 1024
PAD, END = "<|pad|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
# Words of letters, single digits, line breaks with their indentation, and everything else one by one.
_PIECES = r"\p{L}+|\p{N}|\n +|\s|[^\s\p{L}\p{N}]"

# Each turn is its role's token, its text, and the end token, which is also the end of a generated answer.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('the role is ' ~ message['role'] ~ '; it must be system, user or assistant') }}"
    "{% endif %}"
    "{{ '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A tokenizer of at most ``vocabulary`` tokens, 256 of which are bytes, so that every text has tokens."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = PreTokenizers(
        [Split(Regex(_PIECES), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, *ROLES.values()],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES.values()),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerFast, talks: Sequence[Conversation]) -> list[list[tuple[int, bool]]]:
    """For every conversation its tokens, each with whether it belongs to an answer (its end token does as well).

    The tokens are those of the chat template; a test compares the two.
    """
    vocabulary = tokenizer.get_vocab()
    contents = [message["content"] for talk in talks for message in talk]
    pieces = iter(tokenizer(contents, add_special_tokens=False)["input_ids"])
    encoded = []
    for talk in talks:
        tokens: list[tuple[int, bool]] = []
        for message in talk:
            answer = message["role"] == "assistant"
            tokens.append((vocabulary[ROLES[message["role"]]], False))
            tokens += [(token, answer) for token in [*next(pieces), vocabulary[END]]]
        encoded.append(tokens)
    return encoded
