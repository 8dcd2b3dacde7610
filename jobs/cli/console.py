"""How commands speak: tables and colour on a terminal, plain lines elsewhere, JSON where asked for."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

_WIDE = 200


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader went away; rich would call that a failure."""
        raise BrokenPipeError


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # Without a terminal lines are not folded at 80 characters, so that they can be searched.
    return _Console(
        stderr=stderr, soft_wrap=not stream.isatty(), width=None if stream.isatty() else _WIDE, highlight=False
    )


def say(text: str) -> None:
    """A line of text. Markup in it is meant; escape what comes from people or files."""
    _console().print(text)


def note(text: str) -> None:
    """A line beside the result, such as progress; on standard error. It may hold anything and is shown safely."""
    _console(stderr=True).print(printable(text), style="dim")


def complain(message: str, *, code: str | None = None, as_json: bool = False) -> None:
    """An error, on standard error."""
    message = message.encode("utf-8", "backslashreplace").decode()  # it may name a file whose name is no text
    if as_json:
        sys.stderr.write(orjson.dumps({"error": {"code": code, "message": message}}).decode() + "\n")
    else:
        _console(stderr=True).print(f"[bold red]error[/]: {printable(message)}")


def emit_json(data: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(orjson.dumps(data, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table. Numbers stand to the right; what is None stands empty. Cells may hold anything and are shown safely."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    body = [list(row) for row in rows]
    for place, column in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[place], int | float) for row in body)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        shown.add_row(*("" if cell is None else printable(_cell(cell)) for cell in row))
    _console().print(shown)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def printable(text: str) -> str:
    """Text from outside as it can be shown: without characters that steer a terminal."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on a terminal while something is waited for; nothing elsewhere."""
    console = _console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield
