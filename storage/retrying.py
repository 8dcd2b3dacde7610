"""Sending failed lines of an ended run round again, into the same run."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from storage.copying import as_json, copy_rows
from storage.errors import NotAllowed
from storage.runs import RunView
from storage.shards import cut
from storage.states import CHUNK_OPEN, in_list
from storage.submitting import AcceptedLine


def retry_failed(
    connection: Connection,
    run: RunView,
    *,
    codes: Sequence[str] = (),
    edits: Sequence[AcceptedLine] = (),
    shard_size: int,
) -> int:
    """Open the run again for its failed lines; how many there are.

    With ``codes`` only lines with these error codes. ``edits`` replace failed lines by their line number, which is the
    only way for a line that was rejected; without an edit such lines keep their error. The old errors move to the
    history. Raises NotAllowed when the run has not ended or nothing is left to retry.
    """
    if not run.ended or run.kind == "preview":
        raise NotAllowed(f"run {run.public_id} is {run.state}; failed lines can be retried when a run has ended")
    locked = connection.execute(
        text("SELECT generation FROM run WHERE id = :run AND state = :state FOR UPDATE"),
        {"run": run.id, "state": run.state},
    ).one_or_none()
    if locked is None:
        raise NotAllowed(f"run {run.public_id} is being changed by somebody else")
    _stage_edits(connection, run, edits)
    connection.execute(
        text(
            """CREATE TEMP TABLE again ON COMMIT DROP AS
               SELECT o.idx FROM outcome o JOIN query q ON q.run_id = o.run_id AND q.idx = o.idx
               LEFT JOIN edit ON edit.line_no = q.line_no
               WHERE o.run_id = :run AND NOT o.ok AND (NOT q.rejected OR edit.line_no IS NOT NULL)
                 AND (:every OR o.error_code = ANY(:codes))"""
        ),
        {"run": run.id, "every": not codes, "codes": list(codes)},
    )
    _refuse_unused_edits(connection, run, codes)
    n: int = connection.execute(text("SELECT count(*) FROM again")).scalar_one()
    if n == 0:
        raise NotAllowed(
            f"run {run.public_id} has no failed line to retry"
            + (f" with code {', '.join(codes)}" if codes else "")
            + "; lines that were rejected need an edit"
        )
    parameters = {"run": run.id, "generation": locked.generation}
    connection.execute(
        text(
            """INSERT INTO past_outcome (run_id, idx, generation, error_code, error_message, line)
               SELECT o.run_id, o.idx, :generation, o.error_code, o.error_message, o.line
               FROM outcome o JOIN again USING (idx) WHERE o.run_id = :run"""
        ),
        parameters,
    )
    connection.execute(
        text(
            "UPDATE chunk SET state = 'cancelled', lease_until = NULL, owner = NULL"
            f" WHERE run_id = :run AND state IN ({in_list(CHUNK_OPEN)})"
        ),
        {"run": run.id},
    )
    for table in ("outcome", "answer", "decision"):
        connection.execute(
            text(f"DELETE FROM {table} t USING again WHERE t.run_id = :run AND t.idx = again.idx"), parameters
        )
    n_accepted: int = connection.execute(
        text(
            """WITH accepted AS (
                   UPDATE query q SET text = edit.text, custom_id = coalesce(edit.custom_id, q.custom_id),
                       request = CAST(edit.request AS jsonb), pinned = edit.pinned, rejected = false
                   FROM edit, again, query old
                   WHERE q.run_id = :run AND q.idx = again.idx AND edit.line_no = q.line_no
                     AND old.run_id = q.run_id AND old.idx = q.idx
                   RETURNING old.rejected)
               SELECT count(*) FROM accepted WHERE rejected"""
        ),
        parameters,
    ).scalar_one()
    connection.execute(
        text(
            """UPDATE run SET state = 'in_progress', generation = generation + 1, ending = 'completed',
                   n_error = n_error - :n, n_rejected = n_rejected - :accepted, output = NULL, errors = NULL,
                   started_at = clock_timestamp(), finished_at = NULL, paused_at = NULL, deadline = NULL, attempts = 0
               WHERE id = :run"""
        ),
        {"n": n, "accepted": n_accepted, **parameters},
    )
    cut(connection, run.id, shard_size)
    return n


def _refuse_unused_edits(connection: Connection, run: RunView, codes: Sequence[str]) -> None:
    unused = connection.execute(
        text(
            """SELECT edit.line_no FROM edit JOIN query q ON q.run_id = :run AND q.line_no = edit.line_no
               WHERE NOT EXISTS (SELECT 1 FROM again WHERE again.idx = q.idx) ORDER BY 1 LIMIT 5"""
        ),
        {"run": run.id},
    )
    lines = ", ".join(map(str, unused.scalars()))
    if lines:
        raise NotAllowed(f"edits name lines that failed for another reason than {', '.join(codes)}: {lines}")


def _stage_edits(connection: Connection, run: RunView, edits: Sequence[AcceptedLine]) -> None:
    connection.execute(
        text(
            "CREATE TEMP TABLE edit (line_no bigint PRIMARY KEY, custom_id text, text text, request text, pinned text)"
            " ON COMMIT DROP"
        )
    )
    copy_rows(
        connection,
        "edit",
        ("line_no", "custom_id", "text", "request", "pinned"),
        ((e.line_no, e.custom_id, e.text, None if e.request is None else as_json(e.request), e.pinned) for e in edits),
    )
    strangers = (
        connection.execute(
            text(
                """SELECT edit.line_no FROM edit WHERE NOT EXISTS (
                   SELECT 1 FROM query q JOIN outcome o ON o.run_id = q.run_id AND o.idx = q.idx
                   WHERE q.run_id = :run AND q.line_no = edit.line_no AND NOT o.ok)
               ORDER BY 1 LIMIT 5"""
            ),
            {"run": run.id},
        )
        .scalars()
        .all()
    )
    if strangers:
        raise NotAllowed(f"edits name lines that did not fail: {', '.join(map(str, strangers))}")
    taken = connection.execute(
        text(
            """SELECT edit.custom_id FROM edit JOIN query q ON q.run_id = :run AND q.custom_id = edit.custom_id
               WHERE NOT q.rejected AND q.line_no <> edit.line_no
               UNION SELECT custom_id FROM edit GROUP BY custom_id HAVING count(*) > 1 LIMIT 1"""
        ),
        {"run": run.id},
    ).scalar_one_or_none()
    if taken is not None:
        raise NotAllowed(f"edits use custom_id {taken!r} for a second line; every custom_id names one line of the run")
