"""A router that misbehaves on purpose."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from experts.encoders.base import Vectors
from experts.routing import heuristic
from experts.routing.base import Scores


class PoisonRouter(heuristic.HeuristicRouter):
    """The heuristic one; but a query that says ROUTEKILL kills the process, one that says ROUTEBREAK raises."""

    def score(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        for text in texts:
            if "ROUTEKILL" in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if "ROUTEBREAK" in text:
                raise ValueError(f"cannot route {text!r}")
        return super().score(texts, vectors)


def load(folder: Path) -> PoisonRouter:
    plain = heuristic.load(folder)
    return PoisonRouter(plain.experts, {name: [name] for name in plain.experts})


ROUTERS = {"poison": "tests.doubles.routers:load"}
