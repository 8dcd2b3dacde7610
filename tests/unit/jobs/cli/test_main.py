"""The command as a whole: settings, their errors, exit codes."""

import json
import re
from pathlib import Path

import pytest

from tests.unit.jobs.cli.conftest import Moe
from worker.runtime import Runtime

SECRET = "CANARY-7f3a"


def test_every_command_has_help(moe: Moe) -> None:
    groups = [
        (),
        ("batch",),
        ("experts",),
        ("experts", "docs"),
        ("router",),
        ("jobs",),
        ("schedule",),
        ("gaps",),
        ("config",),
        ("db",),
    ]
    for group in groups:
        said = moe(*group, "--help", code=0)
        assert re.search(r"Usage: .*\bmoe\b", said.text)  # before it the module the tests were started with
    assert moe(code=2).out or moe(code=2).err


@pytest.mark.parametrize("arguments", [("nonsense",), ("batch", "nonsense"), ("--nonsense",), ("batch", "status")])
def test_what_is_no_command_ends_in_code_2(moe: Moe, arguments: tuple[str, ...]) -> None:
    said = moe(*arguments, code=2)
    assert said.out == b""


# moe config show


def test_every_setting_is_shown_with_its_value(moe: Moe, monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    Path("moe.yaml").write_text("top_k: 4\npipeline: {lease_seconds: 7.5}\n")
    monkeypatch.setenv("MOE_TOP_K", "5")
    found = moe("config", "show", "--json").json
    assert (found["top_k"], found["pipeline.lease_seconds"], found["strategy"]) == (5, 7.5, "weighted")
    assert {key.split(".")[0] for key in found} == {
        "home",
        "database_url",
        "redis_url",
        "artefacts_url",
        "log_level",
        "log_format",
        "top_k",
        "strategy",
        "pipeline",
        "input",
        "encoder",
        "routing",
        "engine",
        "base",
        "serving",
        "remote",
        "training",
        "concurrency",
        "flower",
    }
    shown = moe("config", "show", code=0).text
    assert [line.split()[:2] for line in shown.splitlines() if line.startswith("top_k")] == [["top_k", "5"]]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("MOE_DATABASE_URL", f"postgresql://moe:{SECRET}@db.local:5432/moe", "postgresql://moe:***@db.local:5432/moe"),
        ("MOE_DATABASE_URL", f"postgresql://moe:{SECRET}%40@db/moe", "postgresql://moe:***@db/moe"),
        ("MOE_DATABASE_URL", f"postgresql://moe:x@{SECRET}@db/moe", None),
        ("MOE_DATABASE_URL", f"postgresql://moe:x/{SECRET}@db/moe", None),
        ("MOE_DATABASE_URL", f"postgresql://moe@db/moe?password={SECRET}", None),
        ("MOE_DATABASE_URL", f"postgresql://db/moe?sslmode=require&password={SECRET}&user=moe", None),
        ("MOE_REDIS_URL", f"redis://:{SECRET}@cache:6379/1", "redis://:***@cache:6379/1"),
        ("MOE_REDIS_URL", f"rediss://default:{SECRET}@cache", "rediss://default:***@cache"),
        ("MOE_REDIS_URL", f"redis://cache/0?password={SECRET}", None),
        ("MOE_FLOWER__PASSWORD", SECRET, "***"),
        ("MOE_FLOWER__PASSWORD", f"a://{SECRET}", "***"),
        ("MOE_ARTEFACTS_URL", f"sftp://moe:{SECRET}@files/moe", "sftp://moe:***@files/moe"),
    ],
)
def test_secrets_are_masked(
    moe: Moe, monkeypatch: pytest.MonkeyPatch, name: str, value: str, shown: str | None
) -> None:
    monkeypatch.setenv(name, value)
    said = moe("config", "show", "--json", code=0)
    key = name.removeprefix("MOE_").lower().replace("__", ".")
    assert SECRET not in said.text
    if shown is not None:
        assert said.json[key] == shown
    assert SECRET not in moe("config", "show", code=0).text


# Settings that cannot be


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("MOE_TOP_K", "", "top_k (MOE_TOP_K)"),
        ("MOE_TOP_K", "0", "top_k (MOE_TOP_K)"),
        ("MOE_TOP_K", "many", "top_k (MOE_TOP_K)"),
        ("MOE_TOP_K", "\uff11", "top_k (MOE_TOP_K)"),
        ("MOE_LOG_LEVEL", "loud", "log_level (MOE_LOG_LEVEL)"),
        ("MOE_PIPELINE__LEASE_SECONDS", "-1", "pipeline.lease_seconds (MOE_PIPELINE__LEASE_SECONDS)"),
        ("MOE_PIPELINE__LEASE_SECONDS", "nan", "pipeline.lease_seconds (MOE_PIPELINE__LEASE_SECONDS)"),
        ("MOE_PIPELINE__NONSENSE", "1", "pipeline.nonsense (MOE_PIPELINE__NONSENSE)"),
        ("MOE_PIPELINE", "x", "pipeline"),
        ("MOE_ROUTING__GATE_WEIGHT", "1.5", "routing.gate_weight (MOE_ROUTING__GATE_WEIGHT)"),
        ("MOE_FLOWER__PORT", "70000", "flower.port (MOE_FLOWER__PORT)"),
    ],
)
@pytest.mark.parametrize("command", [("config", "show"), ("batch", "list"), ("doctor",), ("status",)])
def test_a_wrong_variable_is_named_and_ends_in_code_2(
    moe: Moe, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], name: str, value: str, key: str
) -> None:
    monkeypatch.setenv(name, value)
    said = moe(*command, "--json", code=2)
    error = json.loads(said.err)["error"]
    assert error["code"] == "bad_settings"
    assert key in error["message"]
    assert said.out == b""


def test_all_wrong_settings_are_named_at_once(moe: Moe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_TOP_K", "0")
    monkeypatch.setenv("MOE_LOG_LEVEL", "loud")
    err = moe("config", "show", code=2).err
    assert "MOE_TOP_K" in err
    assert "MOE_LOG_LEVEL" in err


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"top_k: [", "moe.yaml"),
        (b"top_k: 1\n  x: 2\n", "moe.yaml"),
        (b"\tx: 1", "moe.yaml"),
        (b"- a\n- b\n", "moe.yaml"),
        (b'"just text"', "moe.yaml"),
        (b"\xff\xfe", "moe.yaml"),
        (b"a: \x00", "moe.yaml"),
        (b"!!python/object/apply:os.system ['true']", "moe.yaml"),
        (b"topk: 3", "topk"),
        (b"pipeline: 3", "pipeline"),
        (b"pipeline: {lease: 3}", "pipeline.lease"),
        (b"top_k: many", "top_k"),
        (b"top_k: null", "top_k"),
    ],
)
def test_a_wrong_file_is_named_and_ends_in_code_2(moe: Moe, workdir: Path, data: bytes, named: str) -> None:
    """72."""
    Path("moe.yaml").write_bytes(data)
    said = moe("config", "show", "--json", code=2)
    error = json.loads(said.err)["error"]
    assert error["code"] == "bad_settings"
    assert named in error["message"]


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"---\n", b"{}"])
def test_a_file_without_settings_sets_nothing(moe: Moe, workdir: Path, data: bytes) -> None:
    Path("moe.yaml").write_bytes(data)
    assert moe("config", "show", "--json").json["top_k"] == 2


@pytest.mark.parametrize("value", ["missing.yaml", "."])
def test_a_file_that_is_named_and_not_there_ends_in_code_2(
    moe: Moe, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("MOE_CONFIG", value)
    assert moe("config", "show", code=2).err == f"error: MOE_CONFIG names {value}, which is not a file\n"


@pytest.mark.parametrize(
    "text", [f"flower: {{password: [{SECRET}]}}", f"database_url: [{SECRET}]", f"redis_url: {{x: {SECRET}}}"]
)
def test_a_secret_in_the_wrong_form_is_named_and_not_shown(
    moe: Moe, workdir: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv("MOE_DATABASE_URL")
    monkeypatch.delenv("MOE_REDIS_URL")
    Path("moe.yaml").write_text(text)
    err = moe("config", "show", code=2).err
    assert text.split(":")[0] in err
    assert SECRET not in err


def test_a_password_of_digits_is_not_shown(moe: Moe, workdir: Path) -> None:
    """Without quotes YAML takes it for a number."""
    Path("moe.yaml").write_text("flower: {password: 73573573}")
    said = moe("config", "show")
    assert "73573573" not in said.err + said.text


@pytest.mark.parametrize(
    "value", ["nonsense", f"mysql://moe:{SECRET}@db/moe", "://", f"postgresql://moe:{SECRET}@db:port/x"]
)
@pytest.mark.parametrize("command", [("batch", "list"), ("db", "current"), ("experts", "list")])
def test_a_database_address_that_is_none_is_named_and_ends_in_code_2(
    moe: Moe, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], value: str
) -> None:
    monkeypatch.setenv("MOE_DATABASE_URL", value)
    err = moe(*command, code=2).err
    assert "database_url" in err
    assert SECRET not in err


def test_a_redis_address_that_is_none_is_named_and_ends_in_code_2(moe: Moe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_REDIS_URL", f"http://:{SECRET}@cache")
    err = moe("status", code=2).err
    assert "redis_url" in err
    assert SECRET not in err


def test_without_a_stack_the_next_step_is_told(moe: Moe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_DATABASE_URL", "")
    said = moe("batch", "list", "--json", code=1)
    error = json.loads(said.err)["error"]
    assert error["code"] == "no_stack"
    assert "start one with `moe up --detach`" in error["message"]


# moe doctor


def test_the_doctor_tells_what_fails_by_its_code(moe: Moe, monkeypatch: pytest.MonkeyPatch, client: Runtime) -> None:
    found = moe("doctor", "--json").json
    assert {frozenset(check) for check in found} == {frozenset({"check", "state", "found"})}
    assert "  ok  strategy: weighted\n" in moe("doctor", code=0).text
    monkeypatch.setenv("MOE_STRATEGY", "best")
    said = moe("doctor", code=1)
    assert "fail  strategy: 'best' is none of weighted\n" in said.text


def test_a_question_nobody_answers_ends_in_code_1(moe: Moe, client: Runtime) -> None:
    said = moe("ask", "What?", "--timeout", "0.1", "--json", code=1)
    assert json.loads(said.err) == {
        "error": {"code": "failed", "message": "no answer within 0 s; `moe status` shows which workers run"}
    }


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "x"])
def test_a_time_out_that_is_none_ends_in_code_2(moe: Moe, client: Runtime, timeout: str) -> None:
    assert "--timeout" in moe("ask", "What?", "--timeout", timeout, code=2).err
