"""Answers to many prompts under many adapters: rows join and leave one running batch, bounded by tokens.

A step is one forward pass over one new token of each running row and the whole prompts of the rows that join (Yu et
al., 2022, "Orca"). Rows come in order of their adapters, so that a step has few of them, each with many rows.
"""

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from experts.errors import ExpertsError, ModelUnusable
from experts.serving.adapters import Group
from experts.serving.attention import STEP, Joining, Lanes, Running, Step, UsedBy, joining, running
from experts.serving.order import arrange
from experts.serving.parameters import Sampling
from experts.serving.sampling import Draws, choose
from experts.serving.stopping import Stops, end_tokens

STOP, LENGTH = "stop", "length"
_GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and how it is to be answered. ``adapter`` None is the base itself; ``stop`` are strings."""

    prompt: Sequence[int]
    max_tokens: int
    adapter: Hashable | None = None
    sampling: Sampling = _GREEDY
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer. ``tokens`` are all that were made, an end token among them; ``text`` ends before what stopped it.

    ``confidence`` is the mean of the probabilities the model gave its tokens, 0 without any.
    """

    tokens: list[int]
    text: str
    finish_reason: str
    prompt_tokens: int
    confidence: float


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """At most ``rows`` run at once, at most ``tokens`` of prompts and answers together; a step takes in prompts of at
    most ``prompt_tokens``. A single row may be larger than either."""

    rows: int = 64
    tokens: int = 16384
    prompt_tokens: int = 512


class Adapters(Protocol):
    """Where adapters come from, and what lays them under a pass."""

    def hold(self, adapter: Hashable) -> bool:
        """Have it resident until it is released; False if there is no room before others are. Raises ExpertsError."""
        ...

    def release(self, adapter: Hashable) -> None: ...

    def use(self, groups: Sequence[Group], device: torch.device | str) -> None: ...

    def resident(self) -> Sequence[Hashable]: ...


@dataclass(slots=True)
class _Live:
    """A running row."""

    place: int  # among the rows asked for
    row: Row
    stops: Stops
    draws: Draws | None
    length: int  # tokens in its lane
    tokens: list[int] = field(default_factory=list)
    probability: float = 0.0

    def end(self, context: int) -> str | None:
        """Why the row ends with its last token, or None."""
        if self.stops.reached(self.tokens):
            return STOP
        full = len(self.tokens) >= self.row.max_tokens or self.length + 1 > context
        return LENGTH if full else None

    def finish(self, reason: str) -> Generated:
        mean = self.probability / len(self.tokens) if self.tokens else 0.0
        text = self.stops.text(self.tokens)
        return Generated(self.tokens, text, reason, len(self.row.prompt), mean)


class Generator:
    """Generates with one model of transformers, one call at a time; ``tokenizer`` turns tokens into text.

    Raises ModelUnusable for a model whose attention cannot be replaced, or that is spread over several devices.
    """

    def __init__(self, model: Any, tokenizer: Any, spec: GenerationSpec | None = None) -> None:
        if not getattr(model, "_supports_attention_backend", False):
            raise ModelUnusable(f"{type(model).__name__} does not let its attention be replaced")
        devices = sorted({str(weight.device) for weight in model.parameters()})
        if len(devices) > 1:
            raise ModelUnusable(f"the base is spread over {', '.join(devices)}; answers are generated on one device")
        self.model, self.tokenizer = model, tokenizer
        self.spec = spec or GenerationSpec()
        self.context: int = model.config.max_position_embeddings
        self.ends = end_tokens(model, tokenizer)

    def generate(self, rows: Sequence[Row], adapters: Adapters | None = None) -> list[Generated | ExpertsError]:
        """One answer per row, in order; in place of one, the error that kept its adapter from being used.

        Raises ValueError for a row without a prompt, or one whose prompt leaves no room for an answer.
        """
        for row in rows:
            if not 0 < len(row.prompt) < self.context or row.max_tokens < 1:
                raise ValueError(
                    f"a prompt of {len(row.prompt)} tokens with {row.max_tokens} to come; "
                    f"the base reads 1 to {self.context - 1} and makes at least 1"
                )
        done: dict[int, Generated | ExpertsError] = {}
        device = self.model.get_input_embeddings().weight.device
        needs = [min(len(row.prompt) + row.max_tokens, self.context) for row in rows]
        keys = [row.adapter for row in rows]
        resident = adapters.resident() if adapters is not None else ()
        with torch.inference_mode(), UsedBy(self.model):
            for part in arrange(keys, needs, resident, self.spec.rows, self.spec.tokens):
                length = max(needs[place] for place in part)
                lanes = max(1, min(self.spec.rows, self.spec.tokens // length, len(part)))
                store = Lanes(self.model.config, lanes, length, self.model.dtype, device)
                _Stretch(self, rows, deque(part), store, adapters, done).run()
        return [done[place] for place in range(len(rows))]


class _Stretch:
    """Rows of about one length, run through one block of lanes."""

    def __init__(
        self,
        generator: Generator,
        rows: Sequence[Row],
        waiting: deque[int],
        store: Lanes,
        adapters: Adapters | None,
        done: dict[int, Generated | ExpertsError],
    ) -> None:
        self._generator, self._rows, self._waiting = generator, rows, waiting
        self._store, self._adapters, self._done = store, adapters, done
        self._device = store.keys.device
        self._live: dict[int, _Live] = {}  # by lane, in order of their adapters
        self._running: Counter[Hashable] = Counter()
        self._changed = True

    def run(self) -> None:
        try:
            while self._waiting or self._live:
                if self._changed and self._live:
                    self._tidy()
                joined = self._admit()
                if joined or self._live:
                    self._step(joined)
        finally:
            for adapter, n in list(self._running.items()):
                if n:
                    self._release(adapter, n)
            if self._adapters is not None:
                self._adapters.use((), self._device)

    def _admit(self) -> dict[int, _Live]:
        """The rows that join now, by lane."""
        if not self._waiting or len(self._live) == self._store.lanes:
            return {}
        free = [lane for lane in range(self._store.lanes) if lane not in self._live]
        joined: dict[int, _Live] = {}
        longest = 0
        while self._waiting and len(joined) < len(free):
            place = self._waiting[0]
            row = self._rows[place]
            longest = max(longest, len(row.prompt))
            if joined and longest * (len(joined) + 1) > self._generator.spec.prompt_tokens:
                break
            held = self._hold(row.adapter)
            if held is False and not joined and not self._live:
                raise RuntimeError(f"there is no room for adapter {row.adapter!r} though no row is running")
            if held is False:
                break
            self._waiting.popleft()
            if held is not True:
                self._done[place] = held
                continue
            self._running[row.adapter] += 1
            joined[free[len(joined)]] = self._start(place, row)
        return joined

    def _start(self, place: int, row: Row) -> _Live:
        stops = Stops(self._generator.ends, self._generator.tokenizer, row.stop)
        draws = Draws(row.sampling) if row.sampling.temperature > 0 else None
        return _Live(place, row, stops, draws, len(row.prompt))

    def _hold(self, adapter: Hashable | None) -> bool | ExpertsError:
        if adapter is None or self._running[adapter]:
            return True
        if self._adapters is None:
            raise ValueError(f"a row names the adapter {adapter!r}, but there are no adapters")
        try:
            return self._adapters.hold(adapter)
        except ExpertsError as error:
            return error

    def _release(self, adapter: Hashable | None, n: int = 1) -> None:
        self._running[adapter] -= n
        if adapter is not None and not self._running[adapter] and self._adapters is not None:
            self._adapters.release(adapter)

    def _step(self, joined: dict[int, _Live]) -> None:
        """One forward pass, and what follows from its tokens."""
        step = Step(self._store, self._layout() if self._live else None, self._join(joined) if joined else None)
        rows = [*self._live.values(), *joined.values()]
        ids = [live.tokens[-1] for live in self._live.values()]
        ids += [token for live in joined.values() for token in live.row.prompt]
        positions = [part.positions for part in (step.running, step.joining) if part is not None]
        if self._adapters is not None:
            self._adapters.use(_groups(list(self._live.values()), list(joined.values())), self._device)
        logits = self._generator.model(
            input_ids=torch.tensor([ids], device=self._device),
            position_ids=torch.cat(positions)[None],
            use_cache=False,
            logits_to_keep=self._last(joined),
            **{STEP: step},
        ).logits[0]
        tokens, probabilities = choose(logits, [live.draws for live in rows])
        self._live.update(joined)
        self._changed |= bool(joined)
        self._take(rows, tokens, probabilities)

    def _take(self, rows: Sequence[_Live], tokens: Sequence[int], probabilities: Sequence[float]) -> None:
        lanes = list(self._live)
        for lane, live, token, probability in zip(lanes, rows, tokens, probabilities, strict=True):
            live.tokens.append(token)
            live.probability += probability
            reason = live.end(self._generator.context)
            live.length += 1
            if reason is not None:
                self._done[live.place] = live.finish(reason)
                del self._live[lane]
                self._release(live.row.adapter)
                self._changed = True

    def _last(self, joined: dict[int, _Live]) -> Tensor:
        """Where each row's last token stands in the pass."""
        places = list(range(len(self._live)))
        end = len(places)
        for live in joined.values():
            end += len(live.row.prompt)
            places.append(end - 1)
        return torch.tensor(places, device=self._device)

    def _layout(self) -> Running:
        return running(list(self._live), [live.length for live in self._live.values()], self._device)

    def _tidy(self) -> None:
        """Rows of one adapter beside each other; and few rows spread over many lanes are moved together."""
        order: dict[Hashable, int] = {}
        for live in self._live.values():
            order.setdefault(live.row.adapter, len(order))
        self._live = dict(sorted(self._live.items(), key=lambda item: order[item[1].row.adapter]))
        if not self._waiting and 2 * len(self._live) <= max(self._live) + 1:
            self._store.move(list(self._live), max(live.length for live in self._live.values()))
            self._live = dict(enumerate(self._live.values()))
        self._changed = False

    def _join(self, joined: dict[int, _Live]) -> Joining:
        return joining([len(live.row.prompt) for live in joined.values()], list(joined), self._device)


def _groups(running: Sequence[_Live], joined: Sequence[_Live]) -> list[Group]:
    """Neighbouring tokens under one adapter, the base's left out."""
    groups: list[Group] = []
    start = 0
    for live, size in [*((live, 1) for live in running), *((live, len(live.row.prompt)) for live in joined)]:
        adapter = live.row.adapter
        if adapter is not None:
            if groups and groups[-1].adapter == adapter and groups[-1].stop == start:
                groups[-1] = groups[-1]._replace(stop=start + size)
            else:
                groups.append(Group(adapter, start, start + size))
        start += size
    return groups
