"""The tasks of a run, each run once, twice, too early, and with what does not exist."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from storage import invariants
from storage.hints import AnswerHint, ChordHint, CombineHint, FinalizeHint, RouteHint
from tests.unit.tasks.conftest import Bench

TEXTS = [f"question {n} about {name}" for n in range(4) for name in ("alpha", "beta", "gamma")]


@pytest.fixture
def served(bench: Bench) -> Bench:
    bench.serve()
    return bench


def broken(bench: Bench) -> list[Any]:
    return bench.store(invariants.breaches)


def test_a_run_goes_its_way_through_all_tasks(served: Bench) -> None:
    run = served.finalized(TEXTS)
    assert (run.state, run.n_ok, run.n_error) == ("completed", 12, 0)
    assert run.output is not None
    with served.runtime.store.open(run.output["path"]) as file:
        found = [json.loads(line) for line in file]
    assert [line["custom_id"] for line in found] == [f"q{n}" for n in range(12)]
    assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in found] == TEXTS
    assert [line["moe"]["answered_by"] for line in found] == ["alpha", "beta", "gamma"] * 4
    assert broken(served) == []


STEPS: dict[str, Callable[[Bench], tuple[str, list[Any]]]] = {
    "plan_run": lambda bench: ("plan_run", [bench.planned(TEXTS).id]),
    "route_shard": lambda bench: ("route_shard", [bench.shards(bench.routed(TEXTS))[0]]),
    "answer_chunk": lambda bench: ("answer_chunk", [bench.chunks(bench.answered(TEXTS))[0]]),
    "aggregate_shard": lambda bench: ("aggregate_shard", [[], bench.shards(bench.combined(TEXTS))[0]]),
    "finalize_run": lambda bench: ("finalize_run", [bench.finalized(TEXTS).id]),
}


@pytest.mark.parametrize("step", sorted(STEPS))
def test_running_a_task_twice_changes_nothing(served: Bench, step: str) -> None:
    task, arguments = STEPS[step](served)
    before = served.everything()
    sent = len(served.dispatcher.sent)
    for _ in range(2):
        served.run(task, *arguments)
    assert served.everything() == before
    assert served.dispatcher.sent[sent:] == []
    assert broken(served) == []


def test_every_task_twice_on_every_row_ends_the_run_as_once_would(served: Bench) -> None:
    run = served.submit(TEXTS)
    for _ in range(2):
        served.run("plan_run", run.id)
    for shard in served.shards(run) * 2:
        served.run("route_shard", shard)
    for chunk in served.chunks(run) * 2:
        served.run("answer_chunk", chunk)
    for shard in served.shards(run) * 2:
        served.run("aggregate_shard", [], shard)
    for _ in range(2):
        served.run("finalize_run", run.id)
    ended = served.view(run)
    assert (ended.state, ended.n_ok, ended.n_error) == ("completed", 12, 0)
    assert broken(served) == []


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("plan_run", [999_999]),
        ("plan_run", [-1]),
        ("route_shard", [999_999]),
        ("answer_chunk", [999_999]),
        ("aggregate_shard", [[], 999_999]),
        ("aggregate_shard", [[1, 2, 3], 999_999]),
        ("finalize_run", [999_999]),
        ("train", [999_999]),
    ],
)
def test_an_id_that_is_not_stored_is_left_alone(served: Bench, task: str, arguments: list[Any]) -> None:
    before = served.everything()
    assert served.run(task, *arguments) in (None, 999_999)
    assert served.everything() == before
    assert served.dispatcher.sent == []


def test_combining_before_the_last_chunk_is_answered_does_nothing(served: Bench) -> None:
    run = served.routed(TEXTS)
    (shard, _) = served.shards(run, "answering")
    served.run("answer_chunk", served.chunks(run)[0])
    before = served.everything()
    served.run("aggregate_shard", [], shard)
    assert served.everything() == before


def test_writing_the_files_before_the_last_line_has_its_outcome_does_nothing(served: Bench) -> None:
    run = served.answered(TEXTS)
    before = served.everything()
    served.run("finalize_run", run.id)
    assert served.everything() == before


def test_planning_cuts_shards_and_hands_out_a_message_for_each(served: Bench) -> None:
    run = served.planned(TEXTS)
    assert run.state == "in_progress"
    assert served.store.rows("SELECT start, stop, state FROM shard ORDER BY start") == [
        (0, 8, "queued"),
        (8, 12, "queued"),
    ]
    assert served.dispatcher.sent == [RouteHint(shard, False) for shard in served.shards(run)]


def test_routing_sends_one_chord_with_a_chunk_per_expert(served: Bench) -> None:
    run = served.planned(TEXTS[:8])
    (shard,) = served.shards(run)
    served.run("route_shard", shard)
    chunks = served.chunks(run)
    assert served.store.values("SELECT idxs FROM chunk ORDER BY id") == [[0, 3, 6], [1, 4, 7], [2, 5]]
    hints = tuple(
        AnswerHint(chunk, name, False) for chunk, name in zip(chunks, ("alpha", "beta", "gamma"), strict=True)
    )
    assert served.dispatcher.sent[-1] == ChordHint(shard, hints, False)


def test_without_a_router_a_shard_waits_and_spends_no_try(bench: Bench) -> None:
    run = bench.planned(TEXTS[:8])
    (shard,) = bench.shards(run)
    bench.run("route_shard", shard)
    assert bench.store.row("SELECT state, attempts, owner FROM shard") == ("queued", 0, None)


def test_with_a_router_that_is_damaged_every_line_says_so_after_the_last_try_only(served: Bench) -> None:
    for file in (served.runtime.settings.home / "artefacts" / "routers").rglob("*.json"):
        file.write_text("{}")
    run = served.planned(TEXTS[:8])
    (shard,) = served.shards(run)
    for attempt in (1, 2):
        served.run("route_shard", shard)
        assert served.store.row("SELECT state, attempts FROM shard") == ("queued", attempt)
        served.store.sql("UPDATE shard SET not_before = clock_timestamp()")
    served.run("route_shard", shard)
    served.run("aggregate_shard", [], shard)
    served.run("finalize_run", run.id)
    ended = served.view(run)
    assert (ended.state, ended.n_ok, ended.n_error) == ("completed", 0, 8)
    assert set(served.outcomes(run).values()) == {(False, "routing_failed")}
    assert broken(served) == []


def test_the_last_chunk_outside_a_chord_asks_for_combining(served: Bench) -> None:
    """A chunk that the sweeper sent again belongs to no chord, so its own end is the sign."""
    run = served.routed(TEXTS[:8])
    (shard,) = served.shards(run)
    first, *others, last = served.chunks(run)
    for chunk in (first, *others):
        served.run("answer_chunk", chunk)
    assert CombineHint(shard, False) not in served.dispatcher.sent
    assert served.run("answer_chunk", last) == last
    assert served.dispatcher.sent[-1] == CombineHint(shard, False)


def test_the_last_shard_asks_for_the_files(served: Bench) -> None:
    run = served.combined(TEXTS)
    assert run.state == "finalizing"
    assert served.dispatcher.sent.count(FinalizeHint(run.id)) == 1


def test_a_query_the_engine_cannot_digest_ends_as_an_error_line_and_its_neighbours_do_not(bench: Bench) -> None:
    bench.serve(engine="poison")
    texts = [*TEXTS[:7], "BROKEN about beta"]
    run = bench.finalized(texts)
    assert (run.state, run.n_ok, run.n_error) == ("completed", 7, 1)
    assert bench.outcomes(run)["q7"] == (False, "engine_error")
    assert bench.store.values("SELECT attempts FROM chunk") == [1, 1, 1]
    assert run.errors is not None
    with bench.runtime.store.open(run.errors["path"]) as file:
        (line,) = [json.loads(line) for line in file]
    assert line["custom_id"] == "q7"
    assert line["error"]["message"].startswith("beta could not answer: ValueError: cannot digest ")
    assert broken(bench) == []


def test_a_query_that_cannot_be_routed_ends_as_an_error_line_and_its_neighbours_do_not(bench: Bench) -> None:
    bench.serve(kind="poison")
    run = bench.finalized([*TEXTS[:7], "ROUTEBREAK about beta"])
    assert (run.state, run.n_ok, run.n_error) == ("completed", 7, 1)
    assert bench.outcomes(run)["q7"] == (False, "routing_failed")
    assert broken(bench) == []


@pytest.mark.parametrize(
    ("text", "code"), [("EMPTY about alpha", "bad_output"), ("NUL about alpha", None), ("HUGE about alpha", None)]
)
def test_what_no_database_should_hold_is_cleaned_or_refused(bench: Bench, text: str, code: str | None) -> None:
    bench.serve(engine="filthy")
    run = bench.finalized([text])
    assert bench.outcomes(run) == {"q0": (code is None, code)}
    stored = bench.store.value("SELECT text FROM answer")
    assert stored is None if code else len(stored) in (len("beforeafter"), 100_000)


def test_an_engine_that_does_not_exist_is_an_error_after_the_last_try_only(bench: Bench) -> None:
    bench.serve(engine="nonsense")
    run = bench.routed(["question about alpha"])
    (chunk,) = bench.chunks(run)
    for attempt in (1, 2):
        bench.run("answer_chunk", chunk)
        assert bench.store.row("SELECT state, attempts FROM chunk") == ("queued", attempt)
        bench.store.sql("UPDATE chunk SET not_before = clock_timestamp()")
    bench.run("answer_chunk", chunk)
    assert bench.store.row("SELECT state, attempts FROM chunk") == ("done", 3)
    assert bench.store.value("SELECT error_code FROM answer") == "expert_unavailable"


def test_a_cancelled_run_is_closed_with_an_error_line_for_every_open_line(served: Bench) -> None:
    run = served.answered(TEXTS)
    served.store.sql("UPDATE run SET state = 'cancelling', ending = 'cancelled'")
    served.run("finalize_run", run.id)
    ended = served.view(run)
    assert (ended.state, ended.n_ok, ended.n_error) == ("cancelled", 0, 12)
    assert set(served.outcomes(run).values()) == {(False, "batch_cancelled")}
    assert broken(served) == []


def test_a_sweep_over_a_healthy_system_changes_nothing(served: Bench) -> None:
    served.routed(TEXTS)
    before = served.everything()
    sent = len(served.dispatcher.sent)
    served.run("sweep")
    served.run("sweep")
    assert served.everything() == before
    assert served.dispatcher.sent[sent:] == []


def test_a_sweep_makes_lost_work_due_again_and_sends_it_once(served: Bench) -> None:
    run = served.routed(TEXTS)
    served.store.sql("UPDATE chunk SET published_at = clock_timestamp() - interval '1 hour'")
    sent = len(served.dispatcher.sent)
    served.run("sweep")
    served.run("sweep")
    again = [hint.chunk_id for hint in served.dispatcher.sent[sent:] if isinstance(hint, AnswerHint)]
    assert sorted(again) == served.chunks(run)


def test_a_sweep_takes_back_the_lease_of_who_died(served: Bench) -> None:
    run = served.routed(TEXTS[:1])
    served.store.sql(
        "UPDATE chunk SET state = 'leased', epoch = 1, attempts = 1, owner = 'dead@host/1',"
        " lease_until = clock_timestamp() - interval '1 second'"
    )
    served.run("sweep")
    assert served.store.row("SELECT state, owner FROM chunk") == ("queued", None)
    served.store.sql("UPDATE chunk SET not_before = clock_timestamp()")
    (chunk,) = served.chunks(run)
    served.run("sweep")
    assert AnswerHint(chunk, "alpha", False) in served.dispatcher.sent


def test_a_sweep_ends_a_run_whose_deadline_has_passed(served: Bench) -> None:
    run = served.routed(TEXTS)
    served.store.sql("UPDATE run SET deadline = clock_timestamp() - interval '1 second'")
    served.run("sweep")
    assert served.view(run).state == "expiring"
    assert FinalizeHint(run.id) in served.dispatcher.sent
    served.run("finalize_run", run.id)
    assert served.view(run).state == "expired"
    assert set(served.outcomes(run).values()) == {(False, "batch_expired")}


def test_a_sweep_sends_no_more_to_a_queue_that_is_long_already(served: Bench) -> None:
    served.routed(["question about alpha"])
    served.store.sql("UPDATE chunk SET published_at = clock_timestamp() - interval '1 hour'")
    for _ in range(served.runtime.settings.pipeline.hints_per_queue):
        served.runtime.app.send_task("answer_chunk", args=[0], queue="expert.alpha", ignore_result=True)
    sent = len(served.dispatcher.sent)
    served.run("sweep")
    assert served.dispatcher.sent[sent:] == []


def test_a_question_goes_through_the_interactive_lanes(served: Bench) -> None:
    served.answered(["question about alpha"], priority=8)
    chords = [hint for hint in served.dispatcher.sent if isinstance(hint, ChordHint)]
    assert [chord.interactive for chord in chords] == [True]


def test_no_text_of_a_query_is_logged(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.serve(engine="poison")
    bench.finalized(["BROKEN canary about alpha", "a canary about beta"])
    assert "canary" not in "".join(capsys.readouterr())
