import json
from pathlib import Path

import pytest

from worker.addresses import Addresses, NoStack, addresses, artefacts_url, stack_file
from worker.settings import Settings, load

NOTED = {"database_url": "postgresql://noted/moe", "redis_url": "redis://noted/0"}


@pytest.fixture
def home(workdir: Path) -> Path:
    (workdir / "home").mkdir()
    return workdir / "home"


def given(home: Path, **addresses: str) -> Settings:
    return load(home=home, **addresses)


def test_configured_addresses_are_used_without_a_stack(home: Path) -> None:
    settings = given(home, database_url="postgresql://mine/moe", redis_url="redis://mine/0")
    assert addresses(settings) == Addresses("postgresql://mine/moe", "redis://mine/0")


def test_without_configured_ones_those_of_the_running_stack_are_used(home: Path) -> None:
    stack_file(given(home)).write_text(json.dumps(NOTED))
    assert addresses(given(home)) == Addresses("postgresql://noted/moe", "redis://noted/0")


def test_a_configured_address_wins_over_the_noted_one(home: Path) -> None:
    stack_file(given(home)).write_text(json.dumps(NOTED))
    assert addresses(given(home, redis_url="redis://mine/0")) == Addresses("postgresql://noted/moe", "redis://mine/0")
    assert addresses(given(home, database_url="postgresql://mine/moe")) == Addresses(
        "postgresql://mine/moe", "redis://noted/0"
    )


@pytest.mark.parametrize("configured", [{}, {"database_url": "postgresql://x/y"}, {"redis_url": "redis://x/0"}])
def test_without_a_stack_both_addresses_are_asked_for(home: Path, configured: dict[str, str]) -> None:
    with pytest.raises(NoStack) as error:
        addresses(given(home, **configured))
    assert str(error.value) == (
        f"no stack is running in {home}; start one with `moe up --detach`, or set MOE_DATABASE_URL and MOE_REDIS_URL"
    )


@pytest.mark.parametrize("noted", ["", "{", "{}", "[]", "null", '{"redis_url": "redis://noted/0"}'])
def test_a_damaged_note_counts_as_no_stack(home: Path, noted: str) -> None:
    stack_file(given(home)).write_text(noted)
    with pytest.raises(NoStack):
        addresses(given(home))


def test_files_go_below_home_unless_another_place_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert artefacts_url(given(Path("inner"))) == str(home / "inner" / "artefacts")
    assert artefacts_url(given(home, artefacts_url="s3://bucket/moe")) == "s3://bucket/moe"
