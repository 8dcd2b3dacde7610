"""Small experts for tests: no documents, no model, stored and served in one step."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sqlalchemy import Connection

from experts.routing.base import Examples, ExpertProfile, TrainingSet
from experts.routing.training import train_router
from storage import catalogue, versions
from storage.artefacts import ArtefactStore
from storage.catalogue import NewExpert

NAMES = ("alpha", "beta", "gamma")
_EXAMPLES = 20


def card(name: str) -> dict[str, object]:
    """A card with the expert's own name as its one keyword."""
    return {
        "title": name.title(),
        "description": f"Answers everything about {name}.",
        "parent": None,
        "capabilities": [],
        "keywords": [name],
        "limits": [],
    }


def serve(
    connection: Connection,
    home: Path,
    *,
    names: Sequence[str] = NAMES,
    engine: str = "echo",
    kind: str = "heuristic",
) -> int:
    """Store these experts and make a router over them live; the router's number."""
    for name in names:
        catalogue.put_expert(connection, NewExpert(name, engine, card(name), [f"a question about {name}"], []))
    # As many as it takes to learn what none of them covers.
    texts = [f"question {n} about {name}" for name in names for n in range(_EXAMPLES)]
    examples = Examples(texts, np.repeat(np.arange(len(names)), _EXAMPLES), None)
    trained = train_router("heuristic", TrainingSet([ExpertProfile(name, [name]) for name in names], examples, None))
    store = ArtefactStore(str(home / "artefacts"), home / "cache")
    path = f"routers/{kind}/{'-'.join(names)}"
    version = versions.add_router(
        connection,
        kind=kind,
        encoder=None,
        artefact=path,
        artefact_sha256=store.put_tree(path, replace(trained, kind=kind).files()),
        content_sha256="-".join(names),
        experts=names,
        metrics={},
    )
    return versions.promote_router(connection, version).id
