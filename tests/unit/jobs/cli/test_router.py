"""``moe router train``, ``evaluate``, ``compare`` and ``calibrate``; workers do their part at once."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import catalogue, feedback, versions
from storage.catalogue import NewExpert
from tests.support.experts import card
from tests.unit.jobs.cli.conftest import Moe
from tests.unit.jobs.cli.inline import inline_workers
from tests.unit.jobs.endings import finish
from tests.unit.jobs.lines import joined, rows, short
from tests.unit.storage.builders import Store
from worker.runtime import Runtime

NAMES = ("alpha", "beta")


@pytest.fixture
def store(moe: Moe, bare_client: Runtime, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two experts with twenty exemplars each, and settings that need no model."""
    monkeypatch.setenv("MOE_ENCODER__NAME", "hashing")
    monkeypatch.setenv("MOE_ROUTING__KIND", "heuristic")
    made = Store(bare_client.engine)
    for name in NAMES:
        texts = [f"question {n} about {name}" for n in range(20)]
        made(catalogue.put_expert, NewExpert(name, "echo", card(name), texts, []))
    return made


@pytest.fixture
def workers(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with inline_workers(monkeypatch):
        yield


@pytest.fixture
def queries(workdir: Path) -> str:
    """Labelled queries in columns of their own: every other one about alpha belongs to beta."""
    given = [(f"asking {n} about {name}", name) for n in range(12) for name in NAMES]
    given += [(f"odd {n} about alpha", "beta") for n in range(12)]
    (workdir / "queries.jsonl").write_text("".join(json.dumps({"q": q, "who": who}) + "\n" for q, who in given))
    return "queries.jsonl"


DATA = ("--data", "queries.jsonl", "--text", "q", "--label", "who")


def trained(moe: Moe, *arguments: str) -> int:
    version: int = moe("router", "train", *arguments, "--json").json["router_version"]
    return version


def states(store: Store) -> dict[int, str]:
    return {view.id: view.state for view in store(versions.routers)}


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# --- train --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("workers")
def test_a_router_is_trained_and_its_figures_shown(moe: Moe, store: Store) -> None:
    said = moe("router", "train", code=0)

    [view] = store(versions.routers)
    first, header, figures = said.text.splitlines()
    assert first == f"router {view.id} is trained"
    assert header.split() == list(view.metrics)
    assert [float(figure) for figure in figures.split()] == pytest.approx(list(view.metrics.values()), abs=5e-4)
    assert said.err.splitlines() == [
        "training a router of kind heuristic on 40 queries of 2 experts",
        "learning from 40 exemplars, and 0 adopted from the world",
        "measuring on exemplars left out",
        f"it routes nothing yet: moe router promote {view.id}",
    ]


@pytest.mark.usefixtures("workers")
def test_a_router_is_trained_and_promoted(moe: Moe, store: Store) -> None:
    said = moe("router", "train", "--kind", "random", "--promote", code=0)

    [view] = store(versions.routers)
    assert (view.kind, view.state) == ("random", "live")
    assert said.text.startswith(f"router {view.id} is live\n")
    assert "routes nothing yet" not in said.err


@pytest.mark.usefixtures("workers", "queries")
def test_training_is_json(moe: Moe, store: Store) -> None:
    said = moe("router", "train", *DATA, "--json", code=0)

    [view] = store(versions.routers)
    [job] = store.values("SELECT id FROM job")
    assert said.json == {"job": job, "router_version": view.id, "state": "trained", "metrics": view.metrics}
    assert said.err == ""
    assert view.metrics["exemplars"] == 76


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--kind", "psychic"), "unknown router kind 'psychic'; there are: centroid, ensemble, heuristic, knn, neural"),
        (("--data", "missing.jsonl"), "missing.jsonl: No such file or directory"),
        (("--data", "queries.jsonl"), "queries.jsonl, line 1: there is no field 'text'; there are: q, who"),
        (DATA[:4], "queries.jsonl, line 1: there is no field 'expert'; there are: q, who"),
    ],
)
@pytest.mark.usefixtures("queries")
def test_what_cannot_be_trained_on_ends_in_code_2(
    moe: Moe, store: Store, arguments: tuple[str, ...], complaint: str
) -> None:
    said = moe("router", "train", *arguments, code=2)

    assert said.err.startswith(f"error: {complaint}")
    assert said.out == b""
    assert store.values("SELECT id FROM job") == []


def test_a_label_that_is_no_expert_ends_in_code_2(moe: Moe, store: Store, workdir: Path) -> None:
    Path("queries.jsonl").write_text('{"text": "a", "expert": "delta"}')

    said = moe("router", "train", "--data", "queries.jsonl", "--json", code=2)

    assert json.loads(said.err) == {
        "error": {
            "code": "bad_input",
            "message": "queries.jsonl, line 1: no expert is named 'delta'; there are: alpha, beta",
        }
    }


@pytest.mark.usefixtures("workers")
def test_a_training_that_fails_ends_in_code_1(moe: Moe, store: Store) -> None:
    store(catalogue.put_expert, NewExpert("gamma", "echo", card("gamma"), [], []))

    said = moe("router", "train", "--json", code=1)

    [job] = store.values("SELECT id FROM job")
    assert json.loads(said.err.splitlines()[-1]) == {
        "error": {
            "code": "failed",
            "message": f"job {job} failed (cannot_train): experts without exemplars cannot be routed to: gamma",
        }
    }


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (("train",), "train_router"),
        (("evaluate", *DATA), "evaluate_routers"),
        (("compare", "{live}", "{live}", *DATA), "evaluate_routers"),
        (("calibrate", *DATA), "calibrate_router"),
    ],
)
@pytest.mark.usefixtures("workers", "queries")
def test_nothing_is_waited_for_where_nobody_wants_to(
    moe: Moe, store: Store, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], kind: str
) -> None:
    live = trained(moe, "--promote")
    monkeypatch.setattr("worker.dispatch.Dispatcher.send", lambda self, hints: 0)
    arguments = ("router", *(argument.format(live=live) for argument in command), "--no-wait")

    said = moe(*arguments, code=0)
    found = moe(*arguments, "--json").json

    first, second = store.rows("SELECT id, kind, state FROM job ORDER BY id DESC LIMIT 2")[::-1]
    assert said.text == f"job {first[0]} is queued\n"
    assert found == {"job": second[0]}
    assert first[1:] == second[1:] == (kind, "queued")


# --- evaluate, compare, calibrate ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("workers", "queries")
def test_the_live_router_is_measured(moe: Moe, store: Store) -> None:
    trained(moe)
    live = trained(moe, "--promote")

    said = moe("router", "evaluate", *DATA, code=0)

    first, header, figures = said.text.splitlines()
    assert first == "36 labelled queries"
    assert header.split() == ["version", "accuracy", "ci", "macro_f1", "ece", "oos_auroc", "oos_fpr95"]
    assert figures.split()[:2] == [str(live), "0.667"]
    assert said.err == f"router {live} measured on 36 queries\n"


@pytest.mark.usefixtures("workers", "queries")
def test_several_routers_are_measured_and_it_is_json(moe: Moe, store: Store) -> None:
    numbers = [trained(moe), trained(moe, "--kind", "random"), trained(moe)]

    found = moe("router", "evaluate", *map(str, numbers), *DATA, "--json").json

    assert found["queries"] == 36
    assert list(found["versions"]) == [str(number) for number in numbers]
    assert found["versions"][str(numbers[0])]["accuracy"] == 0.6667
    assert found.keys() == {"job", "queries", "versions"}


@pytest.mark.usefixtures("workers")
def test_what_people_said_is_measured_on(
    moe: Moe, store: Store, bare_client: Runtime, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(moe, "--promote")
    Path("batch.jsonl").write_bytes(joined(short("a", "of alpha"), short("b", "of alpha"), short("c", "of beta")))
    with monkeypatch.context() as unheard:
        unheard.setattr("worker.dispatch.Dispatcher.send", lambda self, hints: 0)
        run = moe("batch", "submit", "batch.jsonl", "--json").json["run"]
    [(run_id,)] = rows(store.engine, "SELECT id FROM run")
    view = finish(bare_client, run_id)
    for custom_id, expert in (("a", "alpha"), ("b", "beta")):
        store(feedback.add, view, custom_id, positive=None, correct_expert=expert, correct_answer=None)

    said = moe("router", "evaluate", code=0)

    assert run == view.public_id
    assert said.text.splitlines()[0] == "2 labelled queries"
    assert said.text.splitlines()[2].split()[1] == "0.5"


@pytest.mark.usefixtures("workers")
def test_without_labelled_queries_the_next_step_is_told(moe: Moe, store: Store) -> None:
    trained(moe, "--promote")

    assert "no labelled queries: give --data FILE, or say of answered lines which expert is right" in (
        moe("router", "evaluate", code=1).err
    )


@pytest.mark.usefixtures("workers", "queries")
def test_two_routers_are_compared(moe: Moe, store: Store) -> None:
    one = trained(moe)
    store(
        catalogue.put_expert,
        NewExpert("beta", "echo", card("beta") | {"keywords": ["beta", "odd", "odd n"]}, ["x"], []),
    )
    other = trained(moe)

    said = moe("router", "compare", str(one), str(other), *DATA, code=0)
    found = moe("router", "compare", str(one), str(other), *DATA, "--json").json

    pair = found["paired"]
    assert (pair["a"], pair["b"]) == (one, other)
    assert [found["versions"][str(number)]["accuracy"] for number in (one, other)] == [
        0.6667,
        round(0.6667 - pair["difference"], 4),
    ]
    low, high = pair["ci"]
    assert said.text.splitlines()[-1] == (
        f"accuracy of {one} less that of {other}: {pair['difference']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f},"
        f" p {pair['p']:.3g} (McNemar, exact)"
    )


@pytest.mark.usefixtures("workers", "queries")
def test_a_router_does_not_differ_from_itself(moe: Moe, store: Store) -> None:
    one = str(trained(moe))

    said = moe("router", "compare", one, one, *DATA, code=0)

    assert said.text.splitlines()[-1] == (
        f"accuracy of {one} less that of {one}: +0.0000, 95 % interval +0.0000 to +0.0000, p 1 (McNemar, exact)"
    )


@pytest.mark.usefixtures("workers", "queries")
def test_a_router_is_calibrated(moe: Moe, store: Store) -> None:
    live = trained(moe, "--promote")

    said = moe("router", "calibrate", *DATA, code=0)

    first, header, before, after = said.text.splitlines()
    assert first == f"router {live + 1} is trained; it is router {live}, calibrated anew"
    assert header.split() == ["ece", "oos_auroc", "accuracy"]
    assert (before.split()[0], after.split()[0]) == ("before", "after")
    assert before.split()[-1] == after.split()[-1] == "0.667"
    assert float(after.split()[1]) < 0.01 < 0.3 < float(before.split()[1])
    assert states(store) == {live: "live", live + 1: "trained"}


@pytest.mark.usefixtures("workers", "queries")
def test_a_calibration_may_be_promoted_and_it_is_json(moe: Moe, store: Store) -> None:
    trained(moe, "--promote")
    number = trained(moe, "--kind", "random")

    found = moe("router", "calibrate", str(number), *DATA, "--promote", "--json").json

    assert found.keys() == {"job", "router_version", "state", "from", "before", "after"}
    assert (found["from"], found["router_version"], found["state"]) == (number, number + 1, "live")
    assert states(store)[number + 1] == "live"


@pytest.mark.usefixtures("workers")
def test_too_few_queries_to_calibrate_on_end_in_code_1(moe: Moe, store: Store, workdir: Path) -> None:
    trained(moe, "--promote")
    Path("few.jsonl").write_text('{"text": "of alpha", "expert": "alpha"}\n' * 19)

    err = moe("router", "calibrate", "--data", "few.jsonl", code=1).err

    assert "failed (cannot_train): 19 labelled queries that an expert covers; 20 are the least" in err
