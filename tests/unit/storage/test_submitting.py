"""Taking a run in: all of its lines or nothing, and the same request only once."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from storage import invariants, submitting
from storage.hints import PlanHint, RouteHint
from storage.submitting import AcceptedLine, KeyReused, NoLines, RejectedLine, RunOptions, SubmittedRun
from tests.unit.storage.builders import Store, accepted, rejected


def take_in(store: Store, lines: Any, **options: Any) -> SubmittedRun:
    return store(submitting.submit, RunOptions(**options), lines)


def test_every_line_is_stored_in_its_place(store: Store) -> None:
    lines = [
        AcceptedLine(1, "a", "first", {"temperature": 0}, None),
        RejectedLine(3, "invalid_json", "This line is not JSON."),
        AcceptedLine(4, "b", "second", None, "alpha"),
    ]

    run = take_in(store, lines)

    assert (run.n_total, run.n_rejected, run.created, run.hints) == (3, 1, True, (PlanHint(run.id),))
    assert store.rows(
        "SELECT run_id, idx, line_no, custom_id, rejected, text, request, pinned FROM query ORDER BY idx"
    ) == [
        (run.id, 0, 1, "a", False, "first", {"temperature": 0}, None),
        (run.id, 1, 3, None, True, None, None, None),
        (run.id, 2, 4, "b", False, "second", None, "alpha"),
    ]


def test_a_run_keeps_its_options(store: Store) -> None:
    deadline = datetime(2030, 1, 2, tzinfo=UTC)
    run = take_in(
        store,
        accepted(2),
        kind="preview",
        name="nightly",
        top_k=3,
        strategy="best",
        priority=4,
        deadline=deadline,
        source="in.jsonl",
        idempotency_key="key",
        request_hash="hash",
    )

    assert re.fullmatch("batch_[0-9a-f]{24}", run.public_id)
    assert store.rows(
        "SELECT id, public_id, kind, name, state, ending, generation, top_k, strategy, priority, deadline, source,"
        " idempotency_key, request_hash, n_total, n_rejected, n_ok, n_error, started_at, published_at FROM run"
    ) == [
        (
            *(run.id, run.public_id, "preview", "nightly", "validating", "completed", 1, 3, "best", 4, deadline),
            *("in.jsonl", "key", "hash", 2, 0, 0, 0, None, None),
        )
    ]


def test_a_rejected_line_gets_its_error_line_at_once(store: Store) -> None:
    line = RejectedLine(7, "missing_text", "There is no text.", custom_id="x\u2028é", param="body.messages")

    run = take_in(store, [line])

    ((ok, code, message, shard, stored),) = store.rows(
        "SELECT ok, error_code, error_message, shard_id, line::text FROM outcome"
    )
    assert (ok, code, message, shard) == (False, "missing_text", "There is no text.", None)
    assert orjson.loads(stored) == {
        "id": run.public_id.replace("batch_", "batch_req_") + "_0",
        "custom_id": "x\u2028é",
        "response": None,
        "error": {"code": "missing_text", "message": "There is no text.", "param": "body.messages", "line": 7},
        "moe": {"line": 7},
    }
    assert store.rows("SELECT n_rejected, n_error FROM run") == [(1, 1)]


def test_only_the_first_use_of_a_custom_id_is_a_line(store: Store) -> None:
    quoted = 'say "é"'
    lines = [AcceptedLine(n, custom_id, "text") for n, custom_id in ((1, quoted), (2, "b"), (5, quoted), (9, quoted))]

    run = take_in(store, lines)

    assert (run.n_total, run.n_rejected) == (4, 2)
    assert store.rows("SELECT idx, rejected, text, custom_id FROM query ORDER BY idx") == [
        (0, False, "text", quoted),
        (1, False, "text", "b"),
        (2, True, None, quoted),
        (3, True, None, quoted),
    ]
    message = 'custom_id "say \\"é\\"" was used before, on line 1'
    assert [orjson.loads(line) for line in store.values("SELECT line::text FROM outcome ORDER BY idx")] == [
        {
            "id": run.public_id.replace("batch_", "batch_req_") + f"_{idx}",
            "custom_id": quoted,
            "response": None,
            "error": {"code": "duplicate_custom_id", "message": message, "param": "custom_id", "line": line_no},
            "moe": {"line": line_no},
        }
        for idx, line_no in ((2, 5), (3, 9))
    ]
    assert store.rows("SELECT error_code, error_message FROM outcome") == [("duplicate_custom_id", message)] * 2


def test_a_rejected_line_does_not_use_up_its_custom_id(store: Store) -> None:
    lines = [RejectedLine(1, "missing_text", "No text.", "a"), AcceptedLine(2, "a", "t"), AcceptedLine(3, "a", "t")]

    take_in(store, lines)

    assert store.rows("SELECT o.idx, error_code FROM outcome o ORDER BY o.idx") == [
        (0, "missing_text"),
        (2, "duplicate_custom_id"),
    ]
    assert "on line 2" in store.value("SELECT error_message FROM outcome WHERE idx = 2")


@pytest.mark.parametrize("pair", [("é", "e\u0301"), ("a", "A"), ("a", "a "), ("ａ", "a"), ("a", "a\u200d"), ("", " ")])
def test_custom_ids_that_only_look_alike_are_different(store: Store, pair: tuple[str, str]) -> None:
    run = take_in(store, [AcceptedLine(n, custom_id, "text") for n, custom_id in enumerate(pair, 1)])

    assert run.n_rejected == 0
    assert store.values("SELECT custom_id FROM query ORDER BY idx") == list(pair)


@settings(deadline=None, max_examples=50, derandomize=True, database=None)
@given(kinds=st.lists(st.sampled_from(["a", "b", "c", "d", "rejected", "rejected a"]), min_size=1, max_size=12))
def test_every_line_is_either_open_or_has_its_error(storage_engine: Engine, kinds: list[str]) -> None:
    store = Store(storage_engine)
    lines = [
        RejectedLine(n, "bad", "Bad.", "a" if kind == "rejected a" else None)
        if kind.startswith("rejected")
        else AcceptedLine(n, kind, f"text {n}")
        for n, kind in enumerate(kinds, 1)
    ]
    first_uses = [n for n, kind in enumerate(kinds) if not kind.startswith("rejected") and kind not in kinds[:n]]

    run = take_in(store, lines)

    query = "SELECT idx FROM query q WHERE run_id = :run AND NOT rejected ORDER BY idx"
    assert store.values(query, run=run.id) == first_uses
    errors = [n for n in range(len(kinds)) if n not in first_uses]
    assert store.values("SELECT idx FROM outcome WHERE run_id = :run ORDER BY idx", run=run.id) == errors
    assert (run.n_total, run.n_rejected) == (len(kinds), len(errors))
    assert store(invariants.breaches, run.id) == []


# --- all or nothing -------------------------------------------------------------------------------------------


def broken_off(n: int) -> Iterator[AcceptedLine]:
    yield from accepted(n)
    raise OSError("the source went away")


def test_a_source_that_breaks_off_leaves_nothing(store: Store) -> None:
    with pytest.raises(OSError, match="the source went away"):
        take_in(store, broken_off(5))

    assert store.rows("SELECT 1 FROM run UNION ALL SELECT 1 FROM query") == []


@pytest.mark.parametrize(("source", "message"), [("in.jsonl", "in.jsonl holds no lines"), (None, "the input holds no")])
def test_a_source_without_lines_leaves_nothing(store: Store, source: str | None, message: str) -> None:
    with pytest.raises(NoLines, match=message) as refused:
        take_in(store, [], source=source)

    assert refused.value.code == "no_lines"
    assert store.rows("SELECT 1 FROM run") == []


def test_lines_are_read_as_a_stream(store: Store) -> None:
    """Nothing is read before the transaction wants it, and each line once."""
    read: list[int] = []

    def lines() -> Iterator[AcceptedLine]:
        for line in accepted(3):
            read.append(line.line_no)
            yield line

    stream = lines()
    take_in(store, stream)

    assert read == [1, 2, 3]
    assert list(stream) == []


def test_a_hundred_thousand_parameters_are_no_limit(store: Store) -> None:
    assert take_in(store, accepted(20_000)).n_total == 20_000
    assert store.value("SELECT count(*) FROM query") == 20_000


def test_two_runs_in_one_transaction_get_in_each_others_way(store: Store) -> None:
    """The stage lives until the commit; the second run is refused as a whole, and nothing of either is stored."""
    with store.engine.connect() as connection, connection.begin():
        submitting.submit(connection, RunOptions(), accepted(1))
        with pytest.raises(Exception, match="incoming"):
            submitting.submit(connection, RunOptions(), accepted(1))
        connection.rollback()

    assert store.value("SELECT count(*) FROM run") == 0


# --- idempotency ----------------------------------------------------------------------------------------------


def test_the_same_key_and_request_again_is_the_same_run(store: Store) -> None:
    options = {"idempotency_key": "key", "request_hash": "hash"}
    first = take_in(store, [*accepted(2), rejected(3)], **options)

    again = take_in(store, broken_off(0), **options)

    assert again == SubmittedRun(first.id, first.public_id, 3, 1, False, ())
    assert store.value("SELECT count(*) FROM run") == 1


@pytest.mark.parametrize("other", ["another", None])
def test_the_same_key_with_another_request_is_refused(store: Store, other: str | None) -> None:
    take_in(store, accepted(1), idempotency_key="key", request_hash="hash")

    with pytest.raises(KeyReused, match="'key' was used before for a different request") as refused:
        take_in(store, accepted(1), idempotency_key="key", request_hash=other)

    assert refused.value.code == "idempotency_key_reused"
    assert store.value("SELECT count(*) FROM run") == 1


def test_without_a_key_every_request_is_a_run_of_its_own(store: Store) -> None:
    runs = [take_in(store, accepted(1), request_hash="hash") for _ in range(2)]

    assert len({run.public_id for run in runs}) == 2


def test_many_requests_with_one_key_at_once_make_one_run(store: Store) -> None:
    n = 4
    ready = threading.Barrier(n)

    def one() -> SubmittedRun:
        ready.wait()
        return take_in(store, accepted(3), idempotency_key="key", request_hash="hash")

    with ThreadPoolExecutor(n) as pool:
        found = [future.result() for future in [pool.submit(one) for _ in range(n)]]

    assert sorted(run.created for run in found) == [False, False, False, True]
    assert len({run.id for run in found}) == 1
    assert store.value("SELECT count(*) FROM query") == 3


# --- single questions -----------------------------------------------------------------------------------------


def test_a_single_question_is_queued_at_once(store: Store) -> None:
    run = take_in(store, [rejected(1), AcceptedLine(2, "q", "why?")], kind="ask", priority=8)

    (shard,) = store.rows("SELECT id, start, stop, state, n_queries, published_at IS NOT NULL FROM shard")
    assert shard[1:] == (1, 2, "queued", 1, True)
    assert run.hints == (RouteHint(shard[0], True),)
    assert store.rows("SELECT state, started_at IS NOT NULL FROM run") == [("in_progress", True)]
    assert store(invariants.breaches) == []


@pytest.mark.parametrize(("priority", "n"), [(7, 1), (8, 2), (8, 0)])
def test_everything_else_is_planned_first(store: Store, priority: int, n: int) -> None:
    run = take_in(store, [*accepted(n), rejected(99)], priority=priority)

    assert run.hints == (PlanHint(run.id),)
    assert store.value("SELECT count(*) FROM shard") == 0
    assert store.value("SELECT state FROM run") == "validating"


def test_no_two_runs_are_called_the_same() -> None:
    assert len({submitting.new_public_id() for _ in range(1000)}) == 1000
