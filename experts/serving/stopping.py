"""Where an answer ends: at an end token, or before a string it must not hold."""

from collections.abc import Sequence
from typing import Any

# A character takes at most four bytes, and so at most four tokens of a byte-level vocabulary.
_TOKENS_PER_CHARACTER = 4


class Stops:
    """What ends one row, and its text."""

    def __init__(self, ends: frozenset[int], tokenizer: Any, strings: Sequence[str] = ()) -> None:
        self._ends = ends
        self._tokenizer = tokenizer
        self._strings = [string for string in strings if string]
        self._tail = _TOKENS_PER_CHARACTER * (max(map(len, self._strings), default=0) + 1)

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last token ends the answer, itself or by the string it completes."""
        if tokens[-1] in self._ends:
            return True
        if not self._strings:
            return False
        tail = self._decode(tokens[-self._tail :])
        return any(string in tail for string in self._strings)

    def text(self, tokens: Sequence[int]) -> str:
        """The answer, up to the first of the strings."""
        text = self._decode(tokens)
        found = [place for place in (text.find(string) for string in self._strings) if place >= 0]
        return text[: min(found, default=len(text))]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            [token for token in tokens if token not in self._ends], skip_special_tokens=True
        )
        return text


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens after which the model has nothing more to say, by its generation settings and its tokenizer."""
    named = model.generation_config.eos_token_id
    ids = list(named) if isinstance(named, (list, tuple)) else [named]
    return frozenset(int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None)
