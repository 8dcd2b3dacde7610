"""How well the words of a passage match those of a query."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from experts.routing.keywords import words

_SATURATION = 1.2
_LENGTH_SHARE = 0.75
_BEYOND = np.iinfo(np.int64).max


class WordIndex:
    """BM25 (Robertson and Zaragoza, 2009; k1 = 1.2, b = 0.75) over ``texts``, for passages that were found already.

    Kept as one sorted list of (passage, word) pairs, 12 bytes each.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counted = [Counter(words(text)) for text in texts]
        self._word = {word: place for place, word in enumerate(sorted(set().union(*counted)))}
        lengths = np.array([count.total() for count in counted], np.float64)
        passage = np.repeat(np.arange(len(texts)), [len(count) for count in counted])
        word = np.array([self._word[w] for count in counted for w in count], np.int64)
        times = np.array([n for count in counted for n in count.values()], np.float64)

        holding = np.bincount(word, minlength=len(self._word))
        rarity = np.log1p((len(texts) - holding + 0.5) / (holding + 0.5))
        relative = (lengths / max(float(lengths.mean()), 1.0) if len(texts) else lengths)[passage]
        damped = _SATURATION * (1 - _LENGTH_SHARE + _LENGTH_SHARE * relative)
        weights = rarity[word] * times * (_SATURATION + 1) / (times + damped)

        keys = passage * len(self._word) + word
        order = np.argsort(keys)
        # The last pair is no passage's: a search for what is not there must end somewhere.
        self._keys = np.append(keys[order], _BEYOND)
        self._weights = np.append(weights[order], 0.0).astype(np.float32)

    def score(self, queries: Sequence[str], passages: NDArray[np.int64]) -> NDArray[np.float32]:
        """``float32[n, r]`` for the places ``passages`` int64[n, r] of n queries; 0 for place -1 and without a match.

        A word that a query repeats counts once.
        """
        scores = np.zeros(passages.shape, np.float32)
        for row, (query, found) in enumerate(zip(queries, passages, strict=True)):
            known = [place for w in dict.fromkeys(words(query)) if (place := self._word.get(w)) is not None]
            wanted = found[:, None] * len(self._word) + np.array(known, np.int64)
            at = np.searchsorted(self._keys, wanted)
            scores[row] = (self._weights[at] * (self._keys[at] == wanted)).sum(axis=1)
        return scores
