"""What a kind of router is: one class, in a file of its own under ``experts.routing.kinds``, with one method.

The file's name is the kind's name; putting it there registers it. Evidence, the experts' own assessment, coverage,
calibration, files and explanations are the same for every kind and are not its business.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from experts.routing.base import Floats
from experts.routing.known import Known, Queries

Arrays = Mapping[str, NDArray[Any]]


class Kind(ABC):
    """A way to score experts. Subclasses define ``score``, and ``learn`` where exemplars alone do not say it all."""

    needs_vectors: ClassVar[bool] = True

    def __init__(self, known: Known, learned: Arrays) -> None:
        """``learned`` is what ``learn`` gave for the same exemplars."""
        self.known = known
        self.learned = learned

    @staticmethod
    def learn(known: Known, *, top_k: int, seed: int) -> Arrays:
        """Tensors to be stored with the router and handed back to the constructor."""
        return {}

    @abstractmethod
    def score(self, queries: Queries) -> Floats:
        """Log-probability that each expert is the right one, float32[n, E]."""
