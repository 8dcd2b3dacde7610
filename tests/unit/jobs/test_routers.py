"""Router versions from outside: jobs are queued, versions listed, promoted and taken back."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experts.errors import UnknownKind
from jobs import routers
from jobs.errors import BadInput, Failed
from jobs.reading.labelled import Columns
from storage import catalogue, jobs, versions
from storage.catalogue import NewExpert
from storage.errors import NotAllowed, NotFound
from storage.hints import Hint, JobHint
from tests.support.experts import card
from tests.unit.jobs.lines import rows
from tests.unit.storage.builders import Store
from worker.runtime import Runtime


class Sent:
    """In place of the dispatcher: keeps what would be sent."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []

    def send(self, hints: Iterable[Hint]) -> int:
        self.hints += hints
        return 1


@pytest.fixture
def stack(client: Runtime) -> Runtime:
    """Three experts serve; what is sent is kept."""
    return replace(client, dispatcher=Sent())  # type: ignore[arg-type]


@pytest.fixture
def bare(bare_client: Runtime) -> Runtime:
    return replace(bare_client, dispatcher=Sent())  # type: ignore[arg-type]


def sent(stack: Runtime) -> list[Hint]:
    assert isinstance(stack.dispatcher, Sent)
    return stack.dispatcher.hints


def queued(stack: Runtime) -> list[tuple[Any, ...]]:
    return rows(stack.engine, "SELECT id, kind, params, state FROM job ORDER BY id")


def live(stack: Runtime) -> int:
    return routers.live(stack).id


def add(
    stack: Runtime, experts: Iterable[str] = ("alpha",), *, encoder: str | None = None, promote: bool = True
) -> int:
    """Another version; its number."""
    store = Store(stack.engine)
    number = store(
        versions.add_router,
        kind="knn",
        encoder=encoder,
        artefact="routers/knn/x",
        artefact_sha256="aa",
        content_sha256="cc",
        experts=list(experts),
        metrics={},
    )
    return store(versions.promote_router, number).id if promote else number


@pytest.fixture
def file(workdir: Path) -> Path:
    """Labelled queries as people have them."""
    path = workdir / "queries.jsonl"
    given = [("what is é?", "alpha"), ("and this", "beta"), ("bread", None)]
    path.write_text("\n".join(json.dumps({"q": text, "who": name}) for text, name in given))
    return path


COLUMNS = Columns("q", "who")


def place_of(stack: Runtime) -> str:
    [(_, _, params, _)] = queued(stack)
    place: str = params["data"]
    return place


# --- labelled queries ---------------------------------------------------------------------------------------------


def test_labelled_queries_are_put_where_workers_read_them(stack: Runtime, file: Path) -> None:
    place = routers.store_labelled(stack, str(file), COLUMNS)

    with stack.store.open(place) as stored:
        assert stored.read().decode() == (
            '{"text": "what is é?", "expert": "alpha"}\n'
            '{"text": "and this", "expert": "beta"}\n'
            '{"text": "bread", "expert": null}\n'
        )


def test_the_same_queries_have_one_place_and_others_another(stack: Runtime, file: Path) -> None:
    place = routers.store_labelled(stack, str(file), COLUMNS)
    assert routers.store_labelled(stack, str(file), COLUMNS) == place
    with file.open("a") as more:
        more.write('\n{"q": "another", "who": "gamma"}')
    assert routers.store_labelled(stack, str(file), COLUMNS) != place


def test_a_label_that_is_no_expert_is_named_with_its_line(stack: Runtime, file: Path) -> None:
    with file.open("a") as more:
        more.write('\n\n{"q": "another", "who": "delta"}')

    with pytest.raises(BadInput) as raised:
        routers.store_labelled(stack, str(file), COLUMNS)

    assert str(raised.value) == f"{file}, line 5: no expert is named 'delta'; there are: alpha, beta, gamma"


def test_an_expert_that_does_not_serve_yet_may_be_a_label(stack: Runtime, file: Path) -> None:
    Store(stack.engine)(catalogue.put_expert, NewExpert("delta", "echo", card("delta"), ["of delta"], []))
    file.write_text('{"q": "another", "who": "delta"}')

    assert routers.store_labelled(stack, str(file), COLUMNS).startswith("labelled/")


def test_no_queries_are_stored_where_one_is_bad(stack: Runtime, file: Path) -> None:
    with file.open("a") as more:
        more.write('\n{"q": ""}')

    complaint = r"queries\.jsonl, line 4: 'q' is empty$"
    with pytest.raises(BadInput, match=complaint):
        routers.train(stack, data=str(file), columns=COLUMNS)
    with pytest.raises(BadInput, match=complaint):
        routers.evaluate(stack, [], data=str(file), columns=COLUMNS)
    with pytest.raises(BadInput, match=complaint):
        routers.calibrate(stack, None, data=str(file), columns=COLUMNS)

    assert (queued(stack), sent(stack)) == ([], [])
    assert not (stack.settings.home / "artefacts" / "labelled").exists()


# --- jobs ---------------------------------------------------------------------------------------------------------


def test_training_is_a_job_and_a_message(stack: Runtime) -> None:
    job = routers.train(stack, kind="knn", promote=True)

    assert queued(stack) == [(job, "train_router", {"kind": "knn", "data": None, "promote": True}, "queued")]
    assert sent(stack) == [JobHint(job)]


def test_without_a_kind_the_one_of_the_settings_is_trained(stack: Runtime) -> None:
    routers.train(stack)

    assert [params for _, _, params, _ in queued(stack)] == [{"kind": "ensemble", "data": None, "promote": False}]


def test_training_takes_labelled_queries_along(stack: Runtime, file: Path) -> None:
    routers.train(stack, data=str(file), columns=COLUMNS)

    assert place_of(stack) == routers.store_labelled(stack, str(file), COLUMNS)


def test_an_unknown_kind_is_refused_before_anything_is_queued(stack: Runtime) -> None:
    with pytest.raises(
        UnknownKind,
        match=r"^unknown router kind 'psychic'; there are: centroid, ensemble, heuristic, knn, neural, random$",
    ):
        routers.train(stack, kind="psychic")
    assert (queued(stack), sent(stack)) == ([], [])


def test_measuring_is_a_job_for_the_versions_named(stack: Runtime, file: Path) -> None:
    one, other = live(stack), add(stack)

    job = routers.evaluate(stack, [other, one], data=str(file), columns=COLUMNS)

    assert queued(stack) == [
        (job, "evaluate_routers", {"versions": [other, one], "data": place_of(stack)}, "queued"),
    ]
    assert sent(stack) == [JobHint(job)]


def test_without_versions_the_live_one_is_measured(stack: Runtime) -> None:
    add(stack, promote=False)

    routers.evaluate(stack, [])

    assert [params for _, _, params, _ in queued(stack)] == [{"versions": [live(stack)], "data": None}]


@pytest.mark.parametrize("named", [True, False])
def test_calibrating_is_a_job_for_the_version_named_or_the_live_one(stack: Runtime, file: Path, named: bool) -> None:
    other = add(stack, promote=False)

    job = routers.calibrate(stack, other if named else None, data=str(file), columns=COLUMNS, promote=named)

    version = other if named else live(stack)
    params = {"version": version, "data": place_of(stack), "promote": named}
    assert queued(stack) == [(job, "calibrate_router", params, "queued")]
    assert sent(stack) == [JobHint(job)]


def test_a_version_that_is_not_there_is_told_before_anything_is_queued(stack: Runtime) -> None:
    missing = live(stack) + 1
    complaint = rf"^no router version '{missing}'; there are: {live(stack)}$"

    with pytest.raises(NotFound, match=complaint):
        routers.evaluate(stack, [live(stack), missing])
    with pytest.raises(NotFound, match=complaint):
        routers.calibrate(stack, missing)
    with pytest.raises(NotFound, match=complaint):
        routers.promote(stack, missing)
    with pytest.raises(NotFound, match=complaint):
        routers.version(stack, missing)
    assert (queued(stack), sent(stack)) == ([], [])


def test_without_a_router_there_is_nothing_to_measure(bare: Runtime) -> None:
    for ask in (lambda: routers.live(bare), lambda: routers.evaluate(bare, []), lambda: routers.calibrate(bare, None)):
        with pytest.raises(NotAllowed, match=r"^no router is live yet; `moe experts load` trains the first$"):
            ask()
    assert routers.listing(bare) == []


def test_the_result_is_what_the_job_came_to(stack: Runtime) -> None:
    store = Store(stack.engine)
    job = routers.train(stack)
    claimed = store(jobs.claim, job, owner="test", ttl_s=60, max_attempts=1)
    assert claimed is not None
    store(jobs.report, job, "learning")
    store(jobs.succeed, claimed, {"router_version": 7})
    heard: list[str] = []

    assert routers.result(stack, job, on_event=heard.append) == {"router_version": 7}
    assert heard == ["learning"]


def test_a_job_that_failed_or_that_nobody_does_is_told(stack: Runtime) -> None:
    store = Store(stack.engine)
    job = routers.train(stack)
    with pytest.raises(Failed, match=rf"^job {job} did not end within 0 s; it is queued"):
        routers.result(stack, job, on_event=print, timeout_s=0)

    claimed = store(jobs.claim, job, owner="test", ttl_s=60, max_attempts=1)
    assert claimed is not None
    store(jobs.fail, claimed, "cannot_train", "Too few.")

    with pytest.raises(Failed, match=rf"^job {job} failed \(cannot_train\): Too few\.$"):
        routers.result(stack, job, on_event=print)


# --- versions -----------------------------------------------------------------------------------------------------


def test_versions_are_listed_newest_first(stack: Runtime) -> None:
    first, second, third = live(stack), add(stack), add(stack, promote=False)

    assert [(view.id, view.state) for view in routers.listing(stack)] == [
        (third, "trained"),
        (second, "live"),
        (first, "retired"),
    ]
    assert routers.version(stack, third).kind == "knn"


def test_a_promotion_tells_which_experts_are_not_asked_any_more(stack: Runtime) -> None:
    number = add(stack, ["beta"], promote=False)

    view, silent = routers.promote(stack, number)

    assert (view.id, view.state, silent) == (number, "live", ["alpha", "gamma"])
    assert Store(stack.engine)(catalogue.names, serving=True) == ["beta"]


def test_a_promotion_of_all_experts_silences_none(stack: Runtime) -> None:
    assert routers.promote(stack, add(stack, ["gamma", "beta", "alpha"], promote=False))[1] == []


def test_a_router_of_another_encoder_is_not_promoted(stack: Runtime) -> None:
    before = live(stack)
    number = add(stack, encoder="another", promote=False)

    complaint = rf"^router {number} was trained with encoder 'another'; this system runs 'all-MiniLM-L6-v2'$"
    with pytest.raises(BadInput, match=complaint):
        routers.promote(stack, number)

    assert live(stack) == before


def test_a_router_of_the_same_encoder_is_promoted(stack: Runtime) -> None:
    number = add(stack, encoder="all-MiniLM-L6-v2", promote=False)

    routers.promote(stack, number)

    assert live(stack) == number


def test_a_rollback_makes_the_version_before_live(stack: Runtime) -> None:
    first = live(stack)
    add(stack, ["beta"])

    view, silent = routers.rollback(stack)

    assert (view.id, view.state, silent) == (first, "live", [])
    assert Store(stack.engine)(catalogue.names, serving=True) == ["alpha", "beta", "gamma"]


def test_a_rollback_tells_which_experts_are_not_asked_any_more(stack: Runtime) -> None:
    add(stack, ["beta"])
    add(stack, ["alpha", "beta", "gamma"])

    assert routers.rollback(stack)[1] == ["alpha", "gamma"]


def test_a_rollback_to_a_router_of_another_encoder_is_refused(stack: Runtime) -> None:
    """As its promotion is: no worker of this system could route with it."""
    add(stack, encoder="another")
    number = add(stack)

    with pytest.raises(BadInput, match=r"was trained with encoder 'another'; this system runs 'all-MiniLM-L6-v2'$"):
        routers.rollback(stack)

    assert live(stack) == number


def test_there_is_nothing_before_the_first_router(stack: Runtime) -> None:
    with pytest.raises(NotAllowed, match=r"^no router was live before the present one$"):
        routers.rollback(stack)
