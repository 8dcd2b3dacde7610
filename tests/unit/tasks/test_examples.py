from pathlib import Path

import pytest

from experts.errors import CannotTrain
from storage.artefacts import ArtefactStore
from storage.errors import ArtefactDamaged
from tasks import examples
from tests.unit.tasks.learning import EVALUATION, TRAIN


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(str(tmp_path / "artefacts"), tmp_path / "cache")


def test_examples_come_back_in_order(store: ArtefactStore) -> None:
    new = examples.put(store, "twice", "train", TRAIN)

    assert (new.purpose, new.n_examples) == ("train", len(TRAIN))
    assert examples.read(store, new.artefact) == TRAIN


def test_the_same_examples_lie_in_the_same_place_and_others_elsewhere(store: ArtefactStore) -> None:
    new = examples.put(store, "twice", "train", TRAIN)

    assert examples.put(store, "twice", "train", list(TRAIN)) == new
    assert examples.read(store, new.artefact) == TRAIN
    others = [
        examples.put(store, "twice", "train", TRAIN[1:]),
        examples.put(store, "twice", "train", TRAIN[::-1]),
        examples.put(store, "twice", "evaluation", TRAIN),
        examples.put(store, "again", "train", TRAIN),
    ]
    assert len({new.artefact, *(other.artefact for other in others)}) == 5
    assert len({new.sha256, *(other.sha256 for other in others)}) == 3


def test_examples_that_are_gone_or_broken_are_named(store: ArtefactStore) -> None:
    with pytest.raises(ArtefactDamaged, match=r"training/nowhere\.jsonl is missing"):
        examples.read(store, "training/nowhere.jsonl")
    new = examples.put(store, "twice", "evaluation", EVALUATION)
    with store.open(new.artefact) as file:
        whole = file.read()
    store.put_file(new.artefact, [whole[:-9]])
    with pytest.raises(CannotTrain, match=f"line {len(EVALUATION)} of the stored examples is no example"):
        examples.read(store, new.artefact)
