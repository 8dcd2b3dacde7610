"""Where Postgres and Redis are: as configured, else the embedded stack of this home folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.settings import Settings


class NoStack(Exception):
    """Neither addresses nor a running embedded stack."""

    code = "no_stack"

    def __init__(self, home: Path) -> None:
        super().__init__(
            f"no stack is running in {home}; start one with `moe up --detach`,"
            " or set MOE_DATABASE_URL and MOE_REDIS_URL"
        )


@dataclass(frozen=True, slots=True)
class Addresses:
    database_url: str
    redis_url: str


def stack_file(settings: Settings) -> Path:
    """Where the embedded stack notes its addresses and processes."""
    return settings.home / "stack.json"


def addresses(settings: Settings) -> Addresses:
    """The two addresses to use. Raises NoStack."""
    database = settings.database_url.get_secret_value() if settings.database_url else None
    redis = settings.redis_url.get_secret_value() if settings.redis_url else None
    if database is None or redis is None:
        noted = read_note(settings)
        database, redis = database or noted.get("database_url"), redis or noted.get("redis_url")
    if not isinstance(database, str) or not isinstance(redis, str):
        raise NoStack(settings.home)
    return Addresses(database, redis)


def read_note(settings: Settings) -> dict[str, Any]:
    """What the embedded stack noted; empty where it noted nothing, or nothing that can be read."""
    try:
        noted = json.loads(stack_file(settings).read_text())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def artefacts_url(settings: Settings) -> str:
    """Where artefacts and output files go."""
    return settings.artefacts_url or str((settings.home / "artefacts").resolve())
