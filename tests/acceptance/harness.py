"""Real worker processes on real servers, to be killed, stopped and watched."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, text

from jobs import results
from jobs.follow import wait_until_ended
from jobs.submit import BatchOptions, submit_batch
from storage import invariants, runs
from storage.database import transact
from storage.runs import RunView
from tests.support.servers import Backends
from worker.runtime import Runtime, make_runtime
from worker.settings import load

ROOT = Path(__file__).parent.parent.parent
# Fast enough that a test need not wait long for what production does in half a minute.
HASTE = {
    "MOE_PIPELINE__LEASE_SECONDS": "2",
    "MOE_PIPELINE__SWEEP_SECONDS": "0.5",
    "MOE_PIPELINE__STALE_HINT_SECONDS": "1.5",
    "MOE_PIPELINE__BACK_OFF_SECONDS": "0.1",
    "MOE_PIPELINE__SHARD_SIZE_MAX": "64",
    "MOE_PIPELINE__SHARD_SIZE_MIN": "16",
    "MOE_ENCODER__NAME": "hashing",
    "MOE_ROUTING__KIND": "heuristic",
    "MOE_LOG_FORMAT": "json",
}


@dataclass
class Stack:
    """Worker processes of one test, and a client beside them."""

    home: Path
    backends: Backends
    extra: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    clients: list[Runtime] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **HASTE,
            "MOE_HOME": str(self.home),
            "MOE_DATABASE_URL": self.backends.database_url,
            "MOE_REDIS_URL": self.backends.redis_url,
            "PYTHONPATH": str(ROOT),
            **self.extra,
        }

    def start(self, *roles: str, experts: Sequence[str] = (), **environment: str) -> None:
        """Start one process per role: `control`, `router`, `expert`, `training`, `beat`; `expert:2` is a second one.

        ``experts`` are those that an expert worker serves, by default all.
        """
        for role in roles:
            command = [sys.executable, "-m", "tests.doubles.worker"]
            kind = role.split(":")[0]
            command += ["beat"] if kind == "beat" else ["worker", kind, "--name", role.replace(":", "-")]
            command += [part for name in experts for part in ("--expert", name)]
            with (self.home / f"{role}.log").open("ab") as log:
                self.processes[role] = subprocess.Popen(
                    command,
                    cwd=self.home,
                    env=self.environment | environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def kill(self, role: str) -> None:
        """SIGKILL to the whole process group, as a machine that goes away."""
        process = self.processes.pop(role)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def child(self, role: str) -> psutil.Process:
        """The pool process of a worker."""
        children = wait_for(lambda: psutil.Process(self.processes[role].pid).children(), f"a child of {role}")
        return children[0]

    def signal(self, role: str, number: int) -> None:
        """A signal to the whole process group."""
        os.killpg(self.processes[role].pid, number)

    def stop(self) -> None:
        """Kill what runs and close what is open."""
        for client in self.clients:
            client.close()
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self.processes.values():
            process.wait()

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.home.glob("*.log")))

    def client(self) -> Runtime:
        """What the command line would work with."""
        os.environ.update({key: value for key, value in self.environment.items() if key.startswith("MOE_")})
        self.clients.append(make_runtime(load()))
        return self.clients[-1]

    def moe(self, *arguments: str, check: bool = True, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line as a person would."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.doubles.worker", *arguments],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            input=None if stdin is None else stdin.decode(),
            text=True,
            timeout=120,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"moe {' '.join(arguments)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    def moe_json(self, *arguments: str) -> Any:
        return json.loads(self.moe(*arguments, "--json").stdout)


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """What ``condition`` returns once it is true; fails with ``what`` otherwise."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(0.02)


def write_batch(path: Path, texts: Sequence[str]) -> Path:
    """A batch in the short form, ids q0, q1, …"""
    path.write_text("".join(json.dumps({"id": f"q{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def submit(client: Runtime, path: Path, **options: Any) -> RunView:
    """Submit a batch; the run."""
    run = submit_batch(client, str(path), BatchOptions(**options))
    return transact(client.engine, lambda c: runs.view(c, run.id))


def finish(client: Runtime, run: RunView, timeout_s: float = 60.0) -> RunView:
    """Wait for the run's end; then every line must be accounted for and every invariant hold."""
    ended = wait_until_ended(client, run.id, timeout_s=timeout_s, pause_s=0.05)
    check_everything(client, ended)
    return ended


def check_everything(client: Runtime, run: RunView) -> None:
    """The public check, all invariants over all runs, and no lease that was forgotten."""
    found = results.verify(client, run)
    assert found["ok"], found["problems"]
    with client.engine.begin() as connection:
        assert invariants.breaches(connection) == []


def lines(client: Runtime, stored: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The lines of a finished file."""
    assert stored is not None
    with client.store.open(stored["path"]) as file:
        return [json.loads(line) for line in file]


def outputs(client: Runtime, run: RunView) -> dict[str, dict[str, Any]]:
    """Output lines by custom_id."""
    return {line["custom_id"]: line for line in lines(client, run.output)}


def errors(client: Runtime, run: RunView) -> dict[str, dict[str, Any]]:
    """Error lines by custom_id."""
    return {line["custom_id"]: line for line in lines(client, run.errors)}


def count(engine: Engine, query: str, **parameters: Any) -> int:
    """One number from the database."""
    with engine.connect() as connection:
        return int(connection.execute(text(query), parameters).scalar_one())


@contextmanager
def stack_on(home: Path, backends: Backends, **extra: str) -> Iterator[Stack]:
    """A stack without processes yet; whatever is started is killed in the end."""
    stack = Stack(home, backends, extra)
    before = dict(os.environ)
    try:
        yield stack
    finally:
        stack.stop()
        os.environ.clear()
        os.environ.update(before)
        if sys.exc_info()[0] is not None:
            print(stack.logs()[-20_000:])
