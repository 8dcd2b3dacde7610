"""The embedded stack as a newcomer meets it: servers from wheels, in a folder of its own."""

import base64
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.harness import ROOT, wait_for
from tests.support.servers import open_folder

pytestmark = pytest.mark.timeout(400)


class Home:
    """One working folder with a stack of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MOE_")}

    def moe(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "jobs.cli.main", *arguments],
            cwd=self.folder,
            env=self.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert not check or done.returncode == 0, f"moe {arguments}: {done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.moe(*arguments, "--json").stdout)

    def noted(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / ".moe" / "stack.json").read_text())
        return found

    def processes(self) -> list[int]:
        """Every process that works in this folder, but this test's own."""
        return [
            process.pid
            for process in psutil.process_iter()
            if process.pid != os.getpid() and self._is_of_this_home(process)
        ]

    def _is_of_this_home(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and (
                any(str(self.folder) in part for part in process.cmdline())
                or process.environ().get("MOE_HOME", "").startswith(str(self.folder))
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as opened:
        yield opened


@pytest.fixture
def home(folder: Path) -> Iterator[Home]:
    made = Home(folder / "one")
    yield made
    made.moe("down", check=False)


def http_status(url: str, login: str | None = None) -> int:
    request = urllib.request.Request(url)
    if login is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def test_the_demonstration_runs_twice_and_leaves_nothing_running(home: Home) -> None:
    first = home.moe("demo", "--no-learn")
    for said in (
        "How the queries spread over the experts",
        "routing accuracy",
        "answer hit rate",
        "why: ",
        "Gaps: ",
        "270 lines in = 270 output + 0 error",
        "all accounted for",
        "Flower",
        "stopped everything that was started",
    ):
        assert said in first.stdout + first.stderr, said
    assert "training a router of kind ensemble" in first.stderr
    assert home.processes() == []
    output = next(line.split(": ", 1)[1] for line in first.stdout.splitlines() if line.startswith("output: "))
    assert len(Path(output).read_text().splitlines()) == 270

    second = home.moe("demo", "--no-learn")

    assert "270 lines in = 270 output + 0 error" in second.stdout
    assert "training a router of kind ensemble" not in second.stderr  # what is there is used again
    assert home.processes() == []
    assert Path(output).exists()


def test_two_homes_live_side_by_side(home: Home, folder: Path) -> None:
    other = Home(folder / "two")
    try:
        for each in (home, other):
            each.moe("up", "--detach", "--no-load")
        one, two = home.noted(), other.noted()
        assert len({one["flower"]["url"], two["flower"]["url"]}) == 2
        assert len({one["redis_url"], two["redis_url"]}) == 2
        assert len({one["database_url"], two["database_url"]}) == 2
        already = home.moe("up", "--detach", check=False)
        assert already.returncode == 1
        assert "is running in .moe already" in already.stderr

        home.moe("down")

        assert home.processes() == []
        assert other.json("status")["processes"] == dict.fromkeys(two["processes"], True)
    finally:
        other.moe("down", check=False)
    assert other.processes() == []


def test_flower_asks_for_its_login_and_shows_the_queues(home: Home) -> None:
    home.moe("up", "--detach", "--no-load")
    flower = home.noted()["flower"]
    assert flower["url"].startswith("http://127.0.0.1:")
    wait_for(lambda: _reachable(flower["url"]), "Flower")

    assert http_status(flower["url"] + "/") == 401
    assert http_status(flower["url"] + "/", f"{flower['user']}:wrong") == 401
    assert http_status(flower["url"] + "/", f"{flower['user']}:{flower['password']}") == 200
    assert http_status(flower["url"] + "/api/queues/length") == 401
    noted = home.folder / ".moe" / "stack.json"
    assert noted.stat().st_mode & 0o077 == 0  # it holds passwords
    arguments = [" ".join(psutil.Process(pid).cmdline()) for pid in home.processes()]
    assert not any(flower["password"] in argument for argument in arguments)


def _reachable(url: str) -> bool:
    try:
        return http_status(url + "/healthcheck") > 0
    except OSError:
        return False


def test_what_dies_is_started_again(home: Home) -> None:
    home.moe("up", "--detach", "--no-load")
    noted = home.noted()
    router = int(noted["processes"]["router"]["pid"])
    postgres = int((home.folder / ".moe" / "postgres" / "postmaster.pid").read_text().split("\n")[0])
    redis = int((home.folder / ".moe" / "redis" / "redis.pid").read_text())

    for pid in (router, postgres, redis):
        os.kill(pid, signal.SIGKILL)

    def whole() -> bool:
        found = home.json("status")
        return (
            found["database"] == found["redis"] == "up"
            and all(found["processes"].values())
            and home.noted()["processes"]["router"]["pid"] != router
            and len(found["workers"]) == 4
        )

    wait_for(whole, "everything to be there again", timeout_s=60)


def test_a_killed_supervisor_leaves_a_stack_that_can_be_stopped_or_started(home: Home) -> None:
    home.moe("up", "--detach", "--no-load")
    os.kill(int(home.noted()["supervisor"]["pid"]), signal.SIGKILL)
    time.sleep(0.5)
    assert any("supervisor died" in warning for warning in home.json("status")["warnings"])

    home.moe("up", "--detach", "--no-load")
    assert all(home.json("status")["processes"].values())
    os.kill(int(home.noted()["supervisor"]["pid"]), signal.SIGKILL)
    time.sleep(0.5)
    home.moe("down")

    assert home.processes() == []


def test_two_demonstrations_at_once_do_not_stop_each_other(home: Home) -> None:
    (home.folder / ".moe").mkdir()
    with (home.folder / ".moe" / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        refused = home.moe("demo", "--no-learn", check=False)

    assert refused.returncode == 1
    assert "another demonstration is running in .moe" in refused.stderr
    assert home.processes() == []


def test_commands_without_a_stack_say_how_to_start_one(home: Home) -> None:
    refused = home.moe("batch", "list", check=False)

    assert refused.returncode == 1
    assert "moe up" in refused.stderr
    assert home.moe("down").returncode == 0
