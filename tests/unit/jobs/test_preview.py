"""Dry runs, with what workers would do done at once in the same process."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import BadInput, Failed
from jobs.preview import dry_run
from jobs.submit import BatchOptions
from storage.errors import StorageError
from tests.unit.jobs.endings import Workers
from tests.unit.jobs.lines import joined, nothing_stored, short
from worker.runtime import Runtime

PREVIEW = BatchOptions(kind="preview", top_k=1)


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(joined(short("a"), b"broken", short("b"), short("a"), short("c", model="moe/nobody")))
    return path


def test_a_dry_run_tells_where_lines_go_and_what_is_wrong(client: Runtime, batch: Path) -> None:
    stack = replace(client, dispatcher=Workers(client))  # type: ignore[arg-type]
    found = dry_run(stack, str(batch), PREVIEW)
    assert found.pop("measured_seconds") >= 0
    assert found.pop("estimated_seconds") == {
        "total": None,
        "route": 0.008,
        "answer": None,
        "combine": None,
        "not_measured": ["alpha"],
    }
    invalid = found.pop("invalid")
    assert [(line["line"], line["code"]) for line in invalid] == [
        (2, "invalid_json"),
        (4, "duplicate_custom_id"),
        (5, "unknown_model"),
    ]
    assert invalid[1]["message"] == 'custom_id "a" was used before, on line 1'
    assert found == {
        "lines_total": 5,
        "lines_valid": 2,
        "lines_invalid": 3,
        "experts": [{"name": "alpha", "lines": 2, "asked": 2}],
        "outside": 0,
        "outside_share": 0.0,
    }


def test_nothing_of_a_dry_run_stays(client: Runtime, batch: Path) -> None:
    dry_run(replace(client, dispatcher=Workers(client)), str(batch), PREVIEW)  # type: ignore[arg-type]
    assert nothing_stored(client.engine)


def test_no_more_than_twenty_bad_lines_are_told(client: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(b"broken\n" * 50)
    found = dry_run(replace(client, dispatcher=Workers(client)), str(path), PREVIEW)  # type: ignore[arg-type]
    assert (found["lines_total"], found["lines_invalid"], found["lines_valid"]) == (50, 50, 0)
    assert [line["line"] for line in found["invalid"]] == list(range(1, 21))
    assert found["outside_share"] == 0.0


def test_a_dry_run_that_nobody_routes_fails_and_leaves_nothing(client: Runtime, batch: Path) -> None:
    with pytest.raises(Failed, match=r"^run batch_\w+ did not end within 0 s; it is validating$"):
        dry_run(client, str(batch), PREVIEW, timeout_s=0)
    assert nothing_stored(client.engine)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xff\xfe{\x00", b"\x1f\x8b"])
def test_a_dry_run_of_no_batch_is_refused(client: Runtime, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(data)
    with pytest.raises((BadInput, StorageError)):
        dry_run(client, str(path), PREVIEW)
    assert nothing_stored(client.engine)
