"""Nasty paths, numbers and terminals: each has a defined answer, and bad input stores nothing."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs.submit import BatchOptions, submit_batch
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.jobs.endings import finish
from tests.unit.jobs.lines import joined, nothing_stored, rows, short
from worker.runtime import Runtime

ROOT = Path(__file__).parents[4]
MOE = (sys.executable, "-m", "jobs.cli.main")
CANARY = "CANARY-7f3a"


def environment(**more: str) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@pytest.fixture
def batch(client: Runtime, workdir: Path) -> Path:
    path = workdir / "batch.jsonl"
    path.write_bytes(joined(short("a"), short("b")))
    return path


# 65: paths


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        (".", ". is a folder; give a file of queries"),
        ("", " is a folder; give a file of queries"),
        ("/dev/zero", "/dev/zero is a device, not a file of queries"),
        ("/dev/null", "/dev/null is a device, not a file of queries"),
        ("loop", "loop: Too many levels of symbolic links"),
        ("missing", "missing: No such file or directory"),
        ("missing\nbatch", "missing\nbatch: No such file or directory"),
        ("batch.jsonl/below", "batch.jsonl/below: Not a directory"),
        ("[bold]", "[bold]: No such file or directory"),
        ("x" * 300, f"{'x' * 300}: File name too long"),
    ],
    ids=["folder", "empty", "zero", "null", "loop", "missing", "newline", "below a file", "markup", "long"],
)
def test_a_path_that_is_no_batch_ends_in_code_2(
    moe: Moe, client: Runtime, batch: Path, path: str, complaint: str, as_json: bool
) -> None:
    Path("loop").symlink_to("loop")
    said = moe("batch", "submit", path, *(["--json"] if as_json else []), code=2)
    assert said.out == b""
    if as_json:
        assert json.loads(said.err) == {"error": {"code": "bad_input", "message": complaint}}
    else:
        assert said.err == f"error: {complaint}\n"
    assert nothing_stored(client.engine)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file, whatever its permissions")
def test_a_file_without_permission_ends_in_code_2(moe: Moe, batch: Path) -> None:
    batch.chmod(0)
    assert moe("batch", "submit", "batch.jsonl", code=2).err == "error: batch.jsonl: Permission denied\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_missing_file_whose_name_is_no_utf8_ends_in_code_2(moe: Moe, client: Runtime, as_json: bool) -> None:
    said = moe("batch", "submit", "miss\udcff", *(["--json"] if as_json else []), code=2)
    assert "No such file or directory" in said.err
    if as_json:
        assert json.loads(said.err)["error"]["code"] == "bad_input"


@pytest.mark.parametrize(
    "name", ["new\nline.jsonl", "caf\udce9.jsonl", "-x.jsonl", " ", "*.jsonl", "é\u202e.jsonl", "[red].jsonl"]
)
def test_a_file_with_an_odd_name_is_submitted(moe: Moe, client: Runtime, workdir: Path, name: str) -> None:
    Path(name).write_bytes(short("a"))
    assert moe("batch", "submit", "--json", "--", name).json["lines_total"] == 1
    assert rows(client.engine, "SELECT count(*) FROM run") == [(1,)]


def test_a_fifo_is_submitted(moe: Moe, client: Runtime, workdir: Path) -> None:
    os.mkfifo("fifo")
    writer = threading.Thread(target=Path("fifo").write_bytes, args=(joined(short("a"), short("b")),))
    writer.start()
    try:
        assert moe("batch", "submit", "fifo", "--json").json["lines_total"] == 2
    finally:
        writer.join()


def test_closed_standard_input_ends_in_code_2(moe: Moe, client: Runtime) -> None:
    said = moe("batch", "submit", "-", stdin=None, code=2)
    assert said.err == "error: standard input is closed; give a file, or pipe the lines in\n"


def test_empty_standard_input_ends_in_code_2(moe: Moe, client: Runtime) -> None:
    assert moe("batch", "submit", "-", code=2).err == "error: - holds no lines\n"
    assert nothing_stored(client.engine)


def test_an_unprintable_name_does_not_steer_the_terminal(moe: Moe, client: Runtime) -> None:
    said = moe("batch", "submit", "\x1b[2J\x07missing", code=2)
    assert "missing: No such file or directory" in said.err
    assert not {"\x1b", "\x07"} & set(said.err)


# 66: output


@pytest.fixture
def ended(client: Runtime, workdir: Path) -> str:
    """A run with more output than a pipe holds."""
    path = workdir / "many.jsonl"
    path.write_bytes(joined(*(short(f"q{n}") for n in range(500))))
    return finish(client, submit_batch(client, str(path), BatchOptions()).id).public_id


def test_output_that_is_there_is_replaced(moe: Moe, ended: str) -> None:
    Path("out").write_bytes(b"old" * 100_000)
    moe("batch", "results", ended, "--out", "out", code=0)
    assert Path("out").read_bytes().count(b"\n") == 500
    assert not Path("out.part").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder, whatever its permissions")
def test_a_read_only_folder_ends_in_code_1(moe: Moe, ended: str) -> None:
    Path("closed").mkdir(mode=0o500)
    said = moe("batch", "results", ended, "--out", "closed/out", code=1)
    assert said.err == "error: closed/out could not be written: Permission denied\n"


# 68 and 70: pipes and terminals, which take real processes


def test_a_reader_that_goes_away_is_no_error(moe: Moe, ended: str) -> None:
    command = subprocess.Popen(
        [*MOE, "batch", "results", ended], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert command.stdout is not None
    assert command.stderr is not None
    first = command.stdout.readline()
    command.stdout.close()
    said = command.stderr.read()
    command.stderr.close()
    assert command.wait() == 0
    assert json.loads(first)["custom_id"] == "q0"
    assert said == b""


def on_terminal(*arguments: str, columns: int, **variables: str) -> str:
    """What the command shows on a terminal so wide."""
    ours, theirs = pty.openpty()
    more = {"COLUMNS": str(columns), "LINES": "50", **variables}
    with subprocess.Popen(
        [*MOE, *arguments], stdout=theirs, stderr=theirs, stdin=theirs, env=environment(**more)
    ) as command:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        assert command.wait() == 0
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_a_narrow_terminal_without_colour_is_kept_to(
    moe: Moe, client: Runtime, batch: Path, variables: dict[str, str]
) -> None:
    submit_batch(client, str(batch), BatchOptions(name="first"))
    shown = on_terminal("batch", "list", columns=20, **variables)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "\x1b" not in plain
    assert 0 < max(map(len, plain.splitlines())) <= 20
    codes = {int(code or 0) for found in re.findall(r"\x1b\[([0-9;]*)m", shown) for code in found.split(";")}
    assert codes <= {0, 1, 2}  # plain, bold and dim are no colours


def test_nothing_but_the_document_goes_to_standard_output(moe: Moe, batch: Path) -> None:
    for arguments in (("batch", "list"), ("batch", "submit", "batch.jsonl"), ("config", "show"), ("experts", "list")):
        json.loads(moe(*arguments, "--json", code=0).out)


# 73: arguments and numbers


def test_a_file_that_looks_like_an_option_is_refused_unless_it_is_set_apart(
    moe: Moe, client: Runtime, workdir: Path
) -> None:
    Path("-x.jsonl").write_bytes(short("a"))
    assert "No such option: -x" in moe("batch", "submit", "-x.jsonl", code=2).err
    assert nothing_stored(client.engine)
    moe("batch", "submit", "--", "-x.jsonl", code=0)
    moe("batch", "submit", "./-x.jsonl", code=0)
    assert rows(client.engine, "SELECT source FROM run ORDER BY id") == [("-x.jsonl",), ("./-x.jsonl",)]


@pytest.mark.parametrize(
    "number", ["\uff11\uff12", "\u0663", "\u00b2", "1e1", "0x2", "1,0", "+-1", "2\u200b", "NaN", "inf"]
)
def test_a_number_in_other_digits_is_refused(moe: Moe, client: Runtime, batch: Path, number: str) -> None:
    said = moe("batch", "submit", "batch.jsonl", "--top-k", number, code=2)
    assert "Invalid value for '--top-k'" in said.err
    assert "--limit" in moe("batch", "list", "--limit", number, code=2).err
    assert nothing_stored(client.engine)


def test_a_number_may_be_written_as_python_writes_it(moe: Moe, client: Runtime, batch: Path) -> None:
    """Underscores between digits mean nothing, here and in the settings alike."""
    assert moe("batch", "submit", "batch.jsonl", "--top-k", "1_0", "--json").json["top_k"] == 10


@pytest.mark.parametrize("number", ["_1", "1_", "1__0", "", " "])
def test_other_underscores_are_refused(moe: Moe, client: Runtime, batch: Path, number: str) -> None:
    moe("batch", "submit", "batch.jsonl", "--top-k", number, code=2)
    assert nothing_stored(client.engine)


@pytest.mark.parametrize("question", ["", " ", "\udcff", "\u3000"])
@pytest.mark.parametrize("command", [("ask",), ("router", "explain")])
def test_what_is_no_question_ends_in_code_2(moe: Moe, client: Runtime, command: tuple[str, ...], question: str) -> None:
    said = moe(*command, question, "--json", code=2)
    assert json.loads(said.err)["error"]["code"] == "bad_input"
    assert nothing_stored(client.engine)


# What is asked is nobody's business.


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (
            "a.jsonl",
            joined(short("a", CANARY), short("a", CANARY), short("b", CANARY)[:-1], short("c", CANARY, model="x")),
        ),
        ("a.jsonl", short("a", CANARY).decode().encode("utf-16")),
        ("a.csv", b"id,text\na," + CANARY.encode() + b"\nb,c," + CANARY.encode() + b"\n"),
        ("a.csv", b'id,text\na,"' + CANARY.encode()),
        ("a.csv", b"id,text,note\na,t," + CANARY.encode() + b"\x00\n"),
        ("a.parquet", CANARY.encode()),
    ],
)
@pytest.mark.parametrize("redis", ["up", "down"])
def test_no_message_and_no_log_tells_what_was_asked(
    moe: Moe, client: Runtime, workdir: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes, redis: str
) -> None:
    if redis == "down":
        monkeypatch.setenv("MOE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("MOE_LOG_LEVEL", "debug")
    Path(name).write_bytes(data)
    said = moe("batch", "submit", name)
    assert CANARY not in said.err
    assert CANARY.encode() not in said.out
    if said.code == 0:
        run = said.text.split()[1].rstrip(":")
        for command in ("status", "failures"):
            assert CANARY.encode() not in moe("batch", command, run, code=0).out
            assert CANARY.encode() not in moe("batch", command, run, "--json", code=0).out
    else:
        assert said.code == 2
