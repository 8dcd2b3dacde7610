"""Every setting: one YAML file and the environment, checked before anything starts.

``moe.yaml`` in the working folder (or ``$MOE_CONFIG``), then ``MOE_*`` variables on top; nested keys are joined with
two underscores, as in ``MOE_PIPELINE__LEASE_SECONDS=60``. Only entry points read settings; everything else is handed
what it needs.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)
from redis.connection import parse_url
from sqlalchemy.exc import ArgumentError
from yaml import YAMLError

from storage.database import database_url

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pipeline(Section):
    """How runs are cut up, leased and recovered."""

    lease_seconds: Seconds = Field(30, description="how long a worker may be silent before its work is given to others")
    max_attempts: Positive = Field(3, description="tries for a piece of work before it is halved or given up")
    back_off_seconds: Seconds = Field(0.5, description="rest after the first failed try; doubles with each further one")
    sweep_seconds: Seconds = Field(5, description="how often lost work is looked for")
    stale_hint_seconds: Seconds = Field(30, description="age from which an unanswered message is sent again")
    hints_per_queue: Positive = Field(64, description="messages a sweep keeps in one queue at the most")
    window_shards: Positive = Field(16, description="shards under way at once, shared between the runs by priority")
    shard_seconds: Seconds = Field(2.0, description="routing time a shard is cut for, at the measured rate")
    shard_size_min: Positive = Field(64, description="smallest shard, in queries")
    shard_size_max: Positive = Field(1024, description="largest shard, in queries")
    chunk_size: Positive = Field(256, description="largest chunk, in queries")


class Input(Section):
    """What is accepted as a batch."""

    max_line_bytes: Positive = Field(1 << 20, description="longest line; a longer one becomes an error line")
    max_lines: Positive = Field(10_000_000, description="most lines in one batch")
    max_custom_id_chars: Positive = Field(512, description="longest custom_id")


class Encoder(Section):
    """The sentence encoder that routing and knowledge share."""

    name: str = Field("all-MiniLM-L6-v2", description="bundled model, local folder or hub id; `hashing` needs no model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="number format of the weights; auto: 16 bit where the processor computes in it"
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`…")
    batch_size: Positive = Field(32, description="texts of 32 tokens per forward pass; longer ones count for more")
    threads: Positive = Field(1, description="CPU threads of one router process; training uses every core")


class Routing(Section):
    """How experts are chosen."""

    kind: str = Field(
        "ensemble", description="router kind that training makes: ensemble, neural, knn, centroid, heuristic or random"
    )
    gate_weight: Share = Field(
        0.6, description="share of the gate in the score; the rest is the expert's own assessment"
    )
    world: bool = Field(True, description="whether training reads the shipped sample of what else people ask")
    load_factor: bool = Field(True, description="whether a busy expert's score shrinks")
    load_from: Share = Field(
        0.8, description="load above which the score shrinks, as a share of capacity × capacity_factor"
    )
    capacity_factor: float = Field(1.25, ge=1, description="room for imbalance in an expert's capacity")
    balance_budget: Share = Field(
        0.01, description="expected accuracy that may be given up to keep experts within their capacity; 0: none"
    )
    tie_margin: Share = Field(0.02, description="scores closer than this go by the experts' priority; 0: never")
    availability: bool = Field(True, description="whether experts beyond the three limits below are passed over")
    max_latency_seconds: Seconds = Field(2.0, description="mean time per query of an expert that is available")
    min_accuracy: Share = Field(0.7, description="share of good answers, by feedback, of an expert that is available")
    max_error_rate: Share = Field(0.2, description="share of errors of an expert that is available")
    min_weight: Share = Field(0.15, description="a second expert below this weight is not asked")
    in_scope_threshold: Share = Field(0.5, description="coverage below which a query counts as outside every domain")
    max_misroute: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="share of queries that may miss their expert; as many experts are asked as that needs"
    )
    cached_queries: Annotated[int, Field(ge=0)] = Field(
        4096, description="texts whose embeddings a router process remembers"
    )
    seed: int = Field(0, description="seed of training")


class Engine(Section):
    """How experts answer, where their card does not say."""

    default: str = Field("extractive", description="engine of experts whose card names none")
    passages: Positive = Field(4, description="passages read per query and expert")
    answer_threshold: Share = Field(
        0.33,
        description="confidence below which `no answer` is said; a third: a missed answer costs twice a wrong quote",
    )


class Base(Section):
    """The frozen language model that learned experts are adapters of."""

    name: str = Field("bundled", description="`bundled` (a small one, for trying), a local folder, or a hub id")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "float32", description="what it is held in; auto: as it is stored, which suits GPUs"
    )
    device: str = Field("cpu", description="cpu, cuda, cuda:N, or auto (spread over what there is)")
    load_in_8bit: bool = Field(False, description="hold its weights in 8 bit (needs bitsandbytes and a GPU)")
    threads: Positive = Field(1, description="processor threads per process")


class Serving(Section):
    """How learned experts generate."""

    max_tokens: Positive = Field(256, description="tokens of an answer, where the request does not say")
    adapters: Positive = Field(5, description="adapters held in memory; the one unused for longest goes first")
    adapter_megabytes: Positive | None = Field(
        None, description="memory for adapters; without it only the number counts"
    )
    rows: Positive = Field(64, description="queries generated at once")
    tokens: Positive = Field(16384, description="tokens of their prompts and answers together")
    prompt_tokens: Positive = Field(512, description="tokens of prompts that join in one step")


class Remote(Section):
    """The server that experts of the engine `openai` are asked on."""

    base_url: str | None = Field(None, description="its address, such as http://127.0.0.1:8000/v1")
    api_key: SecretStr | None = Field(None, description="its key, where it wants one")
    model: str | None = Field(None, description="model of experts whose card names none")
    timeout_seconds: Seconds = Field(60, description="for one try of one query")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(3, description="further tries where the server is busy or away")
    concurrency: Positive = Field(16, description="queries asked at once per process")
    requests_per_minute: Positive | None = Field(None, description="at most so many per process")
    logprobs: bool = Field(False, description="ask for probabilities of tokens, from which confidence is read")


class Training(Section):
    """How experts learn. What is left open goes by the size of the base: see DECISIONS.md."""

    rank: Positive | None = Field(None, description="rank of adapters; default 16, on a base below 100 million 8")
    alpha: Positive | None = Field(None, description="their scale; default twice the rank")
    target_modules: list[str] | None = Field(
        None, description="layers they change; default q, k, v, and o on a small base"
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="default 2e-4, on a small base 1e-2"
    )
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="default 3, on a small base 40"
    )
    batch_size: Positive | None = Field(None, description="examples of one step; default 16, on a small base 32")
    max_length: Positive | None = Field(
        None, description="tokens of an example, longer ones are left out; default 1024, on a small base 512"
    )
    patience: Positive = Field(4, description="measurements without progress after which training ends")
    max_seconds: Seconds | None = Field(None, description="time after which training ends with the best it has")
    min_examples: Annotated[int, Field(ge=2)] = Field(20, description="examples below which nothing is trained")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="share of the examples kept for measuring, where no validation file is given"
    )
    floor: Share = Field(
        0.3, description="mean F1 of words below which a version does not go live, whatever the base does"
    )
    max_measured: Positive = Field(
        200, description="examples of other experts a new version is measured on, per expert"
    )
    seed: int = Field(0, description="seed of training")
    folder: Path | None = Field(None, description="where checkpoints lie; default home/training")


class Concurrency(Section):
    """Processes per role on one machine."""

    control: Positive = 2
    router: Positive = 1
    expert: Positive = 1
    training: Positive = 1


class Flower(Section):
    """The monitor."""

    address: str = Field("127.0.0.1", description="interface it listens on")
    port: int = Field(5555, ge=1, le=65535)
    user: str = "moe"
    password: SecretStr | None = Field(None, description="required; `moe up` makes one")


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix="MOE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Field(Path(".moe"), description="folder of the embedded stack: its data, logs and files")
    database_url: SecretStr | None = Field(None, description="PostgreSQL; without it the embedded one of `moe up`")
    redis_url: SecretStr | None = Field(None, description="Redis; without it the embedded one of `moe up`")
    artefacts_url: str | None = Field(
        None, description="where indexes, routers and output files go (fsspec); default home"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else json")
    top_k: Positive = Field(2, description="experts asked per query")
    strategy: str = Field("weighted", description="how answers are combined")
    pipeline: Pipeline = Pipeline()
    input: Input = Input()
    encoder: Encoder = Encoder()
    routing: Routing = Routing()
    engine: Engine = Engine()
    base: Base = Base()
    serving: Serving = Serving()
    remote: Remote = Remote()
    training: Training = Training()
    concurrency: Concurrency = Concurrency()
    flower: Flower = Flower()

    @field_validator("database_url", "redis_url", "artefacts_url", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            database_url(value.get_secret_value() if value else "postgresql://")
        except (ValueError, ArgumentError):
            raise ValueError("must be an address such as postgresql://user:password@host/database") from None
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            parse_url(value.get_secret_value() if value else "redis://")  # type: ignore[no-untyped-call]
        except ValueError:
            raise ValueError("must be an address such as redis://:password@host:6379/0") from None
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, EnvSettingsSource(settings_cls), YamlConfigSettingsSource(settings_cls, config_file())


class BadSettings(Exception):
    """A setting is missing or wrong; the text names its key, in the file's and in the environment's spelling."""

    code = "bad_settings"


def config_file() -> Path:
    """The YAML file that is read, whether or not it is there."""
    return Path(os.environ.get("MOE_CONFIG") or "moe.yaml")


def load(**overrides: Any) -> Settings:
    """Read the configuration. Raises BadSettings naming every key that is wrong."""
    if os.environ.get("MOE_CONFIG") and not config_file().is_file():
        raise BadSettings(f"MOE_CONFIG names {config_file()}, which is not a file")
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise BadSettings("\n".join(_explain(dict(item)) for item in error.errors())) from None
    except SettingsError as error:  # a section that is not JSON
        raise BadSettings(f"environment: {error}") from None
    except (ValueError, TypeError, OSError, YAMLError, RecursionError) as error:  # no YAML, no settings, unreadable
        raise BadSettings(f"{config_file()}: {error}") from None
    return settings


def _explain(error: dict[str, Any]) -> str:
    path = [str(part) for part in error["loc"]]
    hidden = isinstance(error.get("input"), dict) or path[-1:] in (
        ["password"],
        ["api_key"],
        ["database_url"],
        ["redis_url"],
    )
    shown = "" if hidden else f" (got {error.get('input')!r})"
    said = "there is no such setting" if error["type"] == "extra_forbidden" else error["msg"]
    return f"{'.'.join(path)} (MOE_{'__'.join(path).upper()}): {said}{shown}"


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting as people see it."""

    key: str
    value: Any
    description: str


def shown(settings: Settings) -> list[Shown]:
    """Every setting with its present value, secrets masked: `postgresql://user:***@host/db`."""
    return list(_shown(settings, ""))


def _shown(section: BaseModel, prefix: str) -> Iterator[Shown]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _shown(value, f"{prefix}{name}.")
        else:
            plain = value.get_secret_value() if isinstance(value, SecretStr) else value
            if plain is not None and name in _ADDRESSES:
                plain = masked_address(plain)
            elif isinstance(value, SecretStr):
                plain = _MASK
            yield Shown(prefix + name, str(plain) if isinstance(plain, Path) else plain, field.description or "")


_MASK = "***"
_ADDRESSES = ("database_url", "redis_url", "artefacts_url", "base_url")


def masked_address(address: str) -> str:
    """An address without its password, wherever in it that stands: `postgresql://user:***@host/db`."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    rest, mark, query = rest.partition("?")
    login, at, place = rest.rpartition("@")
    if at:
        login = f"{login.partition(':')[0]}:{_MASK}" if ":" in login else login
    query = re.sub(r"(?i)([^&=]*(?:password|secret|token|key)[^&=]*)=[^&]*", rf"\1={_MASK}", query)
    return f"{scheme}://{login}{at}{place}{mark}{query}"


def unknown_variables() -> list[str]:
    """`MOE_…` variables that are no setting, such as misspelt ones."""
    known = {f"MOE_{name.upper()}" for name in Settings.model_fields} | {"MOE_CONFIG", "MOE_FAULTS"}
    return sorted(name for name in os.environ if name.startswith("MOE_") and name.upper().split("__")[0] not in known)
