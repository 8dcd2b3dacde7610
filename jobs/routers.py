"""Router versions: training, measuring, calibrating, promoting, going back."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from experts import kinds
from jobs.errors import BadInput
from jobs.reading.labelled import Columns, read_labelled
from jobs.training_jobs import wait_for_job
from storage import catalogue, jobs, versions
from storage.database import transact
from storage.errors import NotAllowed
from storage.hints import JobHint
from storage.versions import RouterView
from worker.runtime import Runtime

Listener = Callable[[str], None]


def train(
    runtime: Runtime,
    *,
    kind: str | None = None,
    data: str | None = None,
    columns: Columns | None = None,
    promote: bool = False,
) -> int:
    """Queue the training of a router; the job's number. Raises UnknownKind, BadInput."""
    kind = kind or runtime.settings.routing.kind
    kinds.check("router kind", kinds.ROUTERS, kind)
    stored = None if data is None else store_labelled(runtime, data, columns or Columns())
    return _queue(runtime, "train_router", {"kind": kind, "data": stored, "promote": promote})


def evaluate(
    runtime: Runtime, numbers: Sequence[int], *, data: str | None = None, columns: Columns | None = None
) -> int:
    """Queue the measuring of versions (none named: the live one); the job's number. Raises NotFound, BadInput."""
    chosen = [version(runtime, number).id for number in numbers] or [live(runtime).id]
    stored = None if data is None else store_labelled(runtime, data, columns or Columns())
    return _queue(runtime, "evaluate_routers", {"versions": chosen, "data": stored})


def calibrate(
    runtime: Runtime,
    number: int | None,
    *,
    data: str | None = None,
    columns: Columns | None = None,
    promote: bool = False,
) -> int:
    """Queue a calibration of a version (None: the live one); the job's number. Raises NotFound, BadInput."""
    chosen = live(runtime).id if number is None else version(runtime, number).id
    stored = None if data is None else store_labelled(runtime, data, columns or Columns())
    return _queue(runtime, "calibrate_router", {"version": chosen, "data": stored, "promote": promote})


def result(runtime: Runtime, job_id: int, *, on_event: Listener, timeout_s: float = 3600) -> dict[str, Any]:
    """What the job came to, once it has ended. Raises Failed."""
    return wait_for_job(runtime, job_id, on_event=on_event, timeout_s=timeout_s).result or {}


def listing(runtime: Runtime) -> list[RouterView]:
    """Every stored version, the newest first."""
    return transact(runtime.engine, versions.routers)


def version(runtime: Runtime, number: int) -> RouterView:
    """One version; raises NotFound."""
    return transact(runtime.engine, lambda c: versions.router(c, number))


def live(runtime: Runtime) -> RouterView:
    """The version that routes now. Raises NotAllowed before the first was trained."""
    found = transact(runtime.engine, versions.live_router)
    if found is None:
        raise NotAllowed("no router is live yet; `moe experts load` trains the first")
    return found


def promote(runtime: Runtime, number: int) -> tuple[RouterView, list[str]]:
    """Make a version live; it, and the experts it does not know, which stop serving. Raises NotFound, BadInput."""
    _check_encoder(runtime, version(runtime, number))
    promoted = transact(runtime.engine, lambda c: versions.promote_router(c, number))
    return promoted, _silent(runtime, promoted)


def rollback(runtime: Runtime) -> tuple[RouterView, list[str]]:
    """Make the version live that was so before; as ``promote``. Raises NotAllowed where there is none."""

    def back(connection: Connection) -> RouterView:
        found = versions.rollback_router(connection)
        if found is None:
            raise NotAllowed("no router was live before the present one")
        _check_encoder(runtime, found)  # what it raises undoes the rollback
        return found

    found = transact(runtime.engine, back)
    return found, _silent(runtime, found)


def _check_encoder(runtime: Runtime, view: RouterView) -> None:
    encoder = runtime.settings.encoder.name
    if view.encoder not in (None, encoder):
        raise BadInput(f"router {view.id} was trained with encoder {view.encoder!r}; this system runs {encoder!r}")


def _silent(runtime: Runtime, view: RouterView) -> list[str]:
    return sorted(set(transact(runtime.engine, catalogue.names)) - set(view.experts))


def store_labelled(runtime: Runtime, path: str, columns: Columns) -> str:
    """Check labelled queries and put them where workers can read them; the place. Raises BadInput, naming the line."""
    known = transact(runtime.engine, catalogue.names)
    rows = read_labelled(path, columns)
    for row in rows:
        if row.label is not None and row.label not in known:
            raise BadInput(f"{path}, line {row.line}: no expert is named {row.label!r}; there are: {', '.join(known)}")
    lines = [json.dumps({"text": row.text, "expert": row.label}, ensure_ascii=False).encode() + b"\n" for row in rows]
    place = f"labelled/{hashlib.sha256(b''.join(lines)).hexdigest()[:32]}.jsonl"
    runtime.store.put_file(place, lines)
    return place


def _queue(runtime: Runtime, kind: str, params: dict[str, Any]) -> int:
    job_id = transact(runtime.engine, lambda c: jobs.add(c, kind, params))
    runtime.dispatcher.send([JobHint(job_id)])
    return job_id
