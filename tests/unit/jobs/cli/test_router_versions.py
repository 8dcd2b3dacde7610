"""``moe router versions``, ``promote``, ``rollback`` and ``explain``."""

import json
from typing import Any

import pytest

from storage import catalogue, versions
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.jobs.cli.inline import inline_workers
from tests.unit.jobs.lines import nothing_stored
from tests.unit.storage.builders import Store
from worker.runtime import Runtime

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
def store(moe: Moe, client: Runtime) -> Store:
    """Three experts serve, by a router of keywords."""
    return Store(client.engine)


def add(store: Store, experts: tuple[str, ...] = NAMES, *, encoder: str | None = None, **metrics: Any) -> int:
    """A trained router; its version."""
    return store(
        versions.add_router,
        kind="knn",
        encoder=encoder,
        artefact="routers/knn/x",
        artefact_sha256="aa",
        content_sha256="cc",
        experts=list(experts),
        metrics=metrics,
    )


def live(store: Store) -> int:
    view = store(versions.live_router)
    assert view is not None
    return view.id


def test_versions_are_a_table(moe: Moe, store: Store) -> None:
    first, second = live(store), add(store, encoder="minilm", accuracy=0.9125, ece=0.0211)

    header, newest, oldest = (line.split() for line in moe("router", "versions", code=0).text.splitlines())

    assert " ".join(header) == "version state kind encoder experts accuracy ece trained live since"
    assert newest[:7] == [str(second), "trained", "knn", "minilm", "3", "0.912", "0.021"]
    assert len(newest) == 9  # never live
    assert oldest[:4] == [str(first), "live", "heuristic", "3"]
    assert len(oldest) == 8


def test_versions_are_json(moe: Moe, store: Store) -> None:
    number = add(store, ("beta",), encoder="minilm", accuracy=0.9)

    found = moe("router", "versions", "--json").json

    view = store(versions.router, number)
    assert found[0] == {
        "version": number,
        "state": "trained",
        "kind": "knn",
        "encoder": "minilm",
        "experts": ["beta"],
        "metrics": {"accuracy": 0.9},
        "created_at": view.created_at.isoformat(),
        "promoted_at": None,
        "sha256": "aa",
    }
    assert (found[1]["version"], found[1]["state"]) == (live(store), "live")
    assert found[1]["promoted_at"] is not None


def test_without_versions_there_is_an_empty_table(moe: Moe, bare_client: Runtime) -> None:
    assert moe("router", "versions", "--json").json == []
    assert len(moe("router", "versions", code=0).text.splitlines()) == 1


def test_a_version_is_promoted(moe: Moe, store: Store) -> None:
    number = add(store)

    assert moe("router", "promote", str(number), code=0).text == f"router {number} (knn) is live\n"
    assert live(store) == number


def test_experts_that_are_not_asked_any_more_are_told(moe: Moe, store: Store) -> None:
    number = add(store, ("beta",))

    assert moe("router", "promote", str(number), code=0).text == (
        f"router {number} (knn) is live\nit does not know alpha, gamma: not asked until a router does\n"
    )
    assert store(catalogue.names, serving=True) == ["beta"]


def test_a_promotion_is_json(moe: Moe, store: Store) -> None:
    number = add(store, ("beta", "gamma"))

    found = moe("router", "promote", str(number), "--json").json

    assert (found["version"], found["state"], found["not_serving"]) == (number, "live", ["alpha"])
    assert found["promoted_at"] is not None


@pytest.mark.parametrize("number", ["999999", "99999999999999999999"])
def test_an_unknown_version_ends_in_code_2(moe: Moe, store: Store, number: str) -> None:
    was = live(store)

    said = moe("router", "promote", number, "--json", code=2)

    assert json.loads(said.err) == {
        "error": {"code": "not_found", "message": f"no router version '{number}'; there are: {was}"}
    }
    assert live(store) == was


@pytest.mark.parametrize("arguments", [(), ("0",), ("-1",), ("x",), ("1", "2")])
def test_what_is_no_version_ends_in_code_2(moe: Moe, store: Store, arguments: tuple[str, ...]) -> None:
    moe("router", "promote", *arguments, code=2)


def test_a_version_of_another_encoder_is_not_promoted(moe: Moe, store: Store) -> None:
    number, was = add(store, encoder="another"), live(store)

    assert moe("router", "promote", str(number), code=2).err == (
        f"error: router {number} was trained with encoder 'another'; this system runs 'all-MiniLM-L6-v2'\n"
    )
    assert live(store) == was


def test_a_rollback_goes_to_the_version_before(moe: Moe, store: Store) -> None:
    first, second = live(store), add(store, ("beta",))
    moe("router", "promote", str(second), code=0)

    assert moe("router", "rollback", code=0).text == f"router {first} (heuristic) is live\n"
    assert live(store) == first
    assert store(catalogue.names, serving=True) == list(NAMES)


def test_a_rollback_is_json(moe: Moe, store: Store) -> None:
    store(versions.promote_router, add(store, ("beta",)))
    store(versions.promote_router, add(store))

    found = moe("router", "rollback", "--json").json

    assert (found["state"], found["experts"], found["not_serving"]) == ("live", ["beta"], ["alpha", "gamma"])


def test_without_a_version_before_a_rollback_ends_in_code_2(moe: Moe, store: Store) -> None:
    said = moe("router", "rollback", "--json", code=2)

    assert json.loads(said.err) == {
        "error": {"code": "not_allowed", "message": "no router was live before the present one"}
    }


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_without_a_live_version_the_next_step_is_told(moe: Moe, bare_client: Runtime, command: str) -> None:
    assert moe("router", command, code=2).err == ("error: no router is live yet; `moe experts load` trains the first\n")


@pytest.mark.parametrize("command", [("compare", "1"), ("compare", "1", "x"), ("compare", "0", "1")])
def test_two_versions_are_needed_to_compare(moe: Moe, store: Store, command: tuple[str, ...]) -> None:
    moe("router", *command, code=2)


@pytest.mark.parametrize("command", [("compare", "{live}", "999999"), ("evaluate", "999999"), ("calibrate", "999999")])
def test_a_version_that_is_not_there_is_not_measured(moe: Moe, store: Store, command: tuple[str, ...]) -> None:
    said = moe("router", *(part.format(live=live(store)) for part in command), code=2)

    assert said.err == f"error: no router version '999999'; there are: {live(store)}\n"
    assert store.values("SELECT id FROM job") == []


# --- explain ------------------------------------------------------------------------------------------------------


def test_a_decision_is_explained_and_nothing_stays(
    moe: Moe, store: Store, client: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_ENCODER__NAME", "hashing")
    with inline_workers(monkeypatch):
        found = moe("router", "explain", "what is [beta]?", "--top-k", "1", "--json").json
        said = moe("router", "explain", "what is [beta]?", "--top-k", "1", code=0)

    assert [(e["name"], e["weight"]) for e in found["experts"]] == [("beta", 1.0)]
    assert (found["text"], found["in_scope"], found["router_version"]) == ("what is [beta]?", True, live(store))
    assert found["keywords"] == {"beta": ["beta"]}
    assert nothing_stored(client.engine)
    first, why, header, row = said.text.splitlines()[:4]
    assert first == (f"beta 1.00 (version 1) · confidence {found['confidence']:.2f} · coverage {found['coverage']:.2f}")
    assert why == f"why: {found['reason']}"
    assert " ".join(header.split()) == ("expert gate own assessment share load factor score priority wait s keywords")
    scores = found["scores"]["beta"]
    name, *shown, keywords = row.split()
    assert (name, keywords) == ("beta", "beta")
    assert [float(cell) for cell in shown] == pytest.approx(
        [scores[key] for key in ("gate", "self", "share", "load", "final", "priority", "wait_s")], abs=6e-4
    )
    margin, otherwise = found["otherwise"]["margin"], found["otherwise"]
    assert f"\nnext is {otherwise['runner_up']}, {margin:.2f} behind\n" in said.text
    assert f"coverage lies {found['otherwise']['coverage']:.2f} above the threshold\n" in said.text
