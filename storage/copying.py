"""Bulk rows through COPY: many times faster than INSERT, and without the limit of 65,535 parameters."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection


def copy_rows(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write ``rows`` (one value per column) inside the connection's transaction; the number of rows.

    ``table`` and ``columns`` are names from this program, never input.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    count = 0
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
            count += 1
    return count


def as_json(value: Any) -> str:
    """JSON text for a ``json`` or ``jsonb`` column; what JSON has no form for is written as text."""
    return orjson.dumps(value, default=str).decode()
