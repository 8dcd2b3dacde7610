"""Servers and workers for benchmarks, with the memory of every process watched."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from storage.database import transact
from tests.support.experts import serve
from tests.support.servers import start_servers, stop_servers
from worker.embedded.servers import Servers
from worker.runtime import Runtime, make_runtime
from worker.settings import load

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Cluster:
    """A home of its own with both servers; workers are started as needed."""

    home: Path
    servers: Servers
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *roles: str) -> None:
        """Start one worker process per role."""
        for role in roles:
            self.run(role, ["-m", "jobs.cli.main", *(["beat"] if role == "beat" else ["worker", role, "--name", role])])

    def run(self, name: str, arguments: list[str]) -> None:
        """Start a Python program beside the servers."""
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def client(self) -> Runtime:
        os.environ.update(self.environment)
        return make_runtime(load())

    def ready(self, client: Runtime, roles: int) -> None:
        """Wait until that many workers answer."""
        deadline = time.monotonic() + 120
        while len(client.app.control.inspect(timeout=1).ping() or {}) < roles:
            if time.monotonic() > deadline:
                raise TimeoutError("the workers did not come up")

    def stop(self) -> None:
        for process in self.processes.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        stop_servers(self.servers)


@contextmanager
def cluster(**settings: str) -> Iterator[Cluster]:
    """A fresh cluster in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="moe-bench-") as folder:
        home = Path(folder)
        servers = start_servers(home)
        environment = {
            "MOE_HOME": str(home),
            "MOE_DATABASE_URL": servers.postgres.start(),
            "MOE_REDIS_URL": servers.redis.address(),
            "MOE_LOG_LEVEL": "warning",
            "MOE_ARTEFACTS_URL": str(home / "artefacts"),
            **settings,
        }
        made = Cluster(home, servers, environment)
        try:
            yield made
        except BaseException:
            for log in sorted(home.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            raise
        finally:
            made.stop()


def serve_echo(made: Cluster, experts: int = 8) -> Runtime:
    """Experts that do no work and a router that guesses: everything that is left is orchestration."""
    client = made.client()
    names = [f"expert_{n}" for n in range(experts)]
    transact(client.engine, lambda c: serve(c, made.home, names=names, engine="echo", kind="random"))
    return client


class Memory:
    """Peak memory of the largest process under each root, sampled once a second while the block runs.

    Memory that processes share (Postgres' buffers, pages a fork has not written to) is left out. Looking for children
    costs more than sampling them, so it is done once, at the start; Postgres' backends come and go and are looked for
    each time.
    """

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._families = {name: family(pid) for name, pid in roots.items()}
        self._postgres = roots.get("postgres")
        self.peak_mib: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            if self._postgres is not None:
                self._families["postgres"] = family(self._postgres)
            for name, processes in self._families.items():
                held = max((_own(process) for process in processes), default=0.0)
                self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), held)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _own(process: psutil.Process) -> float:
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return float(memory.rss - memory.shared) / (1 << 20)


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor time used so far by each process and its children."""
    used = {}
    for name, pid in pids.items():
        times = [process.cpu_times() for process in family(pid)]
        used[name] = sum(t.user + t.system + t.children_user + t.children_system for t in times)
    return used
