"""Which error ends a command with which code. The one table for it."""

import typer
from sqlalchemy.exc import DBAPIError

from experts.errors import ExpertsError
from jobs.cli.console import complain
from jobs.errors import BadInput, Failed
from storage.errors import ArtefactDamaged, NotAllowed, NotFound, StorageError
from worker.addresses import NoStack
from worker.embedded.servers import ServerFailed
from worker.embedded.stack import StackRuns
from worker.settings import BadSettings

FAILED = 1  # it was tried and did not work
BAD_INPUT = 2  # what was asked for cannot be: arguments, files, names, settings

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (BadInput, BAD_INPUT),
    (BadSettings, BAD_INPUT),
    (NotFound, BAD_INPUT),
    (NotAllowed, BAD_INPUT),
    (ExpertsError, BAD_INPUT),
    (UnicodeEncodeError, BAD_INPUT),
    (NoStack, FAILED),
    (StackRuns, FAILED),
    (ServerFailed, FAILED),
    (ArtefactDamaged, FAILED),
    (StorageError, FAILED),
    (Failed, FAILED),
    (TimeoutError, FAILED),
    (DBAPIError, FAILED),
)


def exit_code(error: BaseException) -> int | None:
    """The code for an error that is expected; None for one that is a bug."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), None)


def report(error: BaseException, *, as_json: bool) -> int:
    """Tell the error and return its exit code; raises it again where it is a bug."""
    code = exit_code(error)
    if code is None:
        raise error
    if isinstance(error, DBAPIError):
        # Its first words only: the details quote the row, which holds queries and answers.
        said = getattr(getattr(error.orig, "diag", None), "message_primary", None) or type(error.orig).__name__
        complain(f"the database refused: {said}", code="database_error", as_json=as_json)
    elif isinstance(error, UnicodeEncodeError):
        complain("an argument holds bytes that are not UTF-8", code="bad_input", as_json=as_json)
    else:
        complain(str(error), code=getattr(error, "code", "failed"), as_json=as_json)
    return code


def stop(message: str, code: int = FAILED) -> typer.Exit:
    """An exit with a message, to be raised."""
    complain(message)
    return typer.Exit(code)
