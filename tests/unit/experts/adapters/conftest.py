"""A tiny base and an adapter trained on it, made once for all tests of this folder."""

from pathlib import Path

import pytest

from experts.adapters.training import Trained, train_adapter
from experts.language.base import Base, BaseSpec, load_base
from tests.tiny_base import save_tiny_base
from tests.unit.experts.adapters.learning import SPEC, TRAIN, VALIDATION


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(BaseSpec(str(save_tiny_base(tmp_path_factory.mktemp("base")))))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the adapter of these tests was trained."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def trained(base: Base, checkpoints: Path) -> Trained:
    return train_adapter(base, TRAIN, VALIDATION, SPEC, folder=checkpoints)
