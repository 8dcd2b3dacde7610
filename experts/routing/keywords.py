"""Which experts' keywords a text holds."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from experts.routing.base import Floats

_WORD = re.compile(r"[a-z0-9][a-z0-9'+#.-]*[a-z0-9+#]|[a-z0-9]")


@lru_cache(maxsize=1 << 16)
def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def words(text: str, limit: int = 4000) -> list[str]:
    """Lower-case words of the first ``limit`` characters, plurals reduced."""
    return [_singular(word) for word in _WORD.findall(text[:limit].lower())]


class KeywordTable:
    """All experts' keywords; those that several experts claim count less.

    ``score`` is 1 - exp(-Σ idf) per expert: nought without a hit, 0.63 for one keyword that is the expert's alone.
    """

    def __init__(self, experts: Sequence[str], keywords: Mapping[str, Sequence[str]]) -> None:
        self._place = {name: place for place, name in enumerate(experts)}
        owners: dict[tuple[str, ...], list[str]] = {}
        for name in experts:
            for keyword in keywords.get(name, ()):
                phrase = tuple(words(keyword))
                if phrase and name not in owners.setdefault(phrase, []):
                    owners[phrase].append(name)
        n = max(len(experts), 1)
        self._owners = owners
        self._weight = {phrase: math.log(1 + n / len(names)) / math.log(1 + n) for phrase, names in owners.items()}
        self._starts = {phrase[0] for phrase in owners}
        self._longest = max((len(phrase) for phrase in owners), default=1)

    def hits(self, text: str) -> dict[str, list[str]]:
        """expert -> the keywords found, each once."""
        return {name: [" ".join(phrase) for phrase in phrases] for name, phrases in self._hits(text).items()}

    def _hits(self, text: str) -> dict[str, list[tuple[str, ...]]]:
        found: dict[str, list[tuple[str, ...]]] = {}
        tokens = words(text)
        for at, token in enumerate(tokens):
            if token not in self._starts:
                continue
            for length in range(1, self._longest + 1):
                phrase = tuple(tokens[at : at + length])
                for name in self._owners.get(phrase, ()):
                    if phrase not in found.setdefault(name, []):
                        found[name].append(phrase)
        return found

    def score(self, texts: Sequence[str]) -> tuple[Floats, list[dict[str, list[str]]]]:
        """``float32[n, E]`` scores in [0, 1), and the keywords found per query."""
        scores = np.zeros((len(texts), len(self._place)), np.float32)
        evidence = []
        for row, text in enumerate(texts):
            hits = self._hits(text)
            for name, phrases in hits.items():
                scores[row, self._place[name]] = 1 - math.exp(-sum(self._weight[phrase] for phrase in phrases))
            evidence.append({name: [" ".join(phrase) for phrase in phrases] for name, phrases in hits.items()})
        return scores, evidence
