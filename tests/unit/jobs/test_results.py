"""Fetching files, and checking them."""

import gzip
import json
import os
import resource
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from jobs.errors import BadInput, Failed
from jobs.results import fetch, verify
from jobs.submit import BatchOptions, submit_batch
from storage import runs
from storage.database import transact
from storage.errors import ArtefactDamaged
from storage.runs import RunView
from tests.unit.jobs.endings import finish
from tests.unit.jobs.lines import joined, short
from worker.runtime import Runtime


@pytest.fixture
def started(client: Runtime, tmp_path: Path) -> RunView:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(joined(*(short(f"q{n}") for n in range(6)), b"broken"))
    submitted = submit_batch(client, str(path), BatchOptions())
    return transact(client.engine, lambda c: runs.view(c, submitted.id))


@pytest.fixture
def run(client: Runtime, started: RunView) -> RunView:
    """Five output lines, two error lines."""
    return finish(client, started.id, failing={2})


def stored(client: Runtime, run: RunView, kind: str) -> Path:
    file = run.output if kind == "output" else run.errors
    assert file is not None
    return Path(client.store.locate(file["path"]))


def ids(path: Path) -> list[str | None]:
    return [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]


def test_both_files_are_fetched(client: Runtime, run: RunView, workdir: Path) -> None:
    fetch(client, run, output="out.jsonl", errors="err.jsonl")
    assert ids(Path("out.jsonl")) == ["q0", "q1", "q3", "q4", "q5"]
    assert ids(Path("err.jsonl")) == ["q2", None]
    assert Path("out.jsonl").read_bytes() == stored(client, run, "output").read_bytes()
    assert sorted(path.name for path in workdir.glob("*.jsonl*")) == ["batch.jsonl", "err.jsonl", "out.jsonl"]


def test_only_what_is_asked_for_is_fetched(client: Runtime, run: RunView, workdir: Path) -> None:
    fetch(client, run, output=None, errors="err.jsonl")
    assert sorted(path.name for path in workdir.glob("*.jsonl")) == ["batch.jsonl", "err.jsonl"]


def test_files_go_to_standard_output(client: Runtime, run: RunView, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    fetch(client, run, output="-", errors="-")
    sys.stdout.flush()
    expected = stored(client, run, "output").read_bytes() + stored(client, run, "errors").read_bytes()
    assert capfdbinary.readouterr().out == expected


def test_a_run_that_goes_on_has_no_files_yet(client: Runtime, started: RunView, workdir: Path) -> None:
    with pytest.raises(
        BadInput, match=f"^run {started.public_id} is validating; its files are there when it has ended$"
    ):
        fetch(client, started, output="out.jsonl", errors=None)
    assert not Path("out.jsonl").exists()


def test_a_file_that_is_there_is_replaced_as_a_whole(client: Runtime, run: RunView, workdir: Path) -> None:
    Path("out.jsonl").write_bytes(b"x" * 1_000_000)
    fetch(client, run, output="out.jsonl", errors=None)
    assert Path("out.jsonl").read_bytes() == stored(client, run, "output").read_bytes()


def test_a_folder_is_no_target(client: Runtime, run: RunView, workdir: Path) -> None:
    for folder in (".", "", str(workdir)):
        with pytest.raises(BadInput, match=r"is a folder; name a file$"):
            fetch(client, run, output=folder, errors=None)


@pytest.mark.parametrize("target", ["missing/out.jsonl", "batch.jsonl/out.jsonl"])
def test_a_place_that_cannot_be_written_is_told(client: Runtime, run: RunView, workdir: Path, target: str) -> None:
    with pytest.raises(Failed, match=f"^{target} could not be written: (No such file or directory|Not a directory)$"):
        fetch(client, run, output=target, errors=None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder, whatever its permissions")
def test_a_read_only_folder_is_told(client: Runtime, run: RunView, workdir: Path) -> None:
    Path("closed").mkdir(mode=0o500)
    with pytest.raises(Failed, match=r"^closed/out\.jsonl could not be written: Permission denied$"):
        fetch(client, run, output="closed/out.jsonl", errors=None)


def test_a_full_disk_leaves_the_old_file_and_no_part(client: Runtime, run: RunView, workdir: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    Path("out.jsonl").write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(Failed, match=r"^out\.jsonl could not be written: File too large$"):
            fetch(client, run, output="out.jsonl", errors=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Path("out.jsonl").read_bytes() == b"old"
    assert [path.name for path in workdir.glob("out*")] == ["out.jsonl"]


def test_a_file_name_as_long_as_names_may_be_is_written(client: Runtime, run: RunView, workdir: Path) -> None:
    name = "x" * 255
    fetch(client, run, output=name, errors=None)
    assert ids(Path(name)) == ["q0", "q1", "q3", "q4", "q5"]


@pytest.mark.parametrize("same", ["both.jsonl", "./both.jsonl"])
def test_one_file_cannot_take_both(client: Runtime, run: RunView, workdir: Path, same: str) -> None:
    """The second would replace the first, and its lines would be lost."""
    with pytest.raises(BadInput):
        fetch(client, run, output="both.jsonl", errors=same)
    assert not Path("both.jsonl").exists()


@pytest.mark.timeout(10)
def test_a_pipe_is_written_to_and_not_replaced(client: Runtime, run: RunView, workdir: Path) -> None:
    """As with ``--out >(gzip)``."""
    os.mkfifo("pipe")
    end = os.open("pipe", os.O_RDWR)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(os.read(end, 1 << 16)), daemon=True)
    reader.start()
    try:
        fetch(client, run, output="pipe", errors=None)
        assert Path("pipe").is_fifo()
        reader.join(5)
        assert got == [stored(client, run, "output").read_bytes()]
    finally:
        os.write(end, b"end")
        reader.join()
        os.close(end)


def test_a_missing_stored_file_is_told_and_no_file_is_left(client: Runtime, run: RunView, workdir: Path) -> None:
    stored(client, run, "output").unlink()
    with pytest.raises(ArtefactDamaged, match=r"is missing$"):
        fetch(client, run, output="out.jsonl", errors=None)
    assert list(workdir.glob("out*")) == []


# Checking


def test_a_sound_run_is_accounted_for(client: Runtime, run: RunView) -> None:
    assert verify(client, run) == {
        "run": run.public_id,
        "state": "completed",
        "ok": True,
        "lines_total": 7,
        "output_lines": 5,
        "error_lines": 2,
        "problems": [],
    }


def test_a_run_that_goes_on_has_no_files_to_check(client: Runtime, started: RunView) -> None:
    found = verify(client, started)
    assert (found["ok"], found["state"], found["output_lines"], found["error_lines"]) == (True, "validating", 0, 0)


@pytest.mark.parametrize("kind", ["output", "errors"])
def test_a_missing_file_is_found(client: Runtime, run: RunView, kind: str) -> None:
    stored(client, run, kind).unlink()
    found = verify(client, run)
    assert found["ok"] is False
    assert f"stored file runs/{run.public_id}/1/{kind}.jsonl is missing" in found["problems"]


@pytest.mark.parametrize("kind", ["output", "errors"])
@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda lines: lines[:-1], None),
        (lambda lines: [*lines, lines[0]], -1),
        (lambda lines: lines[::-1], 1),
        (lambda lines: [b"{}\n", *lines[1:]], 1),
        (lambda lines: [b"broken\n", *lines[1:]], 1),
        (lambda lines: [b"[]\n", *lines[1:]], 1),
        (lambda lines: [b"null\n", *lines[1:]], 1),
        (lambda lines: [lines[0].replace(b'"line":1', b'"line":9').replace(b'"line":3', b'"line":9'), *lines[1:]], 1),
        (lambda lines: [], None),
    ],
    ids=["line gone", "line twice", "other order", "empty object", "no JSON", "a list", "null", "wrong line", "empty"],
)
def test_a_changed_file_is_found(client: Runtime, run: RunView, kind: str, harm: object, line: int | None) -> None:
    path = stored(client, run, kind)
    lines = path.read_bytes().splitlines(keepends=True)
    harmed = harm(lines)  # type: ignore[operator]
    path.write_bytes(b"".join(harmed))
    found = verify(client, run)
    assert found["ok"] is False
    assert f"{kind} file {path} is not the one that was recorded (sha256)" in found["problems"]
    if line is not None:
        number = line if line > 0 else len(harmed)
        assert f"{kind} file line {number} is not the outcome that was recorded" in found["problems"]
    if len(harmed) < len(lines):
        assert f"{kind} file lacks {len(lines) - len(harmed)} recorded lines" in found["problems"]
    if len(harmed) != len(lines):
        assert any("error lines for 7 input lines" in problem for problem in found["problems"])


def test_one_changed_byte_is_found(client: Runtime, run: RunView) -> None:
    path = stored(client, run, "output")
    data = bytearray(path.read_bytes())
    data[data.index(b"alpha")] ^= 1
    path.write_bytes(bytes(data))
    assert verify(client, run)["problems"] == [f"output file {path} is not the one that was recorded (sha256)"]


def test_a_packed_file_is_not_the_recorded_one(client: Runtime, run: RunView) -> None:
    path = stored(client, run, "output")
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert verify(client, run)["ok"] is False


def test_counters_that_are_wrong_in_the_database_are_found(client: Runtime, run: RunView) -> None:
    wrong = text("UPDATE run SET n_ok = n_ok - 1, n_error = n_error + 1 WHERE id = :run")
    transact(client.engine, lambda c: c.execute(wrong, {"run": run.id}))
    problems = verify(client, run)["problems"]
    assert [problem.split(":")[0] for problem in problems] == ["the counters of a run equal a recount"]


def test_no_more_than_a_few_problems_are_listed(client: Runtime, run: RunView) -> None:
    path = stored(client, run, "output")
    path.write_bytes(b"{}\n" * 500)
    assert len(verify(client, run)["problems"]) < 30
