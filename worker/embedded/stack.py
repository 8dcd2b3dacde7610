"""The embedded stack: both servers and every role, started, watched and stopped together.

``moe up`` runs a supervisor that starts what is missing and starts again what dies. What runs is noted in
``stack.json``, so that ``moe down`` and a later ``moe up`` can also deal with a stack whose supervisor was killed.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import structlog

from storage import migrate
from storage.database import connect
from worker.addresses import read_note, stack_file
from worker.embedded.servers import ServerFailed, Servers, _write_private, free_port
from worker.settings import Settings

log = structlog.get_logger(__name__)

ROLES = ("control", "router", "expert", "training", "beat", "flower")
_GRACE_S = 20.0
_LOOK_EVERY_S = 0.5
_STEADY_S = 60.0


class StackRuns(Exception):
    """A stack is up in this home already."""

    code = "stack_runs"

    def __init__(self, home: Path) -> None:
        super().__init__(f"a stack is running in {home} already; `moe status` shows it, `moe down` stops it")


@dataclass
class _Child:
    role: str
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    again_at: float = 0.0


@dataclass
class Supervisor:
    """Starts the stack of one home, keeps it alive, stops it."""

    settings: Settings
    say: Callable[[str], None]
    _children: dict[str, _Child] = field(default_factory=dict)
    _stopping: bool = False
    _noted: dict[str, Any] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.settings.home.resolve()

    @cached_property
    def _servers(self) -> Servers:
        return Servers.of(self.home)

    def run(self, *, on_ready: Callable[[], None] | None = None) -> None:
        """Bring the stack up and watch it until SIGTERM or SIGINT; then take it down. Raises StackRuns."""
        self.home.mkdir(parents=True, exist_ok=True)
        with only_one(self.home / "lock", otherwise=StackRuns(self.home)):
            stop_leftovers(self.settings)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            try:
                self._start()
                if on_ready is not None and not self._stopping:
                    on_ready()
                while not self._stopping:
                    time.sleep(_LOOK_EVERY_S)
                    self._look()
            finally:
                self._take_down()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start(self) -> None:
        servers = self._servers
        database = servers.postgres.start()
        servers.postgres.create_database(database)
        servers.redis.start()
        self.say("PostgreSQL and Redis are running")
        engine = connect(database)
        migrate.upgrade(engine)
        engine.dispose()
        flower = {
            "port": free_port() if _taken(self.settings) else self.settings.flower.port,
            "password": self._password(),
        }
        self._noted = {
            "database_url": database,
            "redis_url": servers.redis.address(),
            "supervisor": _identity(os.getpid()),
            "flower": {
                "url": f"http://{self.settings.flower.address}:{flower['port']}",
                "user": self.settings.flower.user,
                "password": flower["password"],
            },
            "processes": {},
        }
        self._note()
        for role in ROLES:
            self._spawn(role)
        self.say(f"started {', '.join(ROLES)}")
        self._noted["ready"] = True
        self._note()

    def _password(self) -> str:
        configured = self.settings.flower.password
        if configured is not None:
            return configured.get_secret_value()
        noted = self.home / "flower.password"
        if not noted.exists():
            _write_private(noted, secrets.token_urlsafe(12))
        return noted.read_text()

    def _spawn(self, role: str, failures: int = 0) -> None:
        logs = self.home / "logs"
        logs.mkdir(exist_ok=True)
        flower = self._noted["flower"]
        environment = {
            **os.environ,
            "MOE_HOME": str(self.home),
            "MOE_FLOWER__PASSWORD": flower["password"],
            "MOE_FLOWER__PORT": flower["url"].rsplit(":", 1)[1],
        }
        command = [sys.executable, "-m", "jobs.cli.main"]
        command += [role] if role in ("beat", "flower") else ["worker", role, "--name", role]
        with (logs / f"{role}.log").open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )
        self._children[role] = _Child(role, process, time.monotonic(), failures)
        self._noted["processes"][role] = _identity(process.pid)
        self._note()

    def _note(self) -> None:
        _write_private(stack_file(self.settings), json.dumps(self._noted, indent=1))

    def _look(self) -> None:
        for name, server in (("postgres", self._servers.postgres), ("redis", self._servers.redis)):
            if server.pid() is None and not self._stopping:
                log.warning("stack.restarting", what=name)
                try:
                    server.start()
                except (ServerFailed, OSError, subprocess.TimeoutExpired) as error:  # the next look tries again
                    log.warning("stack.not_restarted", what=name, reason=str(error))
        now = time.monotonic()
        for child in list(self._children.values()):
            if child.process.poll() is None:
                if child.failures and now - child.started > _STEADY_S:
                    child.failures = 0
            elif child.again_at == 0.0:
                child.again_at = now + min(0.2 * 2**child.failures, 30.0)
                log.warning("stack.died", role=child.role, code=child.process.returncode, pid=child.process.pid)
                _kill_group(child.process.pid)  # what a killed worker leaves of its pool
            elif now >= child.again_at:
                try:
                    self._spawn(child.role, child.failures + 1)
                except OSError as error:  # a full disk, no process left: tried again later
                    log.warning("stack.not_restarted", what=child.role, reason=str(error))
                    child.again_at = now + 5

    def _take_down(self) -> None:
        self.say("stopping")
        for child in self._children.values():
            _signal(child.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        for child in self._children.values():
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("stack.killing", role=child.role)
            _kill_group(child.process.pid)
        for server in (self._servers.redis, self._servers.postgres):
            try:
                server.stop()
            except (ServerFailed, OSError, subprocess.TimeoutExpired) as error:
                self.say(str(error))
        stack_file(self.settings).unlink(missing_ok=True)
        self.say("stopped")


def start_detached(settings: Settings, *, wait_s: float = 60) -> dict[str, Any]:
    """Run a supervisor in the background; what it noted once the stack is up. Raises StackRuns and ServerFailed."""
    if running(settings) is not None:
        raise StackRuns(settings.home)
    home = settings.home.resolve()
    (home / "logs").mkdir(parents=True, exist_ok=True)
    log_file = home / "logs" / "supervisor.log"
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli.main", "up", "--no-load"],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "MOE_HOME": str(home)},
            start_new_session=True,
        )
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        noted = running(settings)
        if noted is not None and noted.get("ready"):
            return noted
        if process.poll() is not None:
            break
        time.sleep(0.1)
    tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-8:])
    raise ServerFailed(f"the stack did not come up in {home}; the end of {log_file}:\n{tail}")


def running(settings: Settings) -> dict[str, Any] | None:
    """What the stack of this home noted, None where its supervisor does not run."""
    noted = read_note(settings)
    return noted if _alive(noted.get("supervisor")) else None


def stop(settings: Settings, *, wait_s: float = 90) -> bool:
    """Stop the stack of this home, also one whose supervisor was killed; False where nothing ran."""
    noted = running(settings)
    if noted is None:
        return stop_leftovers(settings)
    with contextlib.suppress(psutil.NoSuchProcess):
        supervisor = psutil.Process(noted["supervisor"]["pid"])
        supervisor.terminate()
        try:
            supervisor.wait(wait_s)
        except psutil.TimeoutExpired:
            raise ServerFailed(f"the stack in {settings.home} did not stop within {wait_s:.0f} s") from None
    return True


def stop_leftovers(settings: Settings) -> bool:
    """Kill the processes and stop the servers that a killed supervisor left behind; False where there were none."""
    found = False
    for identity in (read_note(settings).get("processes") or {}).values():
        if _alive(identity):
            found = True
            _kill_group(identity["pid"])
    servers = Servers.of(settings.home.resolve())
    found |= servers.redis.pid() is not None or servers.postgres.pid() is not None
    servers.redis.stop()
    servers.postgres.stop()
    stack_file(settings).unlink(missing_ok=True)
    return found


def processes(noted: dict[str, Any]) -> dict[str, bool]:
    """role -> whether its process runs."""
    return {role: _alive(identity) for role, identity in noted.get("processes", {}).items()}


@contextlib.contextmanager
def only_one(lock_file: Path, *, otherwise: Exception) -> Iterator[None]:
    """Hold the lock for the block; raises ``otherwise`` where another process holds it. It ends with its process."""
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise otherwise from None
        yield


def _identity(pid: int) -> dict[str, float]:
    """A process by number and birth, for numbers are given out again."""
    return {"pid": pid, "created": psutil.Process(pid).create_time()}


def _alive(identity: dict[str, float] | None) -> bool:
    if identity is None:
        return False
    try:
        process = psutil.Process(int(identity["pid"]))
        same = abs(process.create_time() - identity["created"]) < 1
        return same and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _taken(settings: Settings) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((settings.flower.address, settings.flower.port)) == 0
