"""Which error ends in which code."""

import json

import pytest
import typer
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from experts.errors import BadCatalogue, UnknownKind
from jobs.cli.errors import EXIT_CODES, exit_code, report, stop
from jobs.errors import BadInput, Failed
from storage.errors import ArtefactDamaged, NotAllowed, NotFound, StorageError, StorageUnavailable
from storage.submitting import KeyReused, NoLines
from worker.addresses import NoStack
from worker.embedded.servers import ServerFailed
from worker.embedded.stack import StackRuns
from worker.runtime import Runtime
from worker.settings import BadSettings


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("x"), 2),
        (BadSettings("x"), 2),
        (NotFound("run", "x"), 2),
        (NotAllowed("x"), 2),
        (KeyReused("x"), 2),
        (NoLines("x"), 2),
        (UnknownKind("strategy", "x", ["y"]), 2),
        (BadCatalogue("x"), 2),
        (StorageUnavailable("x"), 1),
        (StorageError("x"), 1),
        (ArtefactDamaged("x"), 1),
        (Failed("x"), 1),
        (TimeoutError("x"), 1),
        (ServerFailed("x"), 1),
        (ValueError("x"), None),
        (KeyError("x"), None),
        (RuntimeError("x"), None),
        (OSError("x"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_has_its_code_and_a_bug_has_none(error: Exception, code: int | None) -> None:
    assert exit_code(error) == code


def test_every_code_is_one_of_two() -> None:
    assert {code for _, code in EXIT_CODES} == {1, 2}
    assert {NoStack, StackRuns} <= {kind for kind, _ in EXIT_CODES}


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_is_told_on_standard_error(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    assert report(NotFound("run", "[red]x"), as_json=as_json) == 2
    said = capsys.readouterr()
    assert said.out == ""
    if as_json:
        assert json.loads(said.err) == {"error": {"code": "not_found", "message": "no run '[red]x'"}}
    else:
        assert said.err == "error: no run '[red]x'\n"


def test_text_that_is_no_utf8_can_be_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(BadInput("miss\udcff: No such file"), as_json=True) == 2
    assert json.loads(capsys.readouterr().err)["error"]["message"].endswith(": No such file")


def test_a_bug_is_raised_again() -> None:
    bug = ValueError("x")
    with pytest.raises(ValueError, match="x") as raised:
        report(bug, as_json=False)
    assert raised.value is bug


def test_what_the_database_refuses_is_told_without_the_values(
    bare_client: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(connection: Connection) -> None:
        connection.execute(text("SELECT CAST(:value AS jsonb)"), {"value": '{"text": "CANARY \\u0000"}'})

    with pytest.raises(DBAPIError) as raised, bare_client.engine.begin() as connection:
        refused(connection)
    assert report(raised.value, as_json=False) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the database refused: ")
    assert "CANARY" not in said


def test_stopping_tells_why(capsys: pytest.CaptureFixture[str]) -> None:
    found = stop("so it is", 2)
    assert isinstance(found, typer.Exit)
    assert found.exit_code == 2
    assert capsys.readouterr().err == "error: so it is\n"
