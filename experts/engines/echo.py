"""An engine without work: it gives the query back. For measuring and testing everything around an engine."""

from experts.engines.base import EngineAnswer, EngineBatch, EngineSpec


class EchoEngine:
    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        return [EngineAnswer(query.text, True, 1.0) for query in batch.queries]


def make(spec: EngineSpec) -> EchoEngine:
    return EchoEngine()
