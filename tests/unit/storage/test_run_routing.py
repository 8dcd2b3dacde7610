"""How a run was routed."""

import json

from storage import run_routing
from storage.run_routing import Part
from storage.submitting import AcceptedLine
from tests.unit.storage.builders import Store, ended


def test_lines_are_counted_by_who_was_asked_first_and_who_was_asked_at_all(store: Store) -> None:
    run = ended(store, [AcceptedLine(n, f"q{n}", "t") for n in range(1, 6)])
    for idx, names in enumerate([["b", "a"], ["b"], ["a", "b"], [], ["b", "c"]]):
        experts = [{"name": name, "weight": 1 / len(names)} for name in names]
        store.sql(
            "UPDATE decision SET experts = CAST(:experts AS jsonb) WHERE idx = :idx",
            experts=json.dumps(experts),
            idx=idx,
        )

    found = store(run_routing.routed, run.id)

    assert store(run_routing.spread, run.id) == [Part("a", 1, 2, 0.5), Part("b", 3, 4, 2 / 3), Part("c", 0, 1, None)]
    assert (found.first_choices, found.asked_of) == ({"a": 1, "b": 3}, {"a": 2, "b": 4, "c": 1})
    assert (found.lines, found.asked, found.unroutable) == (5, 7, 1)
