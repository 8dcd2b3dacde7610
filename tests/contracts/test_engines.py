"""What every engine promises: one honest answer per query, in order, whatever else is in the batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from experts import kinds
from experts.encoders.hashing import HashingEncoder
from experts.engines.base import (
    Engine,
    EngineAnswer,
    EngineBatch,
    EngineQuery,
    EngineSpec,
    GenerativeSpec,
    RemoteSpec,
    make_engine,
)
from experts.errors import ModelUnusable
from experts.knowledge import KnowledgeBase, build
from tests.contracts.samples import DOCUMENTS, HOSTILE, ORDINARY, embed, hostile, knowledge
from tests.doubles import engines as doubles
from tests.support.openai_server import openai_server
from tests.tiny_base import save_tiny_base

# The other doubles misbehave whatever they are asked; this one only when it is told to.
WELL_BEHAVED_DOUBLES = {"poison": doubles.ENGINES["poison"]}
CARD = {"title": "Everything", "description": "Answers anything.", "keywords": ["mortgage"], "limits": []}
LIBRARY = knowledge()
TEXTS = {document.name: document for document in DOCUMENTS}

Ask = Callable[..., list[EngineAnswer]]


@pytest.fixture(scope="module", params=sorted(kinds.ENGINES | WELL_BEHAVED_DOUBLES))
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every registered engine, and a double."""
    with pytest.MonkeyPatch.context() as patch:
        for name, target in WELL_BEHAVED_DOUBLES.items():
            patch.setitem(kinds.ENGINES, name, target)
        yield request.param


@pytest.fixture(scope="module")
def spec(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineSpec]:
    """What the kind needs to answer at all: a base model where it generates, a server where it asks one."""
    if kind == "transformers":
        base = save_tiny_base(tmp_path_factory.mktemp("base") / "tiny")
        yield EngineSpec(generative=GenerativeSpec(str(base), max_tokens=12))
    elif kind == "openai":
        with openai_server("tiny") as server:
            yield EngineSpec(remote=RemoteSpec(server.url, model="tiny"))
    else:
        yield EngineSpec()


@pytest.fixture(scope="module")
def engine(kind: str, spec: EngineSpec) -> Engine:
    return make_engine(kind, spec)


@pytest.fixture(scope="module")
def ask(kind: str, engine: Engine) -> Ask:
    """Asks as workers do: with the queries' embeddings where the kind is registered to need them."""

    def asked(
        texts: Sequence[str],
        *,
        base: KnowledgeBase | None = LIBRARY,
        requests: Sequence[dict[str, Any] | None] | None = None,
    ) -> list[EngineAnswer]:
        queries = [EngineQuery(t, r) for t, r in zip(texts, requests or [None] * len(texts), strict=True)]
        vectors = embed(texts) if kind in kinds.ENGINES_WITH_VECTORS else None
        return engine.answer(EngineBatch("everything", CARD, queries, vectors, base))

    return asked


def assert_alike(found: Sequence[EngineAnswer], expected: Sequence[EngineAnswer]) -> None:
    """The same words from the same passages; the scores to the third decimal."""
    assert [a.text for a in found] == [a.text for a in expected]
    assert [a.answered for a in found] == [a.answered for a in expected]
    assert [a.confidence for a in found] == pytest.approx([a.confidence for a in expected], abs=1e-3)
    spans = [[(p.document, p.title, p.start, p.end) for p in a.passages] for a in found]
    assert spans == [[(p.document, p.title, p.start, p.end) for p in a.passages] for a in expected]
    scores = [p.score for a in found for p in a.passages]
    assert scores == pytest.approx([p.score for a in expected for p in a.passages], abs=1e-3)


def assert_sound(answer: EngineAnswer) -> None:
    """An answer that can be stored, and whose citations point into the documents."""
    assert type(answer.text) is str
    assert answer.text.encode().decode() == answer.text
    assert type(answer.answered) is bool
    assert 0 <= answer.confidence <= 1
    for passage in answer.passages:
        document = TEXTS[passage.document]
        assert passage.title == document.title
        assert 0 <= passage.start < passage.end <= len(document.text)
        assert -1.001 <= passage.score <= 1.001


def test_every_query_gets_one_sound_answer(ask: Ask) -> None:
    answers = ask(ORDINARY)
    assert len(answers) == len(ORDINARY)
    for answer in answers:
        assert_sound(answer)
        assert answer.text.strip()


def test_no_queries_get_no_answers(ask: Ask) -> None:
    assert ask([]) == []


def test_a_query_is_answered_the_same_alone_and_in_company_in_any_order(ask: Ask) -> None:
    texts = [*ORDINARY, ORDINARY[0]]
    alone = [ask([text])[0] for text in texts]
    assert_alike(ask(texts), alone)
    assert_alike(ask(texts[::-1]), alone[::-1])


@hostile
def test_a_hostile_query_is_answered_and_leaves_its_neighbours_alone(ask: Ask, text: str) -> None:
    first, answer, last = ask([ORDINARY[0], text, ORDINARY[2]])
    assert_sound(answer)
    assert_alike([first, last], ask([ORDINARY[0], ORDINARY[2]]))


def test_the_same_batch_gets_the_same_answers_every_time(ask: Ask) -> None:
    texts = [*ORDINARY, *HOSTILE.values()]
    assert ask(texts) == ask(texts)


def test_a_second_engine_of_the_kind_gives_the_same_answers(kind: str, spec: EngineSpec, ask: Ask) -> None:
    vectors = embed(ORDINARY) if kind in kinds.ENGINES_WITH_VECTORS else None
    queries = [EngineQuery(text) for text in ORDINARY]
    batch = EngineBatch("everything", CARD, queries, vectors, knowledge())
    assert make_engine(kind, spec).answer(batch) == ask(ORDINARY)


@pytest.mark.parametrize("base", [None, build([], HashingEncoder())[0]], ids=["no library", "an empty library"])
def test_an_expert_without_documents_still_answers_every_query(ask: Ask, base: KnowledgeBase | None) -> None:
    answers = ask(ORDINARY, base=base)
    assert len(answers) == len(ORDINARY)
    for answer in answers:
        assert_sound(answer)
        assert list(answer.passages) == []


def test_what_else_the_request_held_does_not_break_an_answer(ask: Ask) -> None:
    requests = [
        None,
        {},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ORDINARY[2]}]},
        {"temperature": 0, "max_tokens": 1, "stop": ["\n"], "unheard_of": [None]},
    ]
    answers = ask(ORDINARY, requests=requests)
    assert len(answers) == len(ORDINARY)
    for answer in answers:
        assert_sound(answer)


def test_an_engine_that_reads_embeddings_says_so_when_there_are_none(kind: str, engine: Engine) -> None:
    batch = EngineBatch("everything", CARD, [EngineQuery(ORDINARY[0])], None, knowledge())
    if kind in kinds.ENGINES_WITH_VECTORS:
        with pytest.raises(ModelUnusable, match="embeddings"):
            engine.answer(batch)
    else:
        assert len(engine.answer(batch)) == 1
