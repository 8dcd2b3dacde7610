from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from worker.settings import BadSettings, Settings, load, shown, unknown_variables


@pytest.fixture(autouse=True)
def folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, and no variable of the developer's that a setting could come from."""
    for row in shown(Settings.model_construct()):
        monkeypatch.delenv("MOE_" + row.key.replace(".", "__").upper(), raising=False)
    return workdir


def write(text: str, path: str = "moe.yaml") -> None:
    Path(path).write_text(text)


def values(given: Settings) -> dict[str, Any]:
    return {row.key: row.value for row in shown(given)}


def test_without_a_file_and_without_variables_the_defaults_hold() -> None:
    assert values(load()) == values(Settings.model_construct())
    assert (load().top_k, load().home, load().database_url) == (2, Path(".moe"), None)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write("top_k: 3\nstrategy: from the file\n")
    monkeypatch.setenv("MOE_TOP_K", "4")
    assert (load().top_k, load().strategy) == (4, "from the file")


def test_what_the_program_says_itself_wins_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    write("top_k: 3\n")
    monkeypatch.setenv("MOE_TOP_K", "4")
    assert load(top_k=5).top_k == 5


def test_one_section_can_come_from_the_file_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    write("pipeline:\n  lease_seconds: 7\n  max_attempts: 8\n")
    monkeypatch.setenv("MOE_PIPELINE__MAX_ATTEMPTS", "9")
    pipeline = load().pipeline
    assert (pipeline.lease_seconds, pipeline.max_attempts, pipeline.chunk_size) == (7, 9, 256)


def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    write("top_k: 3\n")
    write("top_k: 6\n", "other.yaml")
    monkeypatch.setenv("MOE_CONFIG", "other.yaml")
    assert load().top_k == 6


@pytest.mark.parametrize("path", ["missing.yaml", "."])
def test_a_named_file_that_is_none_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_CONFIG", path)
    with pytest.raises(BadSettings, match=r"MOE_CONFIG names .* which is not a file"):
        load()


def test_an_empty_file_changes_nothing() -> None:
    write("")
    assert values(load()) == values(Settings.model_construct())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense: 1", "nonsense (MOE_NONSENSE): there is no such setting"),
        ("pipeline:\n  lease: 1", "pipeline.lease (MOE_PIPELINE__LEASE): there is no such setting"),
        ("pipeline: 5", "pipeline (MOE_PIPELINE): Input should be a valid dictionary"),
        ("top_k: many", "top_k (MOE_TOP_K): Input should be a valid integer"),
        ("pipeline:\n  max_attempts: 0", "pipeline.max_attempts (MOE_PIPELINE__MAX_ATTEMPTS): Input should be greater"),
    ],
)
def test_a_wrong_key_of_the_file_is_named_in_both_spellings(text: str, said: str) -> None:
    write(text)
    with pytest.raises(BadSettings) as error:
        load()
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MOE_LOG_LEVEL", "loud", "log_level (MOE_LOG_LEVEL): Input should be 'debug', 'info', 'warning' or 'error'"),
        ("MOE_ENCODER__DTYPE", "int4", "Input should be 'auto', 'float32', 'bfloat16' or 'float16' (got 'int4')"),
        ("MOE_TOP_K", "0", "top_k (MOE_TOP_K): Input should be greater than 0 (got '0')"),
        ("MOE_TOP_K", "", "top_k (MOE_TOP_K): Input should be a valid integer"),
        ("MOE_TOP_K", "2.5", "top_k (MOE_TOP_K): Input should be a valid integer"),
        ("MOE_PIPELINE__NONSENSE", "1", "pipeline.nonsense (MOE_PIPELINE__NONSENSE): there is no such setting"),
        ("MOE_FLOWER__PORT", "70000", "flower.port (MOE_FLOWER__PORT): Input should be less than or equal to 65535"),
        ("MOE_ROUTING__GATE_WEIGHT", "1.5", "routing.gate_weight (MOE_ROUTING__GATE_WEIGHT): Input should be less"),
        ("MOE_BASE__DTYPE", "int8", "Input should be 'auto', 'float32', 'bfloat16' or 'float16' (got 'int8')"),
        ("MOE_SERVING__MAX_TOKENS", "0", "serving.max_tokens (MOE_SERVING__MAX_TOKENS): Input should be greater"),
        ("MOE_TRAINING__HELD_OUT", "1", "training.held_out (MOE_TRAINING__HELD_OUT): Input should be less than 1"),
        ("MOE_TRAINING__HELD_OUT", "0", "training.held_out (MOE_TRAINING__HELD_OUT): Input should be greater than 0"),
        ("MOE_TRAINING__MIN_EXAMPLES", "1", "Input should be greater than or equal to 2 (got '1')"),
        ("MOE_TRAINING__LEARNING_RATE", "2", "training.learning_rate (MOE_TRAINING__LEARNING_RATE): Input should be"),
        ("MOE_TRAINING__FLOOR", "1.5", "training.floor (MOE_TRAINING__FLOOR): Input should be less than or equal to 1"),
        ("MOE_TRAINING__MAX_SECONDS", "inf", "training.max_seconds (MOE_TRAINING__MAX_SECONDS): "),
        ("MOE_TRAINING__EPOCHS", "inf", "training.epochs (MOE_TRAINING__EPOCHS): "),
        ("MOE_PIPELINE__LEASE_SECONDS", "nan", "pipeline.lease_seconds (MOE_PIPELINE__LEASE_SECONDS): "),
        ("MOE_PIPELINE__LEASE_SECONDS", "inf", "pipeline.lease_seconds (MOE_PIPELINE__LEASE_SECONDS): "),
    ],
)
def test_a_wrong_variable_is_named_with_what_would_be_right(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings) as error:
        load()
    assert said in str(error.value)


def test_how_experts_learn_comes_from_the_file_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    write("training:\n  rank: 4\n  target_modules: [q_proj]\n  folder: checkpoints\nbase:\n  name: /models/mistral\n")
    monkeypatch.setenv("MOE_TRAINING__EPOCHS", "2.5")
    monkeypatch.setenv("MOE_TRAINING__TARGET_MODULES", '["k_proj", "v_proj"]')
    found = load()
    assert (found.training.rank, found.training.epochs, found.training.alpha) == (4, 2.5, None)
    assert found.training.target_modules == ["k_proj", "v_proj"]
    assert (found.training.folder, found.base.name) == (Path("checkpoints"), "/models/mistral")


def test_nothing_is_said_of_a_training_that_goes_by_the_size_of_the_base() -> None:
    training = load().training
    names = ("rank", "alpha", "target_modules", "learning_rate", "epochs", "batch_size", "max_length", "max_seconds")
    assert [getattr(training, name) for name in names] == [None] * len(names)


def test_every_wrong_key_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    write("nonsense: 1\ntop_k: many\n")
    monkeypatch.setenv("MOE_LOG_LEVEL", "loud")
    with pytest.raises(BadSettings) as error:
        load()
    assert sorted(line.split(" ")[0] for line in str(error.value).splitlines()) == ["log_level", "nonsense", "top_k"]


@pytest.mark.parametrize(
    "content", [b"a: [", b"[1, 2]", b"5", b"just words", b"\x00", b"\xff\xfe\xfa", b"a: 1\n\ta: 2"]
)
def test_a_file_that_is_no_mapping_of_settings_is_an_error_that_names_it(content: bytes) -> None:
    Path("moe.yaml").write_bytes(content)
    with pytest.raises(BadSettings, match=r"moe\.yaml"):
        load()


def test_a_section_that_is_not_json_is_not_blamed_on_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_PIPELINE", "{")
    with pytest.raises(BadSettings) as error:
        load()
    assert "pipeline" in str(error.value)
    assert "moe.yaml" not in str(error.value)


def test_settings_cannot_be_changed_once_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().top_k = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        load().pipeline.max_attempts = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", ["MOE_DATABASE_URL", "MOE_REDIS_URL", "MOE_ARTEFACTS_URL"])
def test_an_empty_address_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    assert getattr(load(), name.removeprefix("MOE_").lower()) is None


def test_variables_that_are_no_setting_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MOE_TOPK",
        "MOE_PIPELIN__LEASE_SECONDS",
        "MOE_TOP_K",
        "MOE_ENCODER__NAME",
        "MOE_CONFIG",
        "MOE_FAULTS",
    ):
        monkeypatch.setenv(name, "1")
    assert unknown_variables() == ["MOE_PIPELIN__LEASE_SECONDS", "MOE_TOPK"]


def test_every_setting_is_shown_once_with_what_it_means() -> None:
    rows = shown(load())
    assert len({row.key for row in rows}) == len(rows)
    assert {"home", "pipeline.lease_seconds", "flower.password", "concurrency.training"} <= {row.key for row in rows}
    assert not any(isinstance(row.value, SecretStr) for row in rows)


@pytest.mark.parametrize(
    ("key", "secret", "seen"),
    [
        ("database_url", "postgresql://moe:geheim@db:5432/moe", "postgresql://moe:***@db:5432/moe"),
        ("database_url", "postgresql://moe@db/moe", "postgresql://moe@db/moe"),
        ("database_url", "postgresql://moe:ge/he:im@db/moe", "postgresql://moe:***@db/moe"),
        ("database_url", "postgresql://moe:@/moe?host=/run/geh", "postgresql://moe:***@/moe?host=/run/geh"),
        ("redis_url", "redis://:geheim@cache:6379/0", "redis://:***@cache:6379/0"),
    ],
)
def test_a_secret_is_shown_without_what_is_secret(key: str, secret: str, seen: str) -> None:
    assert values(load(**{key: secret}))[key] == seen


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("flower", {"password": "geheim"}),
        ("redis_url", "redis://:pass@geheim@cache:6379/0"),
        ("database_url", "postgresql://db/moe?user=moe&password=geheim"),
        ("database_url", "postgresql://moe@tenant:geheim@db/moe"),
    ],
)
def test_no_part_of_a_password_is_shown_wherever_it_stands(key: str, secret: Any) -> None:
    """All of these are addresses that the drivers take."""
    given = load(**{key: secret})
    assert not [row for row in shown(given) if "geheim" in str(row.value)]
    assert "geheim" not in repr(given)


@given(
    password=st.text(
        st.characters(codec="ascii", exclude_characters="@?#", categories=["L", "N", "P", "S"]), min_size=4
    )
)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_whatever_the_password_it_is_not_shown(password: str) -> None:
    given_settings = Settings.model_construct(redis_url=SecretStr(f"redis://:{password}@cache:6379/0"))
    assert values(given_settings)["redis_url"] == "redis://:***@cache:6379/0"
