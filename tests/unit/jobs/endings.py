"""Bringing runs to their end without workers, with real files."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from storage import catalogue, finalizing, runs, shards, windows
from storage.hints import FinalizeHint, Hint, PlanHint, RouteHint
from storage.runs import RunView
from tests.unit.storage.builders import (
    Store,
    answer,
    claim_routing,
    claim_run,
    combine,
    decision,
    files_of,
    settle_routing,
    shard_ids,
)
from worker.runtime import Runtime


def finish(client: Runtime, run_id: int, failing: Iterable[int] = ()) -> RunView:
    """The run with every line answered by the first expert; the lines in ``failing`` (by idx) end as errors."""
    store = Store(client.engine)
    if store(runs.view, run_id).state == "validating":
        store(shards.plan, run_id, 64)
        store(windows.fill, window=100)
    run = store(runs.view, run_id)
    expert = store(catalogue.experts, serving=True)[0]
    for shard_id in shard_ids(store, run, "queued"):
        claimed = claim_routing(store, shard_id)
        hint = settle_routing(store, claimed, [expert])
        for chunk in hint.chunks if hint is not None else ():
            answer(store, chunk.chunk_id)
        if hint is not None:
            combine(store, shard_id, failing)
    return write_files(client, run_id)


def write_files(client: Runtime, run_id: int) -> RunView:
    """Close what a cancelled run left open, and write the files of a run that waits for them."""
    store = Store(client.engine)
    store(finalizing.close_open_lines, run_id)
    run = store(runs.view, run_id)
    if run.state == "finalizing":
        claimed = claim_run(store, run)
        recorded: list[dict[str, Any]] = []
        for kind, lines in zip(("output", "errors"), store(files_of, claimed), strict=True):
            path = f"runs/{run.public_id}/{claimed.generation}/{kind}.jsonl"
            file = client.store.put_file(path, (f"{line}\n".encode() for line in lines))
            recorded.append(asdict(file) | {"lines": len(lines)})
        store(finalizing.settle_files, claimed, *recorded)
    return store(runs.view, run_id)


class Workers:
    """In place of the dispatcher: does at once what workers would do when they get the messages."""

    def __init__(self, client: Runtime) -> None:
        self._client = client

    def send(self, hints: Iterable[Hint]) -> int:
        done = 0
        for hint in hints:
            match hint:
                case PlanHint(run_id) | FinalizeHint(run_id):
                    finish(self._client, run_id)
                case RouteHint(shard_id):
                    store = Store(self._client.engine)
                    finish(self._client, store.value("SELECT run_id FROM shard WHERE id = :id", id=shard_id))
            done += 1
        return done


def put_decision(client: Runtime, run_id: int, idx: int, *, coverage: float, in_scope: bool) -> None:
    """A decision for one line as routing would have stored it."""
    store = Store(client.engine)
    made = decision(idx, ["alpha"])
    store.sql(
        "INSERT INTO decision (run_id, idx, router_version_id, experts, confidence, coverage, in_scope, reason,"
        " explanation) VALUES (:run, :idx, 1, CAST(:experts AS jsonb), 0.5, :coverage, :in_scope, 'By a test.', '{}')",
        run=run_id,
        idx=idx,
        experts='[{"name": "alpha", "version": 1, "weight": 1.0}]',
        coverage=coverage,
        in_scope=in_scope,
    )
    assert made.idx == idx
