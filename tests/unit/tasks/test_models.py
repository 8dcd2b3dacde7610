from pathlib import Path

import numpy as np
import pytest

from tasks import models
from tasks.models import Resident
from worker.settings import load


def test_a_thing_is_loaded_once() -> None:
    loads = []
    held: Resident[str] = Resident(2)
    for _ in range(3):
        assert held.get("a", lambda: loads.append("a") or "A") == "A"  # type: ignore[func-returns-value]
    assert loads == ["a"]


def test_the_one_unused_for_longest_goes_first() -> None:
    loads: list[str] = []

    def get(key: str) -> None:
        held.get(key, lambda: loads.append(key) or key)  # type: ignore[func-returns-value]

    held: Resident[str] = Resident(2)
    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert loads == ["a", "b", "c", "b"]


def test_what_could_not_be_loaded_is_tried_again() -> None:
    held: Resident[int] = Resident(1)
    with pytest.raises(ZeroDivisionError):
        held.get("a", lambda: 1 // 0)
    assert held.get("a", lambda: 7) == 7


def test_the_encoder_is_that_of_the_settings_and_stays_loaded(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_encoders", Resident(1))
    settings = load(encoder={"name": "hashing"})
    first = models.encoder(settings)
    assert models.encoder(settings) is first
    assert first.name == "hashing"
    assert np.allclose(np.linalg.norm(first.encode(["one", "two"]), axis=1), 1)
