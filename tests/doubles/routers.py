"""A router that misbehaves on purpose."""

import os
import signal

from experts.routing.base import Floats
from experts.routing.kinds import heuristic
from experts.routing.known import Queries


class PoisonRouter(heuristic.Router):
    """The heuristic one; but a query that says ROUTEKILL kills the process, one that says ROUTEBREAK raises."""

    def score(self, queries: Queries) -> Floats:
        for text in queries.texts:
            if "ROUTEKILL" in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if "ROUTEBREAK" in text:
                raise ValueError(f"cannot route {text!r}")
        return super().score(queries)


ROUTERS = {"poison": "tests.doubles.routers:PoisonRouter"}
