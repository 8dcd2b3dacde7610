"""Failed lines going round again, as they are or corrected."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import BadInput
from jobs.results import verify
from jobs.retry import retry_failed
from jobs.submit import BatchOptions, submit_batch
from storage import runs
from storage.database import transact
from storage.errors import NotAllowed
from storage.runs import RunView
from tests.unit.jobs.endings import finish
from tests.unit.jobs.lines import URL, joined, rows, short, stored_lines
from worker.runtime import Runtime


@pytest.fixture
def run(client: Runtime, tmp_path: Path) -> RunView:
    """Lines 1 to 4 answered but for the second and third; the fifth was never read."""
    path = tmp_path / "batch.jsonl"
    path.write_bytes(joined(*(short(f"q{n}") for n in range(4)), b"broken"))
    return finish(client, submit_batch(client, str(path), BatchOptions()).id, failing={1, 2})


def edits(path: Path, *values: Any) -> Path:
    path.write_bytes(joined(*(value if isinstance(value, bytes) else json.dumps(value).encode() for value in values)))
    return path


def state(client: Runtime, run: RunView) -> list[tuple[Any, ...]]:
    return rows(
        client.engine, "SELECT state, generation, n_ok, n_error, n_rejected FROM run WHERE id = :run", run=run.id
    )


def test_failed_lines_go_round_again_and_rejected_ones_do_not(client: Runtime, run: RunView) -> None:
    assert state(client, run) == [("completed", 1, 2, 3, 1)]
    assert retry_failed(client, run, codes=[], edits=None) == 2
    assert state(client, run) == [("in_progress", 2, 2, 1, 1)]
    ended = finish(client, run.id)
    assert state(client, run) == [("completed", 2, 4, 1, 1)]
    assert verify(client, ended)["problems"] == []


def test_only_lines_with_the_said_code_go_round_again(client: Runtime, run: RunView) -> None:
    with pytest.raises(NotAllowed, match="has no failed line to retry with code expert_gone, other; lines that were"):
        retry_failed(client, run, codes=["expert_gone", "other"], edits=None)
    assert state(client, run) == [("completed", 1, 2, 3, 1)]
    assert retry_failed(client, run, codes=["engine_error"], edits=None) == 2


def test_an_edit_makes_a_rejected_line_a_query(client: Runtime, run: RunView, tmp_path: Path) -> None:
    path = edits(tmp_path / "edits.jsonl", {"line": 5, "id": "q4", "text": "corrected", "model": "moe/beta"})
    assert retry_failed(client, run, codes=[], edits=path) == 3
    assert stored_lines(client.engine, run.id)[4] == (5, "q4", "corrected", None, "beta", None, None)
    ended = finish(client, run.id)
    assert state(client, run) == [("completed", 2, 5, 0, 0)]
    assert verify(client, ended)["problems"] == []


def test_an_edit_may_be_a_whole_request(client: Runtime, run: RunView, tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "corrected"}], "max_tokens": 5}
    path = edits(
        tmp_path / "edits.jsonl",
        b"",
        {"line": 2, "custom_id": "new", "method": "POST", "url": URL, "body": body},
    )
    assert retry_failed(client, run, codes=[], edits=path) == 2
    assert stored_lines(client.engine, run.id)[1] == (2, "new", "corrected", {"max_tokens": 5}, None, None, None)


GOOD = {"line": 5, "id": "q4", "text": "t"}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], " holds no edits"),
        ([b"\n"], " holds no edits"),
        ([b"broken"], ' line 1: an edit is an object with "line" and the corrected line'),
        ([GOOD, b"[]"], ' line 2: an edit is an object with "line" and the corrected line'),
        ([GOOD, b"1"], ' line 2: an edit is an object with "line" and the corrected line'),
        ([b"x" * (2 << 20)], ' line 1: an edit is an object with "line" and the corrected line'),
        ([{"id": "q4", "text": "t"}], ' line 1: an edit is an object with "line" and the corrected line'),
        ([GOOD | {"line": "5"}], " line 1: line must be the number of an input line, not '5'"),
        ([GOOD | {"line": True}], " line 1: line must be the number of an input line, not True"),
        ([GOOD | {"line": 0}], " line 1: line must be the number of an input line, not 0"),
        ([GOOD | {"line": -5}], " line 1: line must be the number of an input line, not -5"),
        ([GOOD | {"line": 5.0}], " line 1: line must be the number of an input line, not 5.0"),
        ([GOOD | {"line": None}], " line 1: line must be the number of an input line, not None"),
        ([GOOD | {"text": ""}], " line 1: text: is empty"),
        ([GOOD | {"text": "\x00"}], " line 1: holds the character U+0000, which cannot be stored"),
        ([b"", GOOD, GOOD], " line 3: line 5 is edited twice"),
        ([GOOD, {"line": 2}], " line 2: id: Field required"),
    ],
)
def test_edits_that_cannot_be_are_refused_and_the_run_stays_ended(
    client: Runtime, run: RunView, tmp_path: Path, given: list[Any], complaint: str
) -> None:
    path = edits(tmp_path / "edits.jsonl", *given)
    with pytest.raises(BadInput) as refusal:
        retry_failed(client, run, codes=[], edits=path)
    assert str(refusal.value) == f"{path}{complaint}"
    assert state(client, run) == [("completed", 1, 2, 3, 1)]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([GOOD | {"line": 1}], "edits name lines that did not fail: 1"),
        ([GOOD | {"line": 99}], "edits name lines that did not fail: 99"),
        ([GOOD | {"id": "q0"}], "edits use custom_id 'q0' for a second line"),
        ([GOOD, {"line": 2, "id": "q4", "text": "t"}], "edits use custom_id 'q4' for a second line"),
    ],
)
def test_edits_that_do_not_fit_the_run_are_refused(
    client: Runtime, run: RunView, tmp_path: Path, given: list[Any], complaint: str
) -> None:
    with pytest.raises(NotAllowed, match=f"^{complaint}"):
        retry_failed(client, run, codes=[], edits=edits(tmp_path / "edits.jsonl", *given))
    assert state(client, run) == [("completed", 1, 2, 3, 1)]


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 10**25])
def test_a_line_number_beyond_every_file_is_refused(client: Runtime, run: RunView, tmp_path: Path, number: int) -> None:
    with pytest.raises((BadInput, NotAllowed)):
        retry_failed(client, run, codes=[], edits=edits(tmp_path / "edits.jsonl", GOOD | {"line": number}))
    assert state(client, run) == [("completed", 1, 2, 3, 1)]


def test_a_deeply_nested_edit_is_refused(client: Runtime, run: RunView, tmp_path: Path) -> None:
    deep = json.dumps(GOOD | {"x": 0})[:-2].encode() + b"[" * 900 + b"]" * 900 + b"}"
    with pytest.raises(BadInput, match="line 1"):
        retry_failed(client, run, codes=[], edits=edits(tmp_path / "edits.jsonl", deep))
    assert state(client, run) == [("completed", 1, 2, 3, 1)]


def test_a_missing_file_of_edits_is_refused(client: Runtime, run: RunView, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"No such file or directory$"):
        retry_failed(client, run, codes=[], edits=tmp_path / "missing")


def test_a_run_that_goes_on_cannot_be_retried(client: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(short("a"))
    submitted = submit_batch(client, str(path), BatchOptions())
    view = finish(client, submitted.id)
    with pytest.raises(
        NotAllowed, match=f"^run {view.public_id} has no failed line to retry; lines that were rejected"
    ):
        retry_failed(client, view, codes=[], edits=None)
    again = submit_batch(client, str(path), BatchOptions())
    going = transact(client.engine, lambda c: runs.view(c, again.id))
    with pytest.raises(NotAllowed, match=r"is validating; failed lines can be retried when a run has ended$"):
        retry_failed(client, going, codes=[], edits=None)
