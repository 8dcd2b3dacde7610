"""The pieces of the supervisor that need no stack: its notes, its lock, and what it does with leftovers."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.unit.worker.waiting import until
from worker.addresses import stack_file
from worker.embedded import stack
from worker.embedded.servers import EmbeddedRedis, free_port
from worker.embedded.stack import StackRuns, Supervisor
from worker.settings import Settings, load


@pytest.fixture
def settings(workdir: Path) -> Settings:
    (workdir / "home").mkdir()
    return load(home=workdir / "home")


@pytest.fixture
def group() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child, in a group of its own, as a worker with its pool; both ignore being asked to end."""
    program = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork():\n    print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield process
    stack._kill_group(process.pid)
    process.wait()
    process.stdout.close()


def note(settings: Settings, **noted: Any) -> None:
    stack_file(settings).write_text(json.dumps(noted))


def identity(pid: int) -> dict[str, float]:
    return {"pid": pid, "created": psutil.Process(pid).create_time()}


def test_a_process_is_known_by_its_number_and_its_birth() -> None:
    own = stack._identity(os.getpid())
    assert own == identity(os.getpid())
    assert stack._alive(own)
    assert not stack._alive({**own, "created": own["created"] - 100})  # the number was given out again
    assert not stack._alive(None)


def test_a_process_that_has_ended_is_not_alive_even_while_nobody_has_reaped_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = stack._identity(process.pid)
    assert stack._alive(known)
    process.kill()
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, "its end")
    assert not stack._alive(known)
    process.communicate()
    assert not stack._alive(known)


@pytest.mark.parametrize("noted", [None, "", "{", "[]", "null", "{}"])
def test_without_a_readable_note_no_stack_runs(settings: Settings, noted: str | None) -> None:
    if noted is not None:
        stack_file(settings).write_text(noted)
    assert stack.running(settings) is None
    assert stack.stop(settings) is False


def test_a_stack_runs_while_its_supervisor_does(settings: Settings) -> None:
    note(settings, supervisor=identity(os.getpid()), ready=True)
    noted = stack.running(settings)
    assert noted is not None
    assert noted["ready"] is True
    note(settings, supervisor={**identity(os.getpid()), "created": 1.0})
    assert stack.running(settings) is None


def test_what_is_noted_of_processes_is_told_by_role(group: subprocess.Popen[bytes]) -> None:
    noted = {"processes": {"control": identity(group.pid), "beat": {"pid": group.pid, "created": 1.0}}}
    assert stack.processes(noted) == {"control": True, "beat": False}
    assert stack.processes({}) == {}


def test_only_one_supervisor_has_a_home(settings: Settings) -> None:
    with (
        stack.only_one(settings.home / "lock", otherwise=StackRuns(settings.home)),
        pytest.raises(StackRuns, match=r"a stack is running in .* already"),
        stack.only_one(settings.home / "lock", otherwise=StackRuns(settings.home)),
    ):
        raise AssertionError("two of them")
    with stack.only_one(settings.home / "lock", otherwise=StackRuns(settings.home)):  # the first has left
        pass


def test_a_second_supervisor_touches_nothing(settings: Settings, group: subprocess.Popen[bytes]) -> None:
    note(settings, supervisor=identity(os.getpid()), processes={"control": identity(group.pid)})
    before = stack_file(settings).read_bytes()
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stack.only_one(settings.home / "lock", otherwise=StackRuns(settings.home)), pytest.raises(StackRuns):
        Supervisor(settings, print).run()
    assert stack_file(settings).read_bytes() == before
    assert group.poll() is None
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_starting_detached_beside_a_running_stack_is_refused(settings: Settings) -> None:
    note(settings, supervisor=identity(os.getpid()))
    with pytest.raises(StackRuns):
        stack.start_detached(settings)
    assert not (settings.home / "logs").exists()


def test_leftovers_are_killed_with_all_they_started(settings: Settings, group: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(group.pid).children()
    assert len(children) == 1
    note(settings, supervisor={"pid": group.pid, "created": 1.0}, processes={"control": identity(group.pid)})
    assert stack.stop_leftovers(settings) is True
    assert group.wait(20) == -signal.SIGKILL
    children[0].wait(20)
    assert not stack_file(settings).exists()
    assert stack.stop_leftovers(settings) is False


def test_a_process_that_only_has_the_number_of_a_leftover_is_left_alone(
    settings: Settings, group: subprocess.Popen[bytes]
) -> None:
    note(settings, processes={"control": {"pid": group.pid, "created": 1.0}})
    assert stack.stop_leftovers(settings) is False
    assert group.poll() is None


def test_a_server_that_was_left_running_is_stopped(settings: Settings) -> None:
    left = EmbeddedRedis(settings.home / "redis")
    left.start()
    assert stack.stop(settings) is True
    assert not left.answers()
    assert stack.stop(settings) is False
    left.stop()  # it was started here, so it is reaped here


def test_stopping_a_stack_asks_its_supervisor_and_waits_for_its_end(settings: Settings, workdir: Path) -> None:
    program = (
        "import pathlib, signal, sys\n"
        "def end(*_):\n    pathlib.Path('asked').touch()\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"up\n"
        note(settings, supervisor=identity(supervisor.pid))
        assert stack.stop(settings) is True
        assert not psutil.pid_exists(supervisor.pid)
        assert (workdir / "asked").exists()


def test_the_password_of_flower_is_made_once_and_kept(settings: Settings) -> None:
    made = Supervisor(settings, print)._password()
    assert len(made) >= 12
    assert Supervisor(settings, print)._password() == made
    assert (settings.home / "flower.password").stat().st_mode & 0o077 == 0


def test_a_configured_password_of_flower_is_used_and_not_written_down(workdir: Path) -> None:
    configured = load(home=workdir, flower={"password": "mine"})
    assert Supervisor(configured, print)._password() == "mine"
    assert list(workdir.iterdir()) == []


def test_a_port_that_somebody_listens_on_is_taken(workdir: Path) -> None:
    port = free_port()
    chosen = load(home=workdir, flower={"port": port})
    assert not stack._taken(chosen)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert stack._taken(chosen)


def test_a_signal_to_who_is_gone_is_no_error() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    stack._signal(process.pid, signal.SIGTERM)
    stack._kill_group(process.pid)
