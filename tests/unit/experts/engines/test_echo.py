"""The engine without work."""

from experts.engines.base import EngineAnswer, EngineBatch, EngineQuery
from experts.engines.echo import EchoEngine
from tests.contracts.samples import HOSTILE


def test_it_gives_every_query_back_letter_for_letter() -> None:
    texts = list(HOSTILE.values())
    answers = EchoEngine().answer(EngineBatch("any", {}, [EngineQuery(text) for text in texts], None, None))
    assert answers == [EngineAnswer(text, True, 1.0, ()) for text in texts]
