import os
import signal
import subprocess
import sys

import pytest

from tests.architecture.sources import ROOT
from worker.faults import POINTS, InjectedFault, armed, fault_point


@pytest.fixture(autouse=True)
def unarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOE_FAULTS", raising=False)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", {}),
        ("chunk.claimed=kill", {"chunk.claimed": ("kill", 1.0)}),
        ("chunk.claimed=kill:0.1", {"chunk.claimed": ("kill", 0.1)}),
        (
            "chunk.claimed=kill:0.1,finalize.written=raise",
            {"chunk.claimed": ("kill", 0.1), "finalize.written": ("raise", 1.0)},
        ),
        ("chunk.claimed=sleep,", {"chunk.claimed": ("sleep", 1.0)}),
        ("shard.routed=exit:0", {"shard.routed": ("exit", 0.0)}),
    ],
)
def test_points_are_armed_by_name_with_an_action_and_a_chance(
    given: str, found: dict[str, tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_FAULTS", given)
    assert armed() == found


def test_without_the_variable_nothing_is_armed() -> None:
    assert armed() == {}
    for point in POINTS:
        fault_point(point)


def test_an_unknown_point_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_FAULTS", "chunk.claimd=kill")
    with pytest.raises(ValueError, match=r"MOE_FAULTS names 'chunk.claimd'; the points are shard.claimed, .*settled$"):
        armed()


@pytest.mark.parametrize("given", ["chunk.claimed=kil", "chunk.claimed", "chunk.claimed=", "chunk.claimed=kill:often"])
def test_a_misspelt_action_or_chance_does_not_pass_for_no_fault(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_FAULTS", given)
    with pytest.raises(ValueError):
        armed()


def test_an_armed_point_raises_and_the_others_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_FAULTS", "chunk.answered=raise")
    with pytest.raises(InjectedFault, match=r"^chunk\.answered$"):
        fault_point("chunk.answered")
    for point in set(POINTS) - {"chunk.answered"}:
        fault_point(point)


def test_a_chance_of_nothing_never_comes_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_FAULTS", "chunk.answered=kill:0")
    for _ in range(100):
        fault_point("chunk.answered")


@pytest.mark.parametrize(("action", "code"), [("kill", -signal.SIGKILL), ("exit", 70)])
def test_a_process_dies_where_it_is_told_to(action: str, code: int) -> None:
    program = "from worker.faults import fault_point\nfault_point('chunk.claimed')\nprint('alive')\n"
    program += "fault_point('chunk.answered')\nprint('still alive')"
    done = subprocess.run(
        [sys.executable, "-u", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MOE_FAULTS": f"chunk.answered={action}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (code, "alive\n")
