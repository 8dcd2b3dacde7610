"""Every command of the compose file, started here with the same arguments and the same environment.

No image is built: what a container adds is the servers' host names, its folders and its port, and only those are
replaced. `moe` is found on the PATH, as in an image.
"""

import base64
import os
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text

from storage import migrate
from storage.database import connect
from tests.acceptance.harness import ROOT, wait_for
from tests.support.servers import Backends
from tests.unit.docker import reading
from worker.app import create_app
from worker.embedded.servers import free_port, redis_binary
from worker.roles import ROLES
from worker.settings import Settings

FILLED = {"POSTGRES_PASSWORD": "aaa", "REDIS_PASSWORD": "bbb", "MOE_FLOWER__PASSWORD": "ccc"}
STARTED_S = 50.0


@dataclass
class Machine:
    """This machine in the place of the containers of one compose file."""

    home: Path
    backends: Backends
    flower_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def install(self) -> None:
        """`moe` on the PATH: the entry point of every image."""
        folder = self.home / "bin"
        folder.mkdir()
        for name, arguments in (("moe", "-m jobs.cli.main"), ("python", "")):
            script = folder / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
            script.chmod(0o755)

    def environment(self, service: str) -> dict[str, str]:
        """What the service's container would find, with what belongs to containers replaced by what is here."""
        found = {
            **reading.image_environment(reading.ours()[service].get("build", {}).get("target", "control")),
            **reading.environment(reading.ours()[service], FILLED),
        }
        found |= {
            "MOE_DATABASE_URL": self.backends.database_url,
            "MOE_REDIS_URL": self.backends.redis_url,
            "MOE_HOME": str(self.home),
            "MOE_ARTEFACTS_URL": str(self.home / "artefacts"),
        }
        if service == "flower":
            assert (found["MOE_FLOWER__ADDRESS"], found["MOE_FLOWER__PORT"]) == ("0.0.0.0", "5555")
            found |= {"MOE_FLOWER__ADDRESS": "127.0.0.1", "MOE_FLOWER__PORT": str(self.flower_port)}
        machine = {name: value for name, value in os.environ.items() if not name.startswith("MOE_")}
        return machine | found | {"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def start(self, service: str) -> None:
        """The service's command, as Docker would put it together: the image's entry point and the command."""
        entry_point = reading.exec_form(reading.effective("control", "ENTRYPOINT"))
        with self.log(service).open("ab") as log:
            self.processes[service] = subprocess.Popen(
                [*entry_point, *reading.ours()[service]["command"]],
                cwd=self.home,
                env=self.environment(service),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def log(self, service: str) -> Path:
        return self.home / f"{service}.log"

    def said(self, service: str) -> str:
        """What the service has logged; fails when it has ended."""
        said = self.log(service).read_text(errors="replace")
        code = self.processes[service].poll()
        assert code is None, f"{service} ended with {code}:\n{said}"
        return said

    def check(self, service: str, test: list[str]) -> subprocess.CompletedProcess[str]:
        """A health check of a container of the service: `[CMD, …]` or `[CMD-SHELL, script]`."""
        kind, *arguments = test
        command = ["sh", "-c", arguments[0]] if kind == "CMD-SHELL" else arguments
        return subprocess.run(
            command, cwd=self.home, env=self.environment(service), capture_output=True, text=True, timeout=60
        )

    def stop(self) -> None:
        for process in self.processes.values():
            for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                child.kill()
            process.wait()


@pytest.fixture
def machine(tmp_path: Path, backends: Backends) -> Iterator[Machine]:
    made = Machine(tmp_path, backends)
    made.install()
    yield made
    made.stop()


def empty(backends: Backends) -> None:
    """A database as the postgres image makes it: there, and without any table."""
    engine = connect(backends.database_url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


def status_of(url: str, login: str | None = None) -> int:
    """The HTTP status of a page; 0 while nobody listens."""
    request = urllib.request.Request(url)
    if login is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (urllib.error.URLError, ConnectionError):
        return 0


def test_every_command_of_the_compose_file_starts_and_says_it_is_ready(machine: Machine) -> None:
    empty(machine.backends)
    machine.start("migrate")
    assert machine.processes.pop("migrate").wait(60) == 0, machine.log("migrate").read_text()
    assert f"database is at {migrate.head()}" in machine.log("migrate").read_text()

    services = [name for name in reading.ours() if name != "migrate"]
    for service in services:
        machine.start(service)

    app = create_app(Settings.model_construct(), machine.backends.redis_url)

    def replying() -> set[str]:
        for service in services:
            machine.said(service)
        replies = app.control.inspect(timeout=1.0).ping() or {}
        assert all(reply == {"ok": "pong"} for reply in replies.values())
        return {node.split("@")[0].rsplit("-", 1)[0] for node in replies if node.endswith(f"@{socket.gethostname()}")}

    workers = {command[1] for command in (reading.ours()[s]["command"] for s in services) if command[0] == "worker"}
    assert workers == set(ROLES)
    wait_for(lambda: replying() >= workers, f"every worker to reply: {workers}", STARTED_S)
    app.close()

    assert "beat: Starting..." in wait_for(lambda: machine.said("beat"), "beat")

    url = f"http://127.0.0.1:{machine.flower_port}"
    wait_for(lambda: status_of(f"{url}/healthcheck"), "Flower to listen", STARTED_S)
    assert status_of(f"{url}/workers") == 401
    assert status_of(f"{url}/workers", "moe:wrong") == 401
    assert status_of(f"{url}/workers", "moe:ccc") == 200
    assert status_of(f"{url}/api/workers") == 401

    # The health checks hold for what runs, those of the image and those of the compose file.
    of_the_image = reading.effective("control", "HEALTHCHECK")
    assert of_the_image is not None
    script = of_the_image.partition("CMD ")[2]
    for role in ("control", "expert"):
        checked = machine.check(role, ["CMD-SHELL", script])
        assert checked.returncode == 0, checked.stderr
    checked = machine.check("beat", reading.ours()["beat"]["healthcheck"]["test"])
    assert checked.returncode == 0, checked.stdout
    own = [part.replace("5555", str(machine.flower_port)) for part in reading.ours()["flower"]["healthcheck"]["test"]]
    checked = machine.check("flower", own)
    assert checked.returncode == 0, checked.stderr

    # No password is left in a log.
    for service in services:
        assert "ccc" not in machine.said(service)


def test_the_health_check_of_a_worker_fails_where_none_replies(machine: Machine) -> None:
    script = str(reading.effective("control", "HEALTHCHECK")).partition("CMD ")[2]
    assert machine.check("control", ["CMD-SHELL", script]).returncode != 0


def test_flower_does_not_start_without_a_password(machine: Machine) -> None:
    done = subprocess.run(
        ["moe", *reading.ours()["flower"]["command"]],
        cwd=machine.home,
        env=machine.environment("flower") | {"MOE_FLOWER__PASSWORD": ""},
        executable=str(machine.home / "bin" / "moe"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "Flower does not start without a login" in done.stderr


def test_the_redis_command_starts_a_server_with_a_password_and_a_log_on_disk(tmp_path: Path) -> None:
    """The command of the compose file itself, on the redis-server that is here."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "redis-server").symlink_to(redis_binary())
    port = free_port()
    once = Retry(NoBackoff(), 0)
    service = reading.services()["redis"]
    command = [reading.substitute(part, FILLED) for part in service["command"]]
    assert "redis-server - " in command[-1]
    command[-1] = command[-1].replace("redis-server - ", f"redis-server - --bind 127.0.0.1 --port {port} ")
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **reading.environment(service, FILLED)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def reply(password: str | None) -> str:
            try:
                with redis.Redis(port=port, password=password, retry=once) as client:
                    return "pong" if client.ping() else "nothing"
            except redis.AuthenticationError:
                return "refused"
            except redis.ConnectionError:
                return ""

        assert wait_for(lambda: reply("bbb"), "Redis to listen") == "pong"
        assert reply(None) == "refused"
        assert reply("wrong") == "refused"
        with redis.Redis(port=port, password="bbb", decode_responses=True) as client:
            known = {name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "save")}
            assert known == {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        # Replaced by the server, not waiting beside it: it hears Docker's signals itself.
        assert "redis-server" in psutil.Process(process.pid).name()
        assert "bbb" not in " ".join(psutil.Process(process.pid).cmdline())
    finally:
        process.terminate()
        process.wait(20)
