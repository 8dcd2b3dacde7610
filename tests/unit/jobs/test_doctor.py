"""Checks of the environment."""

from pathlib import Path
from typing import Any

import pytest

from jobs.doctor import Check, examine
from worker.settings import load

SECRET = "CANARY-secret"


@pytest.fixture
def checks(jobs_database: str, jobs_redis: str, workdir: Path) -> Any:
    """The checks by name; keywords are settings."""

    def examined(**settings: Any) -> dict[str, Check]:
        given = {"home": workdir / "home", "database_url": jobs_database, "redis_url": jobs_redis, **settings}
        return {check.name: check for check in examine(load(**{k: v for k, v in given.items() if v is not None}))}

    return examined


def test_a_sound_environment_fails_nowhere(checks: Any) -> None:
    found = checks()
    assert {check.state for check in found.values()} <= {"ok", "warn"}
    assert list(found) == [
        "settings",
        "router kind",
        "engine",
        "strategy",
        "python",
        "memory",
        "files",
        "gpu",
        "model packages",
        "encoder",
        "postgres",
        "redis",
    ]
    assert found["settings"].found == "environment and defaults"
    assert found["router kind"] == Check("router kind", "ok", "ensemble")
    assert found["strategy"] == Check("strategy", "ok", "weighted")


@pytest.mark.parametrize(
    ("settings", "name", "found"),
    [
        ({"strategy": "best"}, "strategy", "'best' is none of weighted"),
        ({"engine": {"default": "gpt"}}, "engine", "'gpt' is none of extractive, echo, transformers, openai"),
        (
            {"routing": {"kind": "magic"}},
            "router kind",
            "'magic' is none of centroid, ensemble, heuristic, knn, neural, random",
        ),
    ],
)
def test_an_unknown_kind_fails(checks: Any, settings: dict[str, Any], name: str, found: str) -> None:
    assert checks(**settings)[name] == Check(name, "fail", found)


def test_misspelt_variables_are_told(checks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_TOPK", "3")
    monkeypatch.setenv("MOE_PIPLINE__LEASE_SECONDS", "3")
    assert checks()["environment"] == Check(
        "environment", "warn", "not settings, and ignored: MOE_PIPLINE__LEASE_SECONDS, MOE_TOPK"
    )


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_password_that_others_can_read_is_told(checks: Any, workdir: Path, mode: int, warned: bool) -> None:
    """72."""
    (workdir / "moe.yaml").write_text("flower: {password: sesame}\n")
    (workdir / "moe.yaml").chmod(mode)
    found = checks()
    assert found["settings"].found == "moe.yaml and environment"
    assert ("settings file" in found) is warned
    if warned:
        assert "chmod 600 it" in found["settings file"].found
        assert "sesame" not in found["settings file"].found


def test_without_a_stack_the_next_step_is_told(checks: Any) -> None:
    found = checks(database_url=None, redis_url=None)
    assert found["stack"].state == "warn"
    assert "start one with `moe up --detach`" in found["stack"].found
    assert "postgres" not in found


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"database_url": f"postgresql://moe:{SECRET}@127.0.0.1:1/moe"}, "postgres"),
        ({"redis_url": f"redis://:{SECRET}@127.0.0.1:1/0"}, "redis"),
    ],
    ids=["postgres away", "redis away"],
)
@pytest.mark.timeout(30)
def test_a_server_that_cannot_be_reached_fails_and_keeps_its_password(
    checks: Any, settings: dict[str, Any], name: str
) -> None:
    found = checks(**settings)
    assert found[name].state == "fail"
    assert SECRET not in found[name].found


def test_an_encoder_that_is_not_here_is_told(checks: Any, workdir: Path) -> None:
    (workdir / "model").mkdir()
    assert checks(encoder={"name": "hashing"})["encoder"] == Check("encoder", "ok", "hashing (no model)")
    assert checks(encoder={"name": "model"})["encoder"] == Check("encoder", "ok", "folder model")
    assert checks(encoder={"name": "elsewhere"})["encoder"].state == "warn"


def test_a_place_for_files_that_cannot_be_made_fails(checks: Any, workdir: Path) -> None:
    (workdir / "file").touch()
    assert checks(artefacts_url=str(workdir / "file" / "below"))["files"].state == "fail"
