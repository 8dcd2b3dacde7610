"""Runs that ended, with decisions of any kind and number."""

import itertools
from collections.abc import Mapping

from tests.unit.storage.builders import Store

_numbers = itertools.count(1)


def past(
    store: Store,
    sent: Mapping[str | None, int],
    *,
    outside: int = 0,
    pinned: int = 0,
    minutes_ago: float = 0,
    kind: str = "batch",
) -> int:
    """A run that ended, its lines sent to these experts in this order (None: could not be routed); its number.

    The first lines are ``outside`` every domain, and the first ``pinned`` ones named their expert.
    """
    n = sum(sent.values())
    run_id: int = store.value(
        "INSERT INTO run (public_id, kind, state, ending, generation, priority, top_k, strategy, n_total, n_ok,"
        " created_at, finished_at, output, errors) VALUES (:public, :kind, 'completed', 'completed', 1, 2, 2,"
        " 'weighted', :n, :n, clock_timestamp(), clock_timestamp() - make_interval(secs => :ago), '{}', '{}')"
        " RETURNING id",
        public=f"batch_{next(_numbers)}",
        kind=kind,
        n=n,
        ago=60 * minutes_ago,
    )
    store.sql(
        "INSERT INTO query (run_id, idx, line_no, custom_id, text, pinned)"
        " SELECT :run, i, i + 1, 'q' || i, 'a question', CASE WHEN i < :pinned THEN 'alpha' END"
        " FROM generate_series(0, :n - 1) i",
        run=run_id,
        n=n,
        pinned=pinned,
    )
    store.sql(
        "INSERT INTO decision (run_id, idx, router_version_id, experts, confidence, coverage, in_scope, reason,"
        " explanation) SELECT :run, (place - 1)::int, 1, CASE WHEN expert IS NULL THEN '[]'::jsonb ELSE"
        " jsonb_build_array(jsonb_build_object('name', expert), jsonb_build_object('name', 'second')) END, 0.5, 0.5,"
        " place > :outside, 'By a test.', '{}'"
        " FROM unnest(CAST(:experts AS text[])) WITH ORDINALITY AS chosen (expert, place)",
        run=run_id,
        outside=outside,
        experts=[expert for expert, times in sent.items() for _ in range(times)],
    )
    return run_id
