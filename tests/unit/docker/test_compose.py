"""The compose file and the Dockerfile, checked against each other and against the program."""

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url
from typer.main import get_command

from jobs.cli.main import app
from tests.unit.docker import reading
from tests.unit.docker.reading import ROOT, Required, effective, exec_form, ours, services
from worker.roles import ROLES
from worker.settings import Settings, load, shown

FILLED = {"POSTGRES_PASSWORD": "aaa", "REDIS_PASSWORD": "bbb", "MOE_FLOWER__PASSWORD": "ccc"}
OURS = sorted(ours())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def variable(key: str) -> str:
    """``pipeline.lease_seconds`` as it is written in the environment."""
    return "MOE_" + key.replace(".", "__").upper()


DEFAULTS = {variable(row.key): row.value for row in shown(Settings.model_construct())}


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command line understands of these arguments; fails where they are no command."""
    command: Any = get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        assert rest[0] in command.commands, f"`moe` has no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    context = command.make_context("moe", rest)
    return {"command": command.name, **context.params}


def test_the_system_consists_of_these_services() -> None:
    assert set(services()) == {
        "postgres",
        "redis",
        "migrate",
        "control",
        "router",
        "expert",
        "training",
        "beat",
        "flower",
    }
    assert set(ours()) == set(services()) - {"postgres", "redis"}


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_command_of_the_program(name: str) -> None:
    found = parsed(ours()[name]["command"])
    if found["command"] == "worker":
        assert found["role"] == name
        assert name in ROLES


def test_every_role_has_a_service() -> None:
    commands = [service["command"] for service in ours().values()]
    assert [role for role in ROLES if ["worker", role] not in commands] == []
    assert [command for command in (["db", "upgrade"], ["beat"], ["flower"]) if command not in commands] == []


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_in_the_image_that_holds_what_it_needs(name: str) -> None:
    """Roles that load models have an image of their own; all others share the one without models."""
    loads_models = name in ROLES and ROLES[name].loads_models
    assert ours()[name]["image"] == f"adaptive-moe-{name if loads_models else 'control'}"


def built() -> dict[str, Any]:
    """service -> its build, for those that have one."""
    return {name: service["build"] for name, service in ours().items() if "build" in service}


def test_every_build_names_a_target_of_the_dockerfile() -> None:
    for name, build in built().items():
        assert build["target"] in reading.stages()
        assert ours()[name]["image"] == f"adaptive-moe-{build['target']}"
        assert (reading.FOLDER / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()


def test_every_image_that_is_used_is_built() -> None:
    assert {ours()[name]["image"] for name in built()} == {service["image"] for service in ours().values()}


def test_every_image_is_built_by_one_service_only() -> None:
    """Compose builds all services at once; two of them that export one tag fail with "already exists" at the first
    build on a machine with the containerd image store."""
    builders = Counter(ours()[name]["image"] for name in built())
    assert {image: n for image, n in builders.items() if n > 1} == {}


@pytest.mark.parametrize("target", ["control", "router", "expert", "training"])
def test_an_image_by_itself_runs_what_its_service_runs(target: str) -> None:
    assert exec_form(effective(target, "ENTRYPOINT")) == ["moe"]
    assert exec_form(effective(target, "CMD")) == services()[target]["command"]


def test_the_entry_point_is_the_programs_own() -> None:
    assert PROJECT["scripts"] == {"moe": "jobs.cli.main:main"}


@pytest.mark.parametrize("target", ["control", "router", "expert", "training"])
def test_an_image_runs_as_a_user_that_owns_nothing_of_the_program(target: str) -> None:
    assert effective(target, "USER") == "10001:10001"
    base = " ".join(reading.stages()["base"].all("RUN"))
    assert "useradd --uid 10001" in base
    assert "--owner=moe" in base


def test_the_images_python_is_one_the_program_runs_on() -> None:
    image = reading.stages()["base"].parent
    version = re.fullmatch(r"python:3\.(\d+)-slim", image)
    assert version is not None
    assert PROJECT["requires-python"] == ">=3.11"
    assert int(version[1]) >= 11


def test_every_stage_that_is_copied_or_mounted_from_exists() -> None:
    stages = reading.stages()
    for stage in stages.values():
        for instruction in [*stage.all("RUN"), *stage.all("COPY")]:
            for source in re.findall(r"from=([\w-]+)", instruction):
                assert source in stages
        assert stage.parent in stages or ":" in stage.parent


def test_the_models_are_installed_only_below_the_images_that_load_them() -> None:
    stages = reading.stages()

    def instructions(target: str) -> str:
        own = " ".join(text for _, text in stages[target].instructions)
        return own + (instructions(stages[target].parent) if stages[target].parent in stages else "")

    assert {t: "models.txt" in instructions(t) for t in ("control", "router", "expert", "training")} == {
        "control": False,
        "router": True,
        "expert": True,
        "training": True,
    }


def test_everything_the_wheel_is_made_of_is_let_into_the_build() -> None:
    """`.dockerignore` shuts everything out and lets these in; what pyproject names must be there."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    needed = ["pyproject.toml", "constraints.txt", PROJECT["readme"]]
    needed += [f"{folder}/" for folder in ("worker", "tasks", "experts", "jobs", "storage")]
    assert sorted(kept) == sorted(needed)
    assert [name for name in needed if not (ROOT / name).exists()] == []


def test_no_secret_and_no_data_is_let_into_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if line and not line.startswith("#")) == "*"
    assert "**/.env" in lines


def test_redis_keeps_its_messages_on_disk_and_throws_none_away() -> None:
    command = " ".join(services()["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--appendfsync everysec" in command
    assert "--maxmemory-policy noeviction" in command
    assert services()["redis"]["volumes"] == ["redis:/data"]


def test_redis_takes_its_password_where_no_other_user_can_read_it() -> None:
    """Arguments of a process are there for all to see, so it goes in by standard input."""
    script = services()["redis"]["command"][-1]
    arguments, _, rest = script.partition("<<END\n")
    assert "AUTH" not in arguments
    assert rest.startswith('requirepass "$$REDISCLI_AUTH"')


@pytest.mark.parametrize("name", sorted(services()))
def test_a_published_port_is_reached_from_this_machine_only(name: str) -> None:
    for port in services()[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:[^:]*(:-\d+\})?:\d+", port)


def test_only_flower_publishes_a_port() -> None:
    assert [name for name, service in services().items() if service.get("ports")] == ["flower"]
    assert services()["flower"]["ports"] == ["127.0.0.1:${FLOWER_PORT:-5555}:5555"]
    flower = reading.environment(services()["flower"], FILLED)
    assert (flower["MOE_FLOWER__ADDRESS"], flower["MOE_FLOWER__PORT"]) == ("0.0.0.0", "5555")


def test_every_password_must_be_given_and_none_has_a_default() -> None:
    used = reading.variables(reading.compose())
    secrets = {name: how for name, how in used.items() if re.search("PASSWORD|SECRET|TOKEN|KEY", name)}
    assert secrets == {name: {":?"} for name in FILLED}


@pytest.mark.parametrize("missing", sorted(FILLED))
def test_without_a_password_nothing_starts(missing: str) -> None:
    values = {name: value for name, value in FILLED.items() if name != missing}

    def start() -> list[dict[str, str]]:
        return [reading.environment(service, values) for service in services().values()]

    with pytest.raises(Required, match=f"{missing}: set it in docker/.env"):
        start()


def test_the_example_asks_for_exactly_what_is_required() -> None:
    required, _ = reading.example()
    assert required == dict.fromkeys(FILLED, "")


def passed_on() -> set[str]:
    """What is handed to containers and builds where it is set."""
    parts = [service.get("environment", {}) for service in ours().values()]
    parts += [build.get("args", {}) for build in built().values()]
    return {name for part in parts for name, value in part.items() if value is None}


def test_every_variable_of_the_example_is_used() -> None:
    used = set(reading.variables(reading.compose())) | passed_on()
    required, offered = reading.example()
    assert {*required, *offered} - used == set()


def test_every_variable_with_a_default_is_in_the_example_with_it() -> None:
    _, offered = reading.example()
    defaults = {
        name: how.removeprefix(":-")
        for name, uses in reading.variables(reading.compose()).items()
        for how in uses
        if how is not None and how.startswith(":-")
    }
    assert {name: offered.get(name) for name in defaults} == defaults


def test_the_values_the_example_shows_are_those_that_hold_without_it() -> None:
    _, offered = reading.example()
    assert {name: value for name, value in offered.items() if name.startswith("MOE_")} == {
        name: str(DEFAULTS[name]) for name in offered if name.startswith("MOE_")
    }
    (build,) = [arguments for arguments in reading.stages()["model-packages"].all("ARG") if "TORCH" in arguments]
    assert build == f'TORCH_PIP_ARGS="{offered["TORCH_PIP_ARGS"]}"'


def test_every_moe_variable_is_a_setting() -> None:
    named = {name for service in ours().values() for name in service.get("environment", {}) if name.startswith("MOE_")}
    named |= {name for target in reading.stages() for name in reading.image_environment(target) if "MOE_" in name}
    named |= {name for part in reading.example() for name in part if name.startswith("MOE_")}
    assert {"MOE_DATABASE_URL", "MOE_HOME", "MOE_FLOWER__PASSWORD"} <= named
    assert named - set(DEFAULTS) == set()


@pytest.mark.parametrize("name", OURS)
def test_the_environment_of_a_service_makes_good_settings(
    name: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two servers are called by the names of their services, with the passwords these were given."""
    service = ours()[name]
    for key, value in reading.image_environment("control").items():
        monkeypatch.setenv(key, value)
    for key, value in reading.environment(service, FILLED).items():
        monkeypatch.setenv(key, value)
    settings = load()
    assert settings.database_url is not None
    assert settings.redis_url is not None
    database = make_url(settings.database_url.get_secret_value())
    postgres = reading.environment(services()["postgres"], FILLED)
    assert (database.username, database.password) == (postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"])
    assert (database.host, database.port, database.database) == ("postgres", 5432, postgres["POSTGRES_DB"])
    redis = make_url(settings.redis_url.get_secret_value())
    assert (redis.host, redis.port) == ("redis", 6379)
    assert redis.password == reading.environment(services()["redis"], FILLED)["REDISCLI_AUTH"]


@pytest.mark.parametrize("name", OURS)
def test_a_setting_from_the_example_reaches_every_service(name: str) -> None:
    _, offered = reading.example()
    given = {key: "1" for key in offered if key.startswith("MOE_")}
    assert given.items() <= reading.environment(ours()[name], {**FILLED, **given}).items()
    assert not given.keys() & reading.environment(ours()[name], FILLED).keys()


def test_all_services_share_the_folder_where_files_are_kept() -> None:
    place = reading.environment(ours()["control"], FILLED)["MOE_ARTEFACTS_URL"]
    assert [name for name in OURS if f"artefacts:{place}" not in ours()[name]["volumes"]] == []
    assert place in " ".join(reading.stages()["base"].all("RUN"))
    assert place.startswith(reading.image_environment("control")["MOE_HOME"])


def test_every_volume_is_declared_and_used() -> None:
    mounted = {volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])}
    assert mounted == set(reading.compose()["volumes"]) == {"postgres", "redis", "artefacts"}


def test_postgres_keeps_its_data_where_its_image_looks_for_it() -> None:
    """From 18 on the image keeps it in a folder per version; a volume on the old path stays empty."""
    assert services()["postgres"]["image"] == "postgres:18"
    assert services()["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


@pytest.mark.parametrize("name", sorted(services()))
def test_a_service_waits_only_for_what_can_tell_that_it_is_ready(name: str) -> None:
    for other, how in services()[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "test" in services()[other]["healthcheck"]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert services()[other]["restart"] == "no"


@pytest.mark.parametrize("name", [name for name in OURS if name != "migrate"])
def test_a_service_waits_for_the_migration_and_for_redis(name: str) -> None:
    assert set(services()[name]["depends_on"]) == {"migrate", "redis"}
    assert services()[name]["restart"] == "unless-stopped"


def test_the_migration_waits_for_postgres() -> None:
    assert services()["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", OURS)
def test_a_container_of_ours_has_no_rights_to_spare(name: str) -> None:
    service = services()[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert not {"privileged", "network_mode", "pid", "cap_add"} & set(service)


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_a_server_is_of_a_named_version(name: str) -> None:
    assert re.fullmatch(r"\w+:\d+", services()[name]["image"])


@pytest.mark.parametrize("name", ["control", "router", "expert"])
def test_a_role_that_can_be_scaled_has_its_number_in_the_environment(name: str) -> None:
    assert services()[name]["deploy"] == {"replicas": f"${{{name.upper()}_REPLICAS:-1}}"}
    assert "container_name" not in services()[name]


@pytest.mark.parametrize("name", sorted(ROLES))
def test_a_worker_has_time_to_finish_what_it_is_at(name: str) -> None:
    """What is killed before is done again by somebody else; a chunk or a shard takes seconds, a training minutes."""
    assert services()[name]["stop_grace_period"] == ("5m" if name == "training" else "60s")


def test_every_anchor_is_used() -> None:
    text = (reading.FOLDER / "compose.yaml").read_text()
    events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    used = {event.anchor for event in events if isinstance(event, yaml.AliasEvent)}
    defined = {event.anchor for event in events if isinstance(event, yaml.NodeEvent) and event.anchor}
    assert defined == used
