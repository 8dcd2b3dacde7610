"""Submitting: what is stored, what is sent, what is refused."""

import base64
import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st

from experts.errors import UnknownKind
from jobs.errors import BadInput
from jobs.submit import BatchOptions, Priority, line_rules, parse_deadline, submit_batch, submit_lines
from storage.database import transact
from storage.hints import PlanHint, RouteHint
from storage.submitting import KeyReused
from tests.support.experts import serve
from tests.unit.jobs.lines import good, joined, nothing_stored, rows, short, stored_lines
from worker.app import create_app
from worker.dispatch import Dispatcher
from worker.runtime import Runtime

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(joined(short("a"), b"broken", short("b")))
    return path


class Sent:
    """In place of the dispatcher: keeps what it is given."""

    def __init__(self) -> None:
        self.hints: list[Any] = []

    def send(self, hints: Any) -> int:
        self.hints += hints
        return len(self.hints)


def test_a_batch_is_stored_and_its_planning_asked_for(client: Runtime, batch: Path) -> None:
    sent = Sent()
    run = submit_batch(replace(client, dispatcher=sent), str(batch), BatchOptions(name="first"))  # type: ignore[arg-type]
    assert (run.n_total, run.n_rejected, run.created) == (3, 1, True)
    assert re.fullmatch(r"batch_[0-9a-f]{24}", run.public_id)
    assert sent.hints == [PlanHint(run.id)]
    assert rows(
        client.engine, "SELECT id, public_id, kind, name, state, source, n_total, n_rejected, n_error FROM run"
    ) == [(run.id, run.public_id, "batch", "first", "validating", str(batch), 3, 1, 1)]
    assert [line[0] for line in stored_lines(client.engine, run.id)] == [1, 2, 3]


def test_options_are_stored_and_settings_stand_in_for_what_was_not_said(client: Runtime, batch: Path) -> None:
    plain = submit_batch(client, str(batch), BatchOptions())
    said = submit_batch(
        client,
        str(batch),
        BatchOptions(top_k=5, strategy="weighted", priority=Priority.HIGH, deadline=NOW + timedelta(99999)),
    )
    query = "SELECT top_k, strategy, priority, deadline FROM run WHERE id = :run"
    assert rows(client.engine, query, run=plain.id) == [(2, "weighted", 2, None)]
    assert rows(client.engine, query, run=said.id) == [(5, "weighted", 4, NOW + timedelta(99999))]


def test_the_message_names_the_run_and_nothing_of_what_was_asked(
    client: Runtime, jobs_redis: str, tmp_path: Path
) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(short("CANARY-id", "CANARY-text"))
    with redis.Redis.from_url(jobs_redis) as server:
        server.flushdb()
        run = submit_batch(client, str(path), BatchOptions(name="CANARY-name"))
        [message] = server.lrange("moe:control", 0, -1)
        body = json.loads(base64.b64decode(json.loads(message)["body"]))
        assert body[:2] == [[run.id], {}]
        for key in server.scan_iter():
            assert b"CANARY" not in (server.dump(key) or b"")
        assert b"CANARY" not in message


def test_a_single_interactive_question_skips_planning(client: Runtime) -> None:
    sent = Sent()
    options = BatchOptions(priority=Priority.INTERACTIVE, kind="ask")
    run = submit_lines(replace(client, dispatcher=sent), [good(1, "a")], options)  # type: ignore[arg-type]
    [(shard_id, state)] = rows(client.engine, "SELECT s.id, r.state FROM shard s JOIN run r ON r.id = s.run_id")
    assert state == "in_progress"
    assert sent.hints == [RouteHint(shard_id, True)]
    assert run.n_total == 1


def test_a_batch_is_stored_while_redis_is_away(client: Runtime, batch: Path) -> None:
    app: Celery = create_app(client.settings, "redis://127.0.0.1:1/0")
    run = submit_batch(replace(client, app=app, dispatcher=Dispatcher(app)), str(batch), BatchOptions())
    assert rows(client.engine, "SELECT state FROM run WHERE id = :run", run=run.id) == [("validating",)]
    app.close()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": ""}, "name must be 1 to 200 printable characters"),
        ({"name": "  "}, "name must be 1 to 200 printable characters"),
        ({"name": "x" * 201}, "name must be 1 to 200 printable characters"),
        ({"name": "a\nb"}, "name must be 1 to 200 printable characters"),
        ({"name": "a\x1b[31m"}, "name must be 1 to 200 printable characters"),
        ({"name": "a\x00"}, "name must be 1 to 200 printable characters"),
        ({"name": "\udcff"}, "name must be 1 to 200 printable characters"),
        ({"idempotency_key": ""}, "idempotency key must be 1 to 200 printable characters"),
        ({"idempotency_key": "x" * 201}, "idempotency key must be 1 to 200 printable characters"),
        ({"idempotency_key": "a\x00"}, "idempotency key must be"),
        ({"idempotency_key": "\udcff"}, "idempotency key must be"),
    ],
    ids=repr,
)
def test_options_that_cannot_be_are_refused(
    client: Runtime, batch: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadInput, match=f"^{complaint}"):
        submit_batch(client, str(batch), BatchOptions(**options))
    assert nothing_stored(client.engine)


def test_names_of_200_characters_are_taken(client: Runtime, batch: Path) -> None:
    submit_batch(client, str(batch), BatchOptions(name="é" * 200, idempotency_key="k" * 200))
    assert rows(client.engine, "SELECT name FROM run") == [("é" * 200,)]


def test_an_unknown_strategy_is_refused(client: Runtime, batch: Path) -> None:
    with pytest.raises(UnknownKind, match="unknown strategy 'best'; there are: weighted"):
        submit_batch(client, str(batch), BatchOptions(strategy="best"))
    assert nothing_stored(client.engine)


def test_without_experts_nothing_can_be_submitted(bare_client: Runtime, batch: Path) -> None:
    with pytest.raises(BadInput, match=r"^no expert serves yet; load a catalogue with `moe experts load DIR`$"):
        submit_batch(bare_client, str(batch), BatchOptions())
    assert nothing_stored(bare_client.engine)


def test_the_rules_name_the_experts_that_serve(bare_client: Runtime) -> None:
    transact(bare_client.engine, lambda c: serve(c, bare_client.settings.home, names=("gamma", "alpha")))
    rules = line_rules(bare_client)
    assert (rules.experts, rules.expert_names, rules.max_custom_id_chars) == ({"alpha", "gamma"}, "alpha, gamma", 512)


# Idempotency


def test_the_same_key_and_file_is_the_same_run(client: Runtime, batch: Path) -> None:
    sent = Sent()
    stack = replace(client, dispatcher=sent)  # type: ignore[arg-type]
    first = submit_batch(stack, str(batch), BatchOptions(idempotency_key="k"))
    again = [submit_batch(stack, str(batch), BatchOptions(idempotency_key="k")) for _ in range(3)]
    assert {(run.id, run.public_id, run.n_total, run.n_rejected) for run in again} == {
        (first.id, first.public_id, 3, 1)
    }
    assert [run.created for run in (first, *again)] == [True, False, False, False]
    assert sent.hints == [PlanHint(first.id)]
    assert rows(client.engine, "SELECT count(*) FROM query") == [(3,)]


def test_the_same_bytes_elsewhere_are_the_same_request(client: Runtime, batch: Path, tmp_path: Path) -> None:
    first = submit_batch(client, str(batch), BatchOptions(idempotency_key="k"))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(batch.read_bytes())
    assert submit_batch(client, str(copy), BatchOptions(idempotency_key="k")).id == first.id


@pytest.mark.parametrize("options", [{"top_k": 3}, {"name": "other"}, {"form": "csv"}])
def test_the_same_key_for_something_else_is_refused(client: Runtime, batch: Path, options: dict[str, Any]) -> None:
    submit_batch(client, str(batch), BatchOptions(idempotency_key="k"))
    complaint = r"^idempotency key 'k' was used before for a different request; use a new key$"
    with pytest.raises(KeyReused, match=complaint):
        submit_batch(client, str(batch), BatchOptions(idempotency_key="k", **options))
    batch.write_bytes(batch.read_bytes() + b"\n")
    with pytest.raises(KeyReused, match=complaint):
        submit_batch(client, str(batch), BatchOptions(idempotency_key="k"))
    assert rows(client.engine, "SELECT count(*) FROM run") == [(1,)]


def test_another_priority_is_another_request(client: Runtime, batch: Path) -> None:
    """What changes what is done must not be dropped without a word."""
    submit_batch(client, str(batch), BatchOptions(idempotency_key="k"))
    with pytest.raises(KeyReused):
        submit_batch(client, str(batch), BatchOptions(idempotency_key="k", priority=Priority.HIGH))


def test_a_deadline_does_not_make_another_request(client: Runtime, batch: Path) -> None:
    """Said as `2h` it is another moment each time, and the same command again must find its run."""
    first = submit_batch(client, str(batch), BatchOptions(idempotency_key="k", deadline=NOW + timedelta(99998)))
    again = submit_batch(client, str(batch), BatchOptions(idempotency_key="k", deadline=NOW + timedelta(99999)))

    assert (again.id, again.created) == (first.id, False)


def test_without_a_key_every_submission_is_a_run(client: Runtime, batch: Path) -> None:
    assert submit_batch(client, str(batch), BatchOptions()).id != submit_batch(client, str(batch), BatchOptions()).id


def test_a_key_needs_a_file_that_can_be_read_twice(client: Runtime) -> None:
    complaint = "^an idempotency key needs a file; what comes through a pipe cannot be compared$"
    with pytest.raises(BadInput, match=complaint):
        submit_batch(client, "-", BatchOptions(idempotency_key="k"))
    with pytest.raises(BadInput, match=complaint):
        submit_lines(client, [good(1, "a")], BatchOptions(idempotency_key="k"))


@pytest.mark.parametrize(
    ("name", "complaint"), [("missing", "No such file"), (".", ".+"), ("a\x00b", ".+"), ("loop", "Too many levels")]
)
def test_a_key_with_a_file_that_cannot_be_read_is_refused(
    client: Runtime, workdir: Path, name: str, complaint: str
) -> None:
    Path("loop").symlink_to("loop")
    with pytest.raises(BadInput, match=complaint):
        submit_batch(client, name, BatchOptions(idempotency_key="k"))
    assert nothing_stored(client.engine)


@pytest.mark.timeout(3)
@pytest.mark.parametrize("device", ["/dev/zero", "fifo"])
def test_a_key_with_a_device_or_a_pipe_is_refused_and_does_not_hang(
    client: Runtime, workdir: Path, device: str
) -> None:
    """A pipe can be read once only, a device for ever. Somebody has the pipe open, so that opening it is no wait."""
    os.mkfifo("fifo")
    end = os.open("fifo", os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(BadInput):
            submit_batch(client, device, BatchOptions(idempotency_key="k"))
    finally:
        os.close(end)
    assert nothing_stored(client.engine)


# Deadlines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        (" 2h ", timedelta(hours=2)),
        ("1.5d", timedelta(hours=36)),
        ("1 h", timedelta(hours=1)),
        ("2026-06-01T13:00", timedelta(hours=1)),
        ("2026-06-01 13:00:00+01:00", timedelta(0, 1) - timedelta(0, 1)),
        ("2026-06-02", timedelta(hours=12)),
        ("2026-06-01T14:00-01:00", timedelta(hours=3)),
        ("2026-06-01T13:00Z", timedelta(hours=1)),
    ],
)
def test_a_deadline_is_a_duration_or_a_time(text: str, expected: timedelta) -> None:
    if not expected:
        with pytest.raises(BadInput, match=r"has passed already$"):
            parse_deadline(text, now=NOW)
        return
    assert parse_deadline(text, now=NOW) == NOW + expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2",
        "2 weeks",
        "-2h",
        "1_0h",
        "\uff11h",
        "٣h",
        "1e3s",
        "nan",
        "h",
        "2h30m",
        "2026-13-01",
        "12:00",
        "1..5h",
    ],
)
def test_other_deadlines_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=f"^deadline {re.escape(repr(text))} is neither a duration"):
        parse_deadline(text, now=NOW)


@pytest.mark.parametrize("text", ["2026-06-01T12:00", "2020-01-01", "0001-01-01T00:00+14:00"])
def test_a_deadline_that_has_passed_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"has passed already$"):
        parse_deadline(text, now=NOW)


@pytest.mark.parametrize("text", ["99999999999d", "9" * 400 + "s", "9000000d", "9999-12-31T23:59-14:00"])
def test_a_deadline_beyond_every_calendar_is_refused_or_stored(client: Runtime, batch: Path, text: str) -> None:
    try:
        deadline = parse_deadline(text, now=NOW)
    except BadInput:
        return
    assert submit_batch(client, str(batch), BatchOptions(deadline=deadline)).created


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.text(max_size=12) | st.from_regex(r"\A\d{1,20}(\.\d{1,20})?[smhd]\Z"))
def test_any_text_is_a_deadline_ahead_or_bad_input(text: str) -> None:
    try:
        found = parse_deadline(text, now=NOW)
    except BadInput:
        return
    assert found >= NOW or found.tzinfo is not None


def test_a_deadline_keeps_its_moment_in_another_zone() -> None:
    east = timezone(timedelta(hours=9))
    assert parse_deadline("2026-06-02T00:00+09:00", now=NOW) == datetime(2026, 6, 2, tzinfo=east)


@pytest.mark.parametrize(("priority", "weight"), [("low", 1), ("normal", 2), ("high", 4), ("interactive", 8)])
def test_priorities_have_weights(priority: str, weight: int) -> None:
    assert Priority(priority).weight == weight


def test_a_dry_run_uses_up_no_key(client: Runtime, batch: Path) -> None:
    """The same command without `--dry-run` must not find the preview in the batch's place."""
    preview = submit_batch(client, str(batch), BatchOptions(idempotency_key="k", kind="preview"))
    real = submit_batch(client, str(batch), BatchOptions(idempotency_key="k"))

    assert (real.created, real.id == preview.id) == (True, False)
