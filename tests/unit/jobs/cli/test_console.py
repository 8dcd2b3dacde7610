"""How commands speak."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.markup import render

from jobs.cli.console import emit_json, note, printable, say, table, working


def test_lines_are_not_folded_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("x " * 300)
    assert capsys.readouterr().out == "x " * 300 + "\n"


def test_notes_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    note("going on")
    assert capsys.readouterr() == ("", "going on\n")


def test_a_table_shows_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "n", "share", "on"), [("[bold]a[/]", 1234567, 0.5, True), (None, 2, 1.0, False)], title="All")
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        ["All"],
        ["name", "n", "share", "on"],
        ["[bold]a[/]", "1,234,567", "0.5", "yes"],
        ["2", "1", "no"],
    ]


def test_a_table_makes_its_cells_printable(capsys: pytest.CaptureFixture[str]) -> None:
    table(("text",), [("[bold]x[/] \x1b[31m",)])
    assert capsys.readouterr().out.splitlines()[1].rstrip() == "[bold]x[/] \N{REPLACEMENT CHARACTER}[31m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 人", "plain é 人"),
        ("a\nb", "a\nb"),
        ("a\tb\rc", "a\ufffdb\ufffdc"),
        ("\x1b[2J\x07\x9b", "\ufffd[2J\ufffd\ufffd"),
        ("\u202egnp\u2066", "\ufffdgnp\ufffd"),
        ("\udcff", "\ufffd"),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_what_steers_a_terminal_is_replaced(text: str, shown: str) -> None:
    assert render(printable(text)).plain == shown


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.text(st.sampled_from("[]/a=b@ \n\x1b\x00\u202e"), max_size=20))
def test_any_text_is_shown_with_its_length_and_nothing_that_steers(text: str) -> None:
    shown = render(printable(text)).plain
    assert len(shown) == len(text)
    assert all(character.isprintable() or character == "\n" for character in shown)


@pytest.mark.parametrize("data", [[], {}, None, {"a": [1, 1.5, None, True, "é\u2028\x00"]}])
def test_a_document_is_json_and_one_line_end(capsys: pytest.CaptureFixture[str], data: Any) -> None:
    emit_json(data)
    out = capsys.readouterr().out
    assert json.loads(out) == data
    assert out.endswith("\n")


def test_nothing_spins_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with working("waiting"):
        pass
    assert capsys.readouterr() == ("", "")
