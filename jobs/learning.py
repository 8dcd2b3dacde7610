"""Experts that learn: asking for their training and measuring, and choosing among their versions."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from experts.adapters.data import Example, check_enough, read_examples
from experts.adapters.rows import BadRow
from experts.adapters.stored import to_line
from experts.cards import MAX_EXEMPLAR_CHARS, NAME, Card, CatalogueExpert
from experts.kinds import ENGINES, check
from jobs.errors import BadInput
from storage import catalogue, expert_versions, jobs
from storage.database import transact
from storage.errors import NotAllowed
from storage.expert_versions import VersionView
from storage.hints import JobHint
from worker.runtime import Runtime

GENERATIVE = "transformers"
# Prompts of the training data that become exemplars of a new expert, so that the router knows it.
_EXEMPLARS = 200
# Keys of a card by the names of the options that give them.
_OPTIONS = {"title": "domain", "keywords": "keyword"}
_VERSION = re.compile(r"(?P<name>[^@]+)(?:@(?P<number>[1-9][0-9]{0,8}))?")


@dataclass(frozen=True, slots=True)
class Given:
    """Examples a person gave: where they were stored, and what was wrong with rows that are none."""

    place: str
    examples: list[Example]
    bad: list[BadRow]
    duplicates: int


@dataclass(frozen=True, slots=True)
class Creation:
    """A new expert. ``exemplars`` are queries that belong to it; without them its training prompts serve."""

    name: str
    domain: str
    data: str
    validation: str | None = None
    description: str | None = None
    exemplars: Sequence[str] = ()
    keywords: Sequence[str] = ()
    parent: str | None = None
    engine: str = GENERATIVE
    rank: int | None = None
    complex_domain: bool = False


def create(runtime: Runtime, new: Creation) -> tuple[int, Given]:
    """Queue the making of an expert: the job's number, and what was read. Raises BadInput, NotAllowed.

    Nothing of the expert is stored before its adapter is trained and measured.
    """
    if not NAME.fullmatch(new.name):
        raise BadInput(
            f"{new.name!r} is no name of an expert: lower-case letters, digits and _, at most 50, a letter first"
        )
    check("engine", ENGINES, new.engine)
    card = _card(new)
    if not all(0 < len(text.strip()) <= MAX_EXEMPLAR_CHARS for text in new.exemplars):
        raise BadInput(f"--exemplar: a question that belongs to the expert has 1 to {MAX_EXEMPLAR_CHARS} characters")
    if new.name in transact(runtime.engine, catalogue.names):
        raise NotAllowed(f"{new.name} is there already; `moe experts train {new.name}` makes its next version")
    data, validation = _given(runtime, new.data, new.validation)
    exemplars = list(new.exemplars) or exemplars_of(data.examples)
    training = _training(new.name, data, validation, new.rank, new.complex_domain)
    return _queue(runtime, "train_expert", _making(card, exemplars, training), new.name), data


def _card(new: Creation) -> Card:
    domain = new.domain.strip()
    try:
        return Card(
            name=new.name,
            title=domain[:1].upper() + domain[1:],
            description=new.description or f"Learned answers about {domain}.",
            parent=new.parent,
            engine=new.engine,
            keywords=list(new.keywords),
            adapter=True,
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise BadInput(f"--{_OPTIONS.get(key, key)}: {first['msg']}") from None


def from_catalogue(runtime: Runtime, expert: CatalogueExpert) -> dict[str, Any]:
    """What the job is told that makes a catalogue's expert that learns. Raises BadInput, CannotTrain."""
    data, validation = _given(runtime, str(expert.train), None if expert.test is None else str(expert.test))
    training = _training(expert.card.name, data, validation, None, complex_domain=False)
    documents = [{"name": d.name, "title": d.title, "text": d.text} for d in expert.documents]
    return _making(expert.card, expert.exemplars, training) | {"documents": documents}


def make_once(connection: Connection, params: dict[str, Any]) -> int:
    """Queue the making of an expert, unless a job works on it already; the number of that job."""
    subject = f"expert:{params['expert']}"
    under_way = jobs.open_on(connection, subject)
    return jobs.add(connection, "train_expert", params, subject=subject) if under_way is None else under_way


def _making(card: Card, exemplars: Sequence[str], training: dict[str, Any]) -> dict[str, Any]:
    return {
        "mode": "create",
        "card": card.model_dump(mode="json", exclude={"name", "engine"}),
        "engine": card.engine or GENERATIVE,
        "exemplars": list(exemplars),
        **training,
    }


def train(
    runtime: Runtime,
    name: str,
    data: str,
    *,
    validation: str | None = None,
    rank: int | None = None,
    complex_domain: bool = False,
) -> tuple[int, Given]:
    """Queue the training of an expert's next version on new examples. Raises BadInput, NotFound, NotAllowed."""
    versions(runtime, name)  # one none of whose versions went live yet may learn as well
    given, held_out = _given(runtime, data, validation)
    params = {"mode": "train", **_training(name, given, held_out, rank, complex_domain)}
    return _queue(runtime, "train_expert", params, name), given


def retrain(runtime: Runtime, name: str, *, rank: int | None = None) -> int:
    """Queue a training on what the expert learned from before and what people corrected since."""
    has_learned(runtime, name)
    return _queue(runtime, "train_expert", {"mode": "retrain", "expert": name, "rank": rank}, name)


def evaluate(runtime: Runtime, which: str, *, data: str | None = None) -> int:
    """Queue the measuring of ``name`` or ``name@version`` against the base. Raises BadInput, NotFound."""
    name, number = named(which)
    transact(runtime.engine, lambda c: expert_versions.version(c, name, number))
    place = None if data is None else _read(runtime, data, minimum=1).place
    params = {"expert": name, "version": number, "data": place}
    job_id = transact(runtime.engine, lambda c: jobs.add(c, "evaluate_expert", params))
    runtime.dispatcher.send([JobHint(job_id)])
    return job_id


def named(which: str) -> tuple[str, int | None]:
    """``finance@3`` as name and version; without a version the live one is meant. Raises BadInput."""
    found = _VERSION.fullmatch(which)
    if found is None:
        raise BadInput(f"{which!r} names no version; write it as finance@3, or finance for the live one")
    return found["name"], None if found["number"] is None else int(found["number"])


def versions(runtime: Runtime, name: str) -> list[VersionView]:
    """Every version of the expert, the newest first. Raises NotFound."""
    return transact(runtime.engine, lambda c: expert_versions.versions(c, name))


def promote(runtime: Runtime, name: str, number: int) -> tuple[VersionView, int | None]:
    """Make a version live; it, and the job that teaches the router the expert where it did not know it."""

    def move(connection: Connection) -> tuple[VersionView, int | None]:
        view = expert_versions.promote(connection, name, number)
        served = catalogue.expert(connection, name).serving
        return view, None if served else jobs.add_refresh(connection)

    return _with_hint(runtime, transact(runtime.engine, move))


def rollback(runtime: Runtime, name: str) -> VersionView:
    """Make the version live that was so before. Raises NotFound, NotAllowed."""
    return transact(runtime.engine, lambda c: expert_versions.rollback(c, name))


def retire(runtime: Runtime, name: str) -> int | None:
    """Take an expert out of service; the job after which no query goes to it. None where it was retired already."""

    def move(connection: Connection) -> tuple[None, int | None]:
        moved = expert_versions.retire(connection, name)
        if all(expert.retired for expert in catalogue.experts(connection)):
            raise NotAllowed(f"{name} is the last expert; queries must go somewhere")
        return None, jobs.add_refresh(connection) if moved else None

    return _with_hint(runtime, transact(runtime.engine, move))[1]


def exemplars_of(examples: Sequence[Example]) -> list[str]:
    """Questions of the examples as exemplars, spread evenly over the file."""
    texts = list(dict.fromkeys(example.prompt[-1].content.strip()[:MAX_EXEMPLAR_CHARS] for example in examples))
    texts = [text for text in texts if text]
    step = max(1, len(texts) / _EXEMPLARS)
    return [texts[int(place * step)] for place in range(min(len(texts), _EXEMPLARS))]


def _given(runtime: Runtime, data: str, validation: str | None) -> tuple[Given, Given | None]:
    least = runtime.settings.training.min_examples
    return _read(runtime, data, minimum=least), None if validation is None else _read(runtime, validation, minimum=10)


def _read(runtime: Runtime, path: str, *, minimum: int) -> Given:
    """Check a file of examples and put what is good where workers can read it. Raises BadInput, CannotTrain."""
    if not Path(path).is_file():
        raise BadInput(f"{path}: no such file")
    found = read_examples(Path(path))
    if not found.examples and found.bad:
        raise BadInput(f"{path}, line {found.bad[0].line}: the row {found.bad[0].reason}")
    check_enough(found.examples, minimum)
    lines = [to_line(example) for example in found.examples]
    place = f"training/given/{hashlib.sha256(b''.join(lines)).hexdigest()[:32]}.jsonl"
    runtime.store.put_file(place, lines)
    return Given(place, found.examples, found.bad, found.duplicates)


def _training(
    name: str, data: Given, validation: Given | None, rank: int | None, complex_domain: bool
) -> dict[str, Any]:
    return {
        "expert": name,
        "data": data.place,
        "validation": None if validation is None else validation.place,
        "rank": rank,
        "complex": complex_domain,
    }


def has_learned(runtime: Runtime, name: str) -> None:
    """Raise NotAllowed unless some version of the expert has an adapter, and NotFound unless the expert is there."""
    if not any(view.adapter for view in versions(runtime, name)):
        raise NotAllowed(f"{name} has learned nothing yet; `moe experts train {name} --data FILE` begins")


def _queue(runtime: Runtime, kind: str, params: dict[str, Any], expert: str) -> int:
    job_id = transact(runtime.engine, lambda c: jobs.add(c, kind, params, subject=f"expert:{expert}"))
    runtime.dispatcher.send([JobHint(job_id)])
    return job_id


def _with_hint(runtime: Runtime, found: tuple[Any, int | None]) -> tuple[Any, int | None]:
    if found[1] is not None:
        runtime.dispatcher.send([JobHint(found[1])])
    return found
