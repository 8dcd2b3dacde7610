"""Experts as adapters on one base: each answered by its own, or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from experts.adapters.files import adapter_files
from experts.adapters.fingerprint import take_fingerprint
from experts.adapters.spec import LoraSpec
from experts.documents import Document
from experts.encoders.hashing import HashingEncoder
from experts.engines.base import (
    AdapterReference,
    EngineAnswer,
    EngineBatch,
    EngineQuery,
    EngineSpec,
    GenerativeSpec,
    make_engine,
)
from experts.engines.generative import GenerativeEngine
from experts.errors import ModelUnusable
from experts.knowledge import KnowledgeBase, build
from experts.language.adapting import AdapterWeights, applied
from experts.language.base import Base, BaseSpec, load_base, weights_sha256
from experts.language.prompting import USER, Turn, encode_prompt
from tests.tiny_base import save_tiny_base
from tests.unit.experts.serving.builders import ALL, adapter

TEXTS = ["why?", "tell me what a mortgage is", "x", "where do I send it, and when?"]
SPEC = EngineSpec(2, generative=GenerativeSpec("", max_tokens=10, adapters=2))
ENCODER = HashingEncoder()
LIBRARY = build([Document("ash", "Ash", "Ash stops planes. Basalt is dark.")], ENCODER)[0]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(BaseSpec(str(save_tiny_base(tmp_path_factory.mktemp("base") / "tiny"))))


@pytest.fixture(scope="module")
def weights(base: Base) -> dict[str, AdapterWeights]:
    return {name: adapter(base.model, at, targets=ALL) for at, name in enumerate("abc")}


@pytest.fixture
def engine(base: Base, weights: dict[str, AdapterWeights]) -> GenerativeEngine:
    def read(reference: AdapterReference) -> AdapterWeights:
        if reference.folder not in weights:
            raise ModelUnusable(f"{reference.folder} holds no adapter")
        return weights[reference.folder]

    return GenerativeEngine(base, SPEC, read, lambda reference: None)


def batch(base: Base, expert: str | None, requests: Mapping[int, dict[str, Any]] | None = None) -> EngineBatch:
    queries = [EngineQuery(text, (requests or {}).get(at)) for at, text in enumerate(TEXTS)]
    reference = None if expert is None else AdapterReference(expert, expert * 64, base.sha256)
    return EngineBatch(expert or "plain", {}, queries, None, None, reference)


def plain(base: Base, text: str, held: AdapterWeights | None) -> str:
    """The library's own generation of ten tokens, under the plain formula of LoRA."""
    ids = torch.tensor([encode_prompt(base.tokenizer, [Turn(USER, text)])])
    with torch.inference_mode(), applied(base.model, held):
        found = base.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, pad_token_id=0
        )
    decoded: str = base.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)
    return decoded.strip()


def test_an_expert_answers_with_its_own_adapter(
    base: Base, weights: dict[str, AdapterWeights], engine: GenerativeEngine
) -> None:
    for expert in ("a", "b", None, "c"):
        answers = engine.answer(batch(base, expert))
        assert [answer.text for answer in answers] == [plain(base, text, weights.get(expert or "")) for text in TEXTS]
    engine.close()
    assert weights_sha256(base.model) == base.sha256


def test_several_experts_are_answered_in_one_pass_as_they_are_one_by_one(base: Base, engine: GenerativeEngine) -> None:
    batches = [batch(base, expert) for expert in ("a", "b", None, "c", "a", "b")]
    together = engine.answer_many(batches)
    assert engine.statistics.loads == 3
    assert engine.swaps_avoided > 0
    assert together == [engine.answer(one) for one in batches]


def test_an_adapter_of_another_base_is_never_answered_by_the_base_alone(base: Base, engine: GenerativeEngine) -> None:
    good, bad = batch(base, "a"), batch(base, "b")
    foreign = EngineBatch("b", {}, bad.queries, None, None, AdapterReference("b", "b" * 64, "0" * 64))
    with pytest.raises(ModelUnusable, match="trained on base 000000000000"):
        engine.answer(foreign)
    found = engine.answer_many([foreign, good])
    assert isinstance(found[0], ModelUnusable)
    assert found[1] == engine.answer(good)


def test_an_adapter_that_is_not_there_fails_its_batch(base: Base, engine: GenerativeEngine) -> None:
    with pytest.raises(ModelUnusable, match="holds no adapter"):
        engine.answer(batch(base, "z"))
    named = EngineBatch("z", {"adapter": "z"}, [EngineQuery("x")], None, None)
    with pytest.raises(ModelUnusable, match="names an adapter"):
        engine.answer(named)


class Prover:
    """Remembers which adapters it was asked to prove; refuses those of ``bad``."""

    def __init__(self, *bad: str) -> None:
        self.bad = bad
        self.asked: list[str] = []

    def __call__(self, reference: AdapterReference) -> None:
        self.asked.append(reference.folder)
        if reference.folder in self.bad:
            raise ModelUnusable(f"{reference.folder} says something else than when it was trained")


def test_an_adapter_that_is_refused_answers_nothing_and_harms_no_other(
    base: Base, weights: dict[str, AdapterWeights]
) -> None:
    prover, read = Prover("b"), []

    def load(reference: AdapterReference) -> AdapterWeights:
        read.append(reference.folder)
        return weights[reference.folder]

    engine = GenerativeEngine(base, SPEC, load, prover)
    with pytest.raises(ModelUnusable, match="says something else"):
        engine.answer(batch(base, "b"))
    refused, good, again = engine.answer_many([batch(base, name) for name in ("b", "a", "b")])

    assert isinstance(refused, ModelUnusable)
    assert isinstance(again, ModelUnusable)
    assert isinstance(good, list)
    assert [answer.text for answer in good] == [plain(base, text, weights["a"]) for text in TEXTS]
    assert read == ["a"]
    assert prover.asked == ["b", "b", "a", "b"]
    engine.close()


def test_an_adapter_is_asked_once_for_its_proof_also_after_it_had_to_make_room(
    base: Base, weights: dict[str, AdapterWeights]
) -> None:
    prover = Prover()
    engine = GenerativeEngine(base, SPEC, lambda reference: weights[reference.folder], prover)
    for expert in ("a", "b", None, "c", "a", "c", "a"):
        engine.answer(batch(base, expert))
    assert prover.asked == ["a", "b", "c"]
    engine.close()


def test_the_parameters_of_a_request_are_kept(base: Base, engine: GenerativeEngine) -> None:
    whole = engine.answer(batch(base, "a"))
    assert all(answer.usage is not None and answer.usage.completion_tokens <= 10 for answer in whole)
    stop = whole[1].text[2:4]
    short, stopped, strange, long = engine.answer(
        batch(base, "a", {0: {"max_tokens": 3}, 1: {"stop": stop}, 2: {"max_tokens": "many"}, 3: {"max_tokens": 30}})
    )
    assert short.usage is not None
    assert short.usage.completion_tokens == 3
    assert short.finish_reason == "length"
    assert stopped.text == whole[1].text[: whole[1].text.index(stop)].strip()
    assert stopped.finish_reason == "stop"
    assert strange == whole[2]
    assert long.text.startswith(whole[3].text)


def test_sampling_depends_on_the_seed_alone(base: Base, engine: GenerativeEngine) -> None:
    def ask(seed: int, text: str = "x") -> EngineAnswer:
        query = EngineQuery(text, {"temperature": 1.5, "seed": seed})
        one = EngineBatch("a", {}, [EngineQuery("other"), query], None, None)
        return engine.answer(one)[1]

    assert ask(1) == ask(1)
    assert len({ask(seed).text for seed in range(5)}) > 1


def test_turns_and_instructions_are_part_of_the_prompt(base: Base, engine: GenerativeEngine) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "why?"}]},
    ]
    with_system, alone = batch(base, None, {0: {"messages": messages}}), batch(base, None)
    told, untold = engine.answer(with_system)[0], engine.answer(alone)[0]
    assert told.usage is not None
    assert untold.usage is not None
    assert told.usage.prompt_tokens == untold.usage.prompt_tokens + len("Be brief.") + 1  # and its control token


def test_passages_stand_in_the_prompt_where_the_card_says_so(base: Base, engine: GenerativeEngine) -> None:
    def ask(card: dict[str, Any], knowledge: KnowledgeBase | None, text: str = "ash?") -> EngineAnswer:
        [found] = engine.answer(EngineBatch("a", card, [EngineQuery(text)], ENCODER.encode([text]), knowledge))
        return found

    without, read = ask({}, LIBRARY), ask({"retrieval": True}, LIBRARY)
    assert list(without.passages) == []
    assert [passage.document for passage in read.passages] == ["ash"]
    assert read.usage is not None
    assert without.usage is not None
    assert read.usage.prompt_tokens > without.usage.prompt_tokens + len("Ash stops planes.")
    assert ask({"retrieval": True}, None) == without
    crowded = ask({"retrieval": True}, LIBRARY, "a" * 480)
    assert list(crowded.passages) == []
    assert crowded.answered


def test_passages_need_the_queries_embeddings(engine: GenerativeEngine) -> None:
    with pytest.raises(ModelUnusable, match="embeddings"):
        engine.answer(EngineBatch("a", {"retrieval": True}, [EngineQuery("x")], None, LIBRARY))


def test_a_question_that_is_too_long_is_said_to_be_and_harms_no_other(base: Base, engine: GenerativeEngine) -> None:
    queries = [EngineQuery("why?"), EngineQuery("a" * 600), EngineQuery("x")]
    first, long, last = engine.answer(EngineBatch("law", {}, queries, None, None))
    assert not long.answered
    assert "too long for the law expert" in long.text
    assert [first, last] == engine.answer(EngineBatch("law", {}, [queries[0], queries[2]], None, None))


def test_an_adapter_is_read_from_its_files_and_not_once_they_are_others(
    base: Base, weights: dict[str, AdapterWeights], tmp_path: Path
) -> None:
    spec = LoraSpec(rank=4, alpha=8, target_modules=ALL)
    for name in ("a", "b"):
        held = weights[name]
        (tmp_path / name).mkdir()
        for file, content in adapter_files(base, held, spec, take_fingerprint(base, held, ("why?",))).items():
            (tmp_path / name / file).write_bytes(content)
    engine = make_engine("transformers", EngineSpec(generative=GenerativeSpec(base.spec.name, max_tokens=10)))
    queries = [EngineQuery(text) for text in TEXTS]

    def ask(name: str, sha256: str) -> list[EngineAnswer]:
        reference = AdapterReference(str(tmp_path / name), sha256, base.sha256)
        return engine.answer(EngineBatch(name, {}, queries, None, None, reference))

    found = [answer.text for answer in ask("a", weights["a"].sha256)]
    assert found == [plain(base, text, weights["a"]) for text in TEXTS]
    with pytest.raises(ModelUnusable, match=weights["b"].sha256[:12]):
        ask("b", weights["a"].sha256)
    with pytest.raises(ModelUnusable):
        ask("nowhere", weights["a"].sha256)
    (tmp_path / "b" / "adapter_model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelUnusable):
        ask("b", weights["b"].sha256)


def test_without_a_base_there_is_no_engine(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="base"):
        make_engine("transformers", EngineSpec())
    with pytest.raises(ModelUnusable):
        make_engine("transformers", EngineSpec(generative=GenerativeSpec(str(tmp_path))))
