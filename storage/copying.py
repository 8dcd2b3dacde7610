"""Bulk rows through COPY: many times faster than INSERT, and without the limit of 65,535 parameters."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write ``rows`` (one value per column) inside the connection's transaction; the number of rows.

    ``table`` and ``columns`` are names from this program, never input.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    count = 0
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
                count += 1
    except psycopg.Error as error:
        raise DBAPIError.instance(
            statement, None, error, psycopg.Error, hide_parameters=True, dialect=connection.dialect
        ) from error
    return count


def as_json(value: Any) -> str:
    """JSON text for a ``json`` or ``jsonb`` column; what JSON has no form for is written as text."""
    return orjson.dumps(value, default=str).decode()
