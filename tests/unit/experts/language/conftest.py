"""A tiny base on disk, for the tests of what loads and prompts it."""

from pathlib import Path

import pytest

from tests.tiny_base import save_tiny_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_base(tmp_path / "base")
