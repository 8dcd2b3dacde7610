"""Databases for tests: one real PostgreSQL and one real Redis per test run, a fresh database per test."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from storage import migrate
from storage.database import connect
from worker.embedded.servers import Servers

TEMPLATE = "moe"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Backends:
    """The addresses a test uses; both servers are real and nobody else's."""

    database_url: str
    redis_url: str
    servers: Servers


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder for servers. Where root runs the tests PostgreSQL runs as somebody else, who must get to its data;
    pytest shuts its own folders to all others, again whenever a second test run starts."""
    with tempfile.TemporaryDirectory(prefix="moe-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def start_servers(home: Path) -> Servers:
    """Both servers in a folder, with a migrated template database."""
    servers = Servers.of(home)
    address = servers.postgres.start()
    servers.postgres.create_database(address)
    servers.redis.start()
    engine = connect(address)
    migrate.upgrade(engine)
    engine.dispose()
    return servers


def stop_servers(servers: Servers) -> None:
    servers.redis.stop()
    servers.postgres.stop(immediately=True)


def fresh_database(servers: Servers) -> str:
    """A new database with the schema; its address."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    template = servers.postgres.start()
    admin = template.replace(f"/{TEMPLATE}?", "/postgres?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')
    return template.replace(f"/{TEMPLATE}?", f"/{name}?")


def drop_database(servers: Servers, address: str) -> None:
    name = address.split("?")[0].rsplit("/", 1)[1]
    with psycopg.connect(address.replace(f"/{name}?", "/postgres?"), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def fresh_redis(servers: Servers) -> str:
    """An emptied database of the one Redis; its address."""
    address = servers.redis.address().rsplit("/", 1)[0] + f"/{next(_numbers) % 16}"
    with redis.Redis.from_url(address) as client:
        client.flushdb()
    return address
