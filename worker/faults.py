"""Places where a test can make a worker die, stall or fail, to prove that nothing is lost there.

``MOE_FAULTS="chunk.claimed=kill:0.1,finalize.written=raise"`` arms points by name: ``kill`` sends SIGKILL to the own
process, ``exit`` leaves it, ``raise`` raises, ``sleep`` stalls for a minute; a number is the chance. Without the
variable a point costs one dictionary look-up.
"""

import os
import random
import signal
import time

POINTS = (
    "shard.claimed",
    "shard.routed",
    "shard.settled",
    "chunk.claimed",
    "chunk.answered",
    "chunk.settled",
    "combine.claimed",
    "combine.settled",
    "finalize.claimed",
    "finalize.written",
    "finalize.settled",
)


ACTIONS = ("kill", "exit", "raise", "sleep")


class InjectedFault(Exception):
    """Raised where a test asked for it."""


def armed() -> dict[str, tuple[str, float]]:
    """Point -> (action, chance), from the environment. Raises ValueError for what is misspelt."""
    faults = {}
    for part in filter(None, os.environ.get("MOE_FAULTS", "").split(",")):
        point, _, action = part.partition("=")
        action, _, chance = action.partition(":")
        if point not in POINTS:
            raise ValueError(f"MOE_FAULTS names {point!r}; the points are {', '.join(POINTS)}")
        if action not in ACTIONS:
            raise ValueError(f"MOE_FAULTS wants {action!r} at {point}; the actions are {', '.join(ACTIONS)}")
        faults[point] = (action, float(chance or 1))
    return faults


def fault_point(name: str) -> None:
    """Do here what was armed for ``name``, if anything."""
    if "MOE_FAULTS" not in os.environ:
        return
    action, chance = armed().get(name, ("", 0.0))
    if random.random() >= chance:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "exit":
        os._exit(70)
    elif action == "sleep":
        time.sleep(60)
    elif action == "raise":
        raise InjectedFault(name)
