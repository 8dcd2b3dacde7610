"""Engines that misbehave on purpose. Workers of acceptance tests register them under their names."""

import os
import signal
import time

from experts.engines.base import EngineAnswer, EngineBatch, EngineSpec


class PoisonEngine:
    """Echo; but a query that says POISON kills the process, one that says BROKEN raises."""

    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        for query in batch.queries:
            if "POISON" in query.text:
                os.kill(os.getpid(), signal.SIGKILL)
            if "BROKEN" in query.text:
                raise ValueError(f"cannot digest {query.text!r}")
        return [EngineAnswer(query.text, True, 1.0) for query in batch.queries]


class SlowEngine:
    """Echo, after 20 ms per query."""

    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        time.sleep(0.02 * len(batch.queries))
        return [EngineAnswer(query.text, True, 1.0) for query in batch.queries]


class FilthyEngine:
    """Answers with what no database or file should hold."""

    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        filth = {"NUL": "before\x00after", "SURROGATE": "lone \ud800 one", "EMPTY": " \n", "HUGE": "x" * 1_000_000}
        return [
            EngineAnswer(next((bad for word, bad in filth.items() if word in query.text), query.text), True, 2.5)
            for query in batch.queries
        ]


def poison(spec: EngineSpec) -> PoisonEngine:
    return PoisonEngine()


def slow(spec: EngineSpec) -> SlowEngine:
    return SlowEngine()


def filthy(spec: EngineSpec) -> FilthyEngine:
    return FilthyEngine()


ENGINES = {name: f"tests.doubles.engines:{name}" for name in ("poison", "slow", "filthy")}
