"""Examples of training sets, as they lie in the artefact store."""

import hashlib
from collections.abc import Sequence

from experts.adapters.data import Example
from experts.adapters.stored import from_lines, to_line
from storage.artefacts import ArtefactStore
from storage.training_sets import NewSet, Purpose


def read(store: ArtefactStore, place: str) -> list[Example]:
    """The examples stored at ``place``. Raises ArtefactDamaged, CannotTrain."""
    with store.open(place) as lines:
        return from_lines(lines)


def put(store: ArtefactStore, expert: str, purpose: Purpose, examples: Sequence[Example]) -> NewSet:
    """Put examples where every worker can read them; the same examples lie in the same place."""
    lines = [to_line(example) for example in examples]
    sha256 = hashlib.sha256(b"".join(lines)).hexdigest()
    place = f"training/{expert}/{purpose}-{sha256[:32]}.jsonl"
    store.put_file(place, lines)
    return NewSet(purpose, place, sha256, len(examples))
