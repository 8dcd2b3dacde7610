"""Training jobs: which kinds there are, and how each ends."""

from typing import Any

import pytest

from experts.errors import Stopped
from storage import job_control, jobs, versions
from storage.errors import NotFound
from storage.job_control import Wanted
from storage.leases import LeaseLost
from tasks import train as kinds
from tasks.training_job import TrainingJob
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.training import failure, labelled, put, result, story, train


def test_a_job_that_ended_is_not_done_again(bench: Bench) -> None:
    put(bench, "alpha")
    job = train(bench)
    before = bench.everything()

    bench.run("train", job.id)

    assert bench.everything() == before


def test_a_job_that_somebody_else_works_on_is_left_alone(bench: Bench) -> None:
    put(bench, "alpha")
    job_id = bench.store(jobs.add, "refresh")
    assert bench.store(jobs.claim, job_id, owner="another", ttl_s=60, max_attempts=3) is not None
    before = bench.everything()

    bench.run("train", job_id)

    assert bench.everything() == before


def test_an_unknown_kind_of_job_fails_and_is_named(bench: Bench) -> None:
    assert failure(train(bench, "nonsense")) == ("failed", "unknown_job", "'nonsense'")


def test_each_kind_of_job_does_what_it_is_named_for(bench: Bench) -> None:
    for name in ("alpha", "beta"):
        put(bench, name, exemplars=20)
    queries = labelled(bench, [(f"asking {n} about {name}", name) for n in range(10) for name in ("alpha", "beta")])

    assert result(bench, "refresh").keys() == {"indexes_built", "router_version", "content_sha256"}
    assert result(bench, "train_router").keys() == {"router_version", "state", "metrics"}
    assert result(bench, "evaluate_routers", versions=[1], data=queries).keys() == {"queries", "versions"}
    assert result(bench, "calibrate_router", version=1, data=queries).keys() == {
        "router_version",
        "state",
        "from",
        "before",
        "after",
    }
    assert set(kinds.KINDS) == {
        "refresh",
        "train_router",
        "evaluate_routers",
        "calibrate_router",
        "train_expert",
        "evaluate_expert",
    }


@pytest.mark.parametrize(
    ("kind", "params", "code"),
    [
        ("refresh", {}, "cannot_train"),
        ("train_router", {"kind": "psychic"}, "unknown_kind"),
        ("evaluate_routers", {"versions": [1]}, "bad_data"),
        ("evaluate_routers", {"versions": [1], "data": "labelled/gone.jsonl"}, "artefact_damaged"),
        ("calibrate_router", {"version": 1, "data": None}, "not_found"),
    ],
)
def test_what_trying_again_would_not_mend_fails_at_the_first_try(
    bench: Bench, kind: str, params: dict[str, object], code: str
) -> None:
    job = train(bench, kind, **params)

    assert (job.state, job.error_code) == ("failed", code)
    assert job.error_message
    assert job.finished_at is not None
    assert bench.store.value("SELECT attempts FROM job") == 1


def test_what_trying_again_may_mend_is_given_back_and_done_at_the_next_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bench, "alpha")

    def breaks(job: TrainingJob) -> dict[str, object]:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setitem(kinds.KINDS, "refresh", breaks)
        job = train(bench)
    assert (job.state, job.error_code) == ("queued", None)

    bench.store.sql("UPDATE job SET not_before = clock_timestamp()")
    bench.run("train", job.id)

    assert bench.store(jobs.view, job.id).state == "succeeded"
    assert bench.store.value("SELECT attempts FROM job") == 2
    assert story(bench, job)[-1].startswith("router 1 is live")


def test_no_try_writes_where_one_before_it_did(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try before it may have left half a tree there, and a worker that was only thought dead still writes."""
    put(bench, "alpha", engine="extractive", documents=1)

    def breaks(*args: Any, **values: Any) -> int:
        raise OSError("the disk is full")

    job_id = bench.store(jobs.add, "refresh")
    for step in ("add_knowledge", "add_router"):
        with monkeypatch.context() as broken:
            broken.setattr(versions, step, breaks)
            bench.run("train", job_id)
        bench.store.sql("UPDATE job SET not_before = clock_timestamp()")
    bench.run("train", job_id)

    folders = [folder for folder in (bench.runtime.settings.home / "artefacts").glob("*/*/*") if folder.is_dir()]
    found = sorted((folder.parent.parent.name, folder.name.split("-", 1)[1]) for folder in folders)
    assert found == [
        ("knowledge", f"{job_id}-1"),
        ("knowledge", f"{job_id}-2"),
        ("routers", f"{job_id}-2"),
        ("routers", f"{job_id}-3"),
    ]
    assert bench.store(jobs.view, job_id).state == "succeeded"


def test_an_error_inside_the_work_is_tried_again_and_in_the_end_says_what_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(job: TrainingJob) -> dict[str, object]:
        return {"found": {}["keywords"]}

    monkeypatch.setitem(kinds.KINDS, "refresh", breaks)
    job = train(bench)
    for _ in range(2):
        assert bench.store(jobs.view, job.id).state == "queued"
        bench.store.sql("UPDATE job SET not_before = clock_timestamp()")
        bench.run("train", job.id)

    assert story(bench, job) == ["try 1 failed: KeyError: 'keywords'", "try 2 failed: KeyError: 'keywords'"]
    assert failure(bench.store(jobs.view, job.id)) == (
        "failed",
        "job_failed",
        "given up: try 3 failed: KeyError: 'keywords'",
    )


def test_a_job_whose_lease_is_lost_is_neither_failed_nor_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def loses(job: TrainingJob) -> dict[str, object]:
        raise LeaseLost("somebody else has it")

    monkeypatch.setitem(kinds.KINDS, "refresh", loses)

    job = train(bench)

    assert (job.state, job.error_code, job.result) == ("running", None, None)


@pytest.mark.parametrize(
    ("asked", "taken_back", "state"),
    [("pause", False, "paused"), ("cancel", False, "cancelled"), ("pause", True, "queued")],
)
def test_a_job_that_was_asked_to_stop_ends_as_it_was_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, asked: Wanted, taken_back: bool, state: str
) -> None:
    def stops(job: TrainingJob) -> dict[str, object]:
        bench.store(job_control.stop, job.id, asked)
        if taken_back:
            bench.store(job_control.resume, job.id)
        raise Stopped("stopped as asked")

    monkeypatch.setitem(kinds.KINDS, "refresh", stops)

    job = train(bench)

    assert (job.state, job.wanted, job.error_code, job.result) == (state, None, None, None)
    assert (job.finished_at is not None) == (state == "cancelled")
    row = bench.store.row("SELECT lease_until IS NOT NULL AS held, published_at IS NULL AS due FROM job")
    assert (row.held, row.due) == (False, taken_back)


def test_a_job_that_ended_before_it_looked_at_what_was_asked_has_succeeded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(job: TrainingJob) -> dict[str, object]:
        bench.store(job_control.stop, job.id, "cancel")
        return {"done": True}

    monkeypatch.setitem(kinds.KINDS, "refresh", ends)

    job = train(bench)

    assert (job.state, job.wanted, job.result) == ("succeeded", None, {"done": True})


def test_a_version_that_is_gone_fails_with_those_there_are(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def misses(job: TrainingJob) -> dict[str, object]:
        raise NotFound("router version", "9", known=["2", "1"])

    monkeypatch.setitem(kinds.KINDS, "evaluate_routers", misses)

    assert failure(train(bench, "evaluate_routers")) == (
        "failed",
        "not_found",
        "no router version '9'; there are: 2, 1",
    )
