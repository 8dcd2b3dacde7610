"""Answers by a language model: one frozen base, and each expert's adapter on it.

Where the expert's card says ``retrieval: true`` and it has a knowledge base, the passages nearest to the query stand in
its prompt and are cited.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experts.adapters.files import check_adapter, state
from experts.adapters.fingerprint import check_fingerprint
from experts.engines.base import (
    AdapterReference,
    CitedPassage,
    EngineAnswer,
    EngineBatch,
    EngineSpec,
    GenerativeSpec,
    Usage,
)
from experts.engines.requests import Wish, read_wish
from experts.engines.retrieval import Found, retrieve
from experts.errors import ExpertsError, ModelUnusable
from experts.language.base import Base, BaseSpec, load_base
from experts.language.prompting import USER, Turn, encode_prompt
from experts.serving.adapters import AdapterLayers, Weights
from experts.serving.generation import Generated, GenerationSpec, Generator, Row
from experts.serving.plan import count_swaps
from experts.serving.residency import Residency, ResidencySpec, ResidencyStatistics

Answers = list[EngineAnswer] | ExpertsError


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query as the base is asked it, or why it cannot be."""

    row: Row | None
    passages: Sequence[CitedPassage] = ()
    refusal: str = ""


class GenerativeEngine:
    """Generates with ``base``; ``read`` gives the weights of an adapter, checked against that base.

    ``prove`` is called once with each adapter, before it answers anything, and raises ModelUnusable to refuse it.
    """

    def __init__(
        self,
        base: Base,
        spec: EngineSpec,
        read: Callable[[AdapterReference], Weights],
        prove: Callable[[AdapterReference], None],
    ) -> None:
        self._base, self._passages = base, spec.passages
        self._spec = spec.generative or GenerativeSpec(base.spec.name)
        self._generator = Generator(
            base.model, base.tokenizer, GenerationSpec(self._spec.rows, self._spec.tokens, self._spec.prompt_tokens)
        )
        self._layers = AdapterLayers(base.model)
        self._adapters = Residency(
            self._layers, _for_base(base, read), ResidencySpec(self._spec.adapters, self._spec.adapter_bytes)
        )
        self.swaps_avoided = 0
        self._prove, self._proven = prove, set[AdapterReference]()
        encode_prompt(base.tokenizer, [Turn(USER, "?")])  # a base that can be asked nothing is refused here

    @property
    def statistics(self) -> ResidencyStatistics:
        """What was done to hold the adapters."""
        return self._adapters.statistics

    def residency(self) -> dict[str, float]:
        """The same, and how many swaps of adapters reordering avoided."""
        return asdict(self.statistics) | {"swaps_avoided": self.swaps_avoided}

    def resident(self) -> list[AdapterReference]:
        """The adapters in memory, the one used last first."""
        return [adapter for adapter in self._adapters.resident() if isinstance(adapter, AdapterReference)]

    def answer(self, batch: EngineBatch) -> list[EngineAnswer]:
        """Raises ModelUnusable if the expert's adapter cannot be used: it is never answered by the base alone."""
        [answers] = self.answer_many([batch])
        if isinstance(answers, ExpertsError):
            raise answers
        return answers

    def answer_many(self, batches: Sequence[EngineBatch]) -> list[Answers]:
        """The answers to batches of several experts, made together; for a batch that cannot be answered, the error."""
        asked: list[list[_Asked] | ExpertsError] = [self._ask(batch) for batch in batches]
        rows = [query.row for queries in asked if isinstance(queries, list) for query in queries if query.row]
        arrived = [row.adapter for row in rows]
        before = self._adapters.resident()
        swaps, loads = count_swaps(arrived, before, self._spec.adapters), self.statistics.loads
        made = iter(self._generator.generate(rows, self._adapters))
        self.swaps_avoided += max(0, swaps - (self.statistics.loads - loads))
        return [_collect(queries, made) for queries in asked]

    def close(self) -> None:
        """Take every adapter off the base."""
        self._layers.detach()

    def _ask(self, batch: EngineBatch) -> list[_Asked] | ExpertsError:
        try:
            if batch.card.get("adapter") and batch.adapter is None:
                raise ModelUnusable(f"the card of {batch.expert} names an adapter, but there is none")
            if batch.adapter is not None and batch.adapter not in self._proven:
                self._prove(batch.adapter)
                self._proven.add(batch.adapter)
            passages = retrieve(batch, self._passages)
            return [
                self._ask_one(read_wish(query, self._spec.max_tokens), batch, found)
                for query, found in zip(batch.queries, passages, strict=True)
            ]
        except ExpertsError as error:
            return error

    def _ask_one(self, wish: Wish, batch: EngineBatch, found: Sequence[Found]) -> _Asked:
        """As many of the passages as leave room for the answer; without room for any, the question alone."""
        context = self._generator.context
        for n in range(len(found), -1, -1):
            try:
                prompt = encode_prompt(self._base.tokenizer, wish.turns, [passage.text for passage in found[:n]])
            except ModelUnusable as error:
                return _Asked(None, refusal=f"The {batch.expert} expert cannot be asked this: {error}")
            if len(prompt) + wish.max_tokens <= context or (n == 0 and len(prompt) < context):
                row = Row(prompt, wish.max_tokens, batch.adapter, wish.sampling, wish.stop)
                return _Asked(row, [passage.cited for passage in found[:n]])
        refusal = f"The question is too long for the {batch.expert} expert: {len(prompt)} tokens of {context - 1}."
        return _Asked(None, refusal=refusal)


def adapter_reader(base: Base) -> Callable[[AdapterReference], Weights]:
    """Reads adapters from their folders. What is read raises ModelUnusable where the folder is not what was meant."""

    def read(adapter: AdapterReference) -> Weights:
        info = check_adapter(Path(adapter.folder), base)
        if info.sha256 != adapter.sha256:
            raise ModelUnusable(f"the adapter in {adapter.folder} is {info.sha256[:12]}, not {adapter.sha256[:12]}")
        return state(Path(adapter.folder))

    return read


def prove(base: Base, adapter: AdapterReference) -> None:
    """Ask an adapter what it was asked when it was trained. Raises ModelUnusable unless it says the same again."""
    folder = Path(adapter.folder)
    check_fingerprint(base, state(folder), check_adapter(folder, base).fingerprint)


def _for_base(base: Base, read: Callable[[AdapterReference], Weights]) -> Callable[[Hashable], Weights]:
    def checked(adapter: Hashable) -> Weights:
        assert isinstance(adapter, AdapterReference)
        if adapter.base_sha256 != base.sha256:
            raise ModelUnusable(
                f"adapter {adapter.sha256[:12]} was trained on base {adapter.base_sha256[:12]}, "
                f"and {base.spec.name} is {base.sha256[:12]}"
            )
        return read(adapter)

    return checked


def _collect(queries: list[_Asked] | ExpertsError, made: Any) -> Answers:
    """One answer per query; every row of the batch is taken from ``made``, also where one of them failed."""
    if isinstance(queries, ExpertsError):
        return queries
    results = [(query, next(made) if query.row is not None else None) for query in queries]
    failed = next((result for _, result in results if isinstance(result, ExpertsError)), None)
    return failed if failed is not None else [_answer(query, result) for query, result in results]


def _answer(query: _Asked, made: Generated | None) -> EngineAnswer:
    if made is None:
        return EngineAnswer(query.refusal, False, 0.0)
    usage = Usage(made.prompt_tokens, len(made.tokens))
    text = made.text.strip()
    if not text:
        return EngineAnswer("The expert had nothing to say.", False, 0.0, (), usage, made.finish_reason)
    confidence = round(min(made.confidence, 1.0), 4)
    return EngineAnswer(text, True, confidence, query.passages, usage, made.finish_reason)


def make(spec: EngineSpec) -> GenerativeEngine:
    """The engine on the base that ``spec.generative`` names. Raises ModelUnusable."""
    chosen = spec.generative
    if chosen is None:
        raise ModelUnusable("the transformers engine needs a base model; name one in the setting engine.base")
    base = load_base(BaseSpec(chosen.base, chosen.dtype, chosen.device, chosen.load_in_8bit, chosen.threads))
    return GenerativeEngine(base, spec, adapter_reader(base), partial(prove, base))
