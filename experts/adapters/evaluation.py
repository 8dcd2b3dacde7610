"""What an expert's answers are worth, and whether they are better than others' by more than chance."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experts.adapters.data import Example
from experts.encoders.base import Vectors
from experts.evaluation.metrics import Difference, paired

Similarity = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Lower case, without punctuation, articles and extra spaces.

    As ``normalize_answer`` of SQuAD's evaluation script does (Rajpurkar et al. 2016, evaluate-v1.1.py).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, expected: str) -> bool:
    """Whether both are the same when normalised as in SQuAD.

    Where nothing is left of one of them, as of Morse code, the texts themselves are compared, spaces apart.
    """
    ours, theirs = normalized(answer), normalized(expected)
    return ours == theirs if ours and theirs else verbatim(answer, expected)


def verbatim(answer: str, expected: str) -> bool:
    """Whether both are the same but for spaces: the measure for code and symbols."""
    return answer.split() == expected.split()


def token_f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall of the normalised words, as in SQuAD's evaluation script."""
    ours, theirs = normalized(answer).split(), normalized(expected).split()
    if not ours or not theirs:
        return float(verbatim(answer, expected))
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def embedding_similarity(encode: Callable[[Sequence[str]], Vectors]) -> Similarity:
    """A measure from -1 to 1: the cosine of the embeddings, which ``encode`` gives with length one."""

    def measure(answers: Sequence[str], expected: Sequence[str]) -> NDArray[np.float64]:
        cosines = np.einsum("nd,nd->n", encode(answers), encode(expected), dtype=np.float64)
        return np.asarray(cosines, np.float64)

    return measure


@dataclass(frozen=True, slots=True)
class Score:
    """One answer against the expected one; ``similarity`` is None where it was not measured."""

    line: int
    answer: str
    expected: str
    exact: bool
    verbatim: bool
    f1: float
    similarity: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one expert on some examples, in their order."""

    scores: tuple[Score, ...]

    @property
    def exact(self) -> float:
        """Share of exact answers."""
        return _mean([score.exact for score in self.scores])

    @property
    def verbatim(self) -> float:
        """Share of answers right to the letter."""
        return _mean([score.verbatim for score in self.scores])

    @property
    def f1(self) -> float:
        """Mean F1 of words."""
        return _mean([score.f1 for score in self.scores])

    @property
    def similarity(self) -> float | None:
        """Mean similarity; None where it was not measured."""
        found = [score.similarity for score in self.scores if score.similarity is not None]
        return _mean(found) if found else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One expert less another on the same examples, with 95 % intervals; p is McNemar's exact test of ``exact``."""

    exact: Difference
    f1: Difference


def evaluate(
    generate: Callable[[Sequence[Example]], list[str]],
    examples: Sequence[Example],
    similarity: Similarity | None = None,
) -> Evaluation:
    """The scores of what ``generate`` answers to ``examples``."""
    answers = generate(examples)
    expected = [example.answer for example in examples]
    alike = similarity(answers, expected).tolist() if similarity and examples else [None] * len(examples)
    return Evaluation(
        tuple(
            Score(
                line=example.line,
                answer=answer,
                expected=example.answer,
                exact=exact_match(answer, example.answer),
                verbatim=verbatim(answer, example.answer),
                f1=token_f1(answer, example.answer),
                similarity=value,
            )
            for example, answer, value in zip(examples, answers, alike, strict=True)
        )
    )


def compare(expert: Evaluation, base: Evaluation) -> Comparison:
    """How much better ``expert`` is. Raises ValueError unless both answered the same examples in the same order."""
    if [(s.line, s.expected) for s in expert.scores] != [(s.line, s.expected) for s in base.scores]:
        raise ValueError("two evaluations are compared that are not of the same examples in the same order")
    return Comparison(
        exact=paired(_array([s.exact for s in expert.scores]) > 0, _array([s.exact for s in base.scores]) > 0),
        f1=paired(_array([s.f1 for s in expert.scores]), _array([s.f1 for s in base.scores])),
    )


def _array(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
