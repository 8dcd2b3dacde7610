"""Experts that learn: nothing before the proof, nothing twice, nothing lost."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from experts.adapters.gate import Verdict
from experts.language.base import weights_sha256
from storage import catalogue, feedback, job_control, jobs, training_sets
from storage.catalogue import NewExpert
from storage.hints import JobHint
from storage.job_control import Wanted
from storage.training_sets import NewSet
from tasks import bases, examples, expert_training
from tasks.expert_measuring import Measuring
from tasks.training_job import TrainingJob
from tests.tiny_base import save_tiny_base
from tests.unit.storage.builders import end_rests, expire_leases
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.learning import (
    CARD,
    EVALUATION,
    EXAMPLES,
    TRAIN,
    creation,
    example,
    learned,
    queued,
    set_up,
    stored,
    succeeded,
    versions,
    view,
    when,
)
from tests.unit.tasks.training import configure, failure, spoil, story

REGISTERED = ("expert", "expert_version", "training_set", "exemplar")


@pytest.fixture
def school(bench: Bench, tiny_base: str) -> Bench:
    return set_up(bench, tiny_base)


def rows(bench: Bench) -> dict[str, int]:
    return {table: bench.store.value(f"SELECT count(*) FROM {table}") for table in REGISTERED}


def refreshes(bench: Bench) -> list[int]:
    return bench.store.values("SELECT id FROM job WHERE kind = 'refresh'")


def checkpoints(bench: Bench, job_id: int) -> Path:
    return bench.runtime.settings.home / "training" / f"job-{job_id}"


def newest(bench: Bench, purpose: Any, name: str = "twice") -> list[tuple[str, str]]:
    """(prompt, answer) of the newest set of this purpose."""
    (found,) = bench.store(training_sets.newest, purpose=purpose, expert=name)
    return [(one.prompt[-1].content, one.answer) for one in examples.read(bench.runtime.store, found.artefact)]


def pairs(given: list[Any]) -> list[tuple[str, str]]:
    return sorted((one.prompt[-1].content, one.answer) for one in given)


def without_time(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """What a training came to, but for how long it took and whom it was measured against."""
    return {key: value for key, value in (metrics or {}).items() if key not in ("seconds", "matrix")}


# --- a new expert -------------------------------------------------------------------------------------------------


def test_an_expert_that_is_better_than_the_base_goes_live(school: Bench) -> None:
    before = bases.base(school.runtime.settings).sha256

    found = learned(school, creation(school))

    assert (found["expert"], found["version"], found["state"], found["promoted"]) == ("twice", 1, "live", True)
    (version,) = versions(school)
    assert version.adapter is not None
    assert (version.state, version.engine, version.card) == ("live", "transformers", CARD)
    assert version.adapter.base_sha256 == before
    assert version.metrics == found["metrics"]
    assert version.verdict == {"promote": True, "reasons": found["reasons"]}
    metrics = found["metrics"]
    assert (metrics["n"], metrics["base_exact_match"], metrics["previous_exact_match"]) == (16, 0.0, None)
    assert metrics["exact_match"] > 0.5
    assert metrics["ci"][0] > 0
    assert metrics["validation_loss"] < metrics["validation_loss_before"]
    assert (metrics["base_unchanged"], metrics["matrix"], metrics["stopped_by"]) == (True, {}, "steps")
    assert "similarity" not in metrics  # the encoder of these tests knows nothing of meaning


def test_the_base_is_what_it_was_after_a_training(school: Bench) -> None:
    base = bases.base(school.runtime.settings)
    before = weights_sha256(base.model)

    learned(school, creation(school))

    assert bases.base(school.runtime.settings) is base
    assert weights_sha256(base.model) == before == base.sha256
    assert not [name for name, _ in base.model.named_modules() if "lora" in name]


def test_examples_and_exemplars_of_a_live_expert_are_stored_and_a_router_is_asked_for_once(school: Bench) -> None:
    found = learned(school, creation(school))

    assert sorted(newest(school, "train")) == pairs(TRAIN)
    assert sorted(newest(school, "evaluation")) == pairs(EVALUATION)
    assert school.store(catalogue.exemplars) == [
        ("twice", "what is a letter said twice"),
        ("twice", "double the letter b"),
    ]
    assert refreshes(school) == [found["refresh_job"]]
    assert school.dispatcher.sent == [JobHint(found["refresh_job"])]
    school.run("train", found["refresh_job"])
    assert school.store(catalogue.names, serving=True) == ["twice"]


def test_nothing_is_registered_before_everything_is_measured(school: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, int]] = []
    last_measure = Measuring.matrix

    def looking(measuring: Measuring, *args: Any, **given: Any) -> Any:
        found = last_measure(measuring, *args, **given)
        seen.append(rows(school))
        return found

    monkeypatch.setattr(Measuring, "matrix", looking)

    learned(school, creation(school))

    assert seen == [dict.fromkeys(REGISTERED, 0)]
    assert rows(school) == {"expert": 1, "expert_version": 1, "training_set": 2, "exemplar": 2}


def test_a_training_that_fails_registers_nothing_and_leaves_no_checkpoint(school: Bench) -> None:
    configure(school, "training", max_length=8)
    long = [example(f"{n} is too long", "aa", n) for n in range(9)]
    job_id = queued(school, creation(school, data=stored(school, long, "long")))

    school.run("train", job_id)

    state, code, message = failure(view(school, job_id))
    assert (state, code) == ("failed", "cannot_train")
    assert (message or "").startswith("there are no examples to train on: all ")
    assert rows(school) == dict.fromkeys(REGISTERED, 0)
    assert not checkpoints(school, job_id).exists()


def test_an_expert_that_is_not_better_stays_a_candidate_and_says_why(school: Bench) -> None:
    configure(school, "training", learning_rate=1e-7)

    found = learned(school, creation(school))

    assert (found["state"], found["promoted"], found["refresh_job"]) == ("candidate", False, None)
    assert found["reasons"][0].startswith("not better than the base: exact answers +0.000")
    (version,) = versions(school)
    assert (version.state, version.verdict) == ("candidate", {"promote": False, "reasons": found["reasons"]})
    assert refreshes(school) == []
    assert school.dispatcher.sent == []
    assert story(school, view(school, 1))[-1].endswith(f"it stays a candidate: {'; '.join(found['reasons'])}")


def test_an_expert_below_the_floor_stays_a_candidate_however_little_the_base_knows(school: Bench) -> None:
    configure(school, "training", floor=1.0)
    wrong = [example(one.prompt[0].content, "zz" if n < 4 else one.answer, n) for n, one in enumerate(EVALUATION)]

    found = learned(school, creation(school, validation=stored(school, wrong, "wrong")))

    assert found["promoted"] is False
    assert found["reasons"][-1].endswith("is below 1.000")


def test_a_candidate_answers_nobody_and_no_router_learns_of_it(school: Bench) -> None:
    school.serve()
    configure(school, "training", learning_rate=1e-7)
    learned(school, creation(school))

    refresh = school.store(jobs.add_refresh)
    school.run("train", refresh)

    assert school.store(catalogue.names, serving=True) == ["alpha", "beta", "gamma"]
    assert view(school, refresh).state == "succeeded"


# --- further versions ---------------------------------------------------------------------------------------------


def test_the_next_version_keeps_the_card_and_asks_for_no_router(school: Bench) -> None:
    found = learned(school, creation(school))
    school.run("train", found["refresh_job"])

    again = learned(school, creation(school, mode="train", card=None, engine=None, exemplars=None))

    assert (again["version"], again["state"], again["refresh_job"]) == (2, "live", None)
    assert again["metrics"]["previous_exact_match"] == found["metrics"]["exact_match"]
    second, first = versions(school)
    assert (first.state, second.state, second.engine, second.card) == ("retired", "live", first.engine, first.card)
    assert len(school.store(catalogue.exemplars)) == 2


def test_the_documents_and_every_exemplar_that_came_with_an_expert_are_stored(school: Bench) -> None:
    document = {"name": "letters", "title": "Letters", "text": "There are four."}
    texts = [f"say letter {n} twice" for n in range(201)]
    learned(school, creation(school, documents=[document], exemplars=texts))
    found = school.store(catalogue.expert, "twice")
    assert (found.n_documents, found.n_exemplars) == (1, 201)


def test_a_version_worse_than_the_one_before_stays_a_candidate(school: Bench) -> None:
    learned(school, creation(school))
    configure(school, "training", learning_rate=1e-7)

    found = learned(school, creation(school, mode="train"))

    assert found["state"] == "candidate"
    assert any(reason.startswith("worse than the version before") for reason in found["reasons"])
    assert [version.state for version in versions(school)] == ["candidate", "live"]


def test_without_a_validation_file_a_share_of_the_examples_is_kept_for_measuring(school: Bench) -> None:
    found = learned(school, creation(school, data=stored(school, EXAMPLES, "all"), validation=None))

    train, evaluation = newest(school, "train"), newest(school, "evaluation")
    assert found["metrics"]["n"] == len(evaluation) == round(0.2 * len(EXAMPLES))
    assert sorted(train + evaluation) == pairs(EXAMPLES)


def test_other_experts_are_measured_with_a_new_version_and_few_of_their_examples(school: Bench) -> None:
    learned(school, creation(school))

    found = learned(school, creation(school, "again"))

    cell = found["metrics"]["matrix"]["twice"]
    assert (cell["n"], cell["base_exact_match"]) == (8, 0.0)
    assert cell["exact_match"] > 0.5  # it learned the same
    assert list(found["metrics"]["matrix"]) == ["twice"]


def test_a_first_version_that_stayed_a_candidate_can_be_followed_by_a_better_one(school: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expert_training, "gate", lambda *args, **given: Verdict(False, ["too little"]))
        learned(school, creation(school))
    assert [version.state for version in versions(school)] == ["candidate"]

    found = learned(school, creation(school, mode="train", card=None, engine=None, exemplars=None))

    assert (found["version"], found["state"]) == (2, "live")
    assert [version.card for version in versions(school)] == [CARD, CARD]


# --- twice --------------------------------------------------------------------------------------------------------


def killed(*_: object, **__: object) -> None:
    """The worker's process ends here."""
    raise KeyboardInterrupt


def claimed_again(bench: Bench, job_id: int) -> None:
    """Another worker takes the job after its lease ran out."""
    expire_leases(bench.store)
    bench.run("train", job_id)


@pytest.mark.parametrize("at", ["put", "register", "succeed"])
def test_a_worker_that_is_killed_at_the_end_leaves_one_version_and_one_refresh(
    school: Bench, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Before anything is registered, after it is, and after the refresh was sent."""
    places: dict[str, tuple[Any, str]] = {
        "put": (examples, "put"),
        "register": (expert_training, "JobHint"),
        "succeed": (jobs, "succeed"),
    }
    job_id = queued(school, creation(school))
    with monkeypatch.context() as dying:
        dying.setattr(*places[at], killed)
        with pytest.raises(KeyboardInterrupt):
            school.run("train", job_id)
    assert view(school, job_id).state == "running"
    assert rows(school)["expert_version"] == (0 if at == "put" else 1)

    claimed_again(school, job_id)

    found = succeeded(school, job_id)
    assert (found["version"], found["state"]) == (1, "live")
    assert rows(school) == {"expert": 1, "expert_version": 1, "training_set": 2, "exemplar": 2}
    assert refreshes(school) == [found["refresh_job"]]
    (version,) = versions(school)
    assert version.adapter is not None
    school.runtime.store.fetch_tree(version.adapter.artefact, version.adapter.tree_sha256)
    assert not checkpoints(school, job_id).exists()


def test_a_worker_whose_job_was_taken_away_settles_nothing(school: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen while it measured: the job is somebody else's by then, and what both register is one version."""
    job_id = queued(school, creation(school))

    def taken(job: TrainingJob) -> None:
        expire_leases(school.store)
        assert school.store(jobs.claim, job_id, owner="another", ttl_s=60, max_attempts=3) is not None

    when(monkeypatch, 1, taken)
    school.run("train", job_id)
    assert (view(school, job_id).state, view(school, job_id).result) == ("running", None)

    claimed_again(school, job_id)

    assert succeeded(school, job_id)["version"] == 1
    assert rows(school)["expert_version"] == 1
    assert len(refreshes(school)) == 1


def test_a_job_that_ended_is_not_done_again(school: Bench) -> None:
    learned(school, creation(school))
    before = school.everything() | rows(school)

    school.run("train", 1)

    assert school.everything() | rows(school) == before


# --- stopped in the middle ----------------------------------------------------------------------------------------


def stopping(bench: Bench, wanted: Wanted) -> Any:
    def stop(job: TrainingJob) -> None:
        assert bench.store(job_control.stop, job.id, wanted).wanted == wanted

    return stop


def test_a_training_that_is_cancelled_registers_nothing_and_keeps_nothing(
    school: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queued(school, creation(school))
    told = when(monkeypatch, 15, stopping(school, "cancel"))

    school.run("train", job_id)

    job = view(school, job_id)
    assert (job.state, job.wanted, job.result, job.error_code) == ("cancelled", None, None, None)
    assert job.finished_at is not None
    assert max(told) < 48
    assert not checkpoints(school, job_id).exists()
    assert rows(school) == dict.fromkeys(REGISTERED, 0)
    school.run("train", job_id)
    assert view(school, job_id).state == "cancelled"


def test_a_paused_training_goes_on_from_its_checkpoint_and_ends_with_the_same_numbers(
    school: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queued(school, creation(school))
    with monkeypatch.context() as patch:
        told = when(patch, 15, stopping(school, "pause"))
        school.run("train", job_id)
    job = view(school, job_id)
    assert (job.state, job.wanted, job.finished_at) == ("paused", None, None)
    assert list(checkpoints(school, job_id).glob("checkpoint-*"))
    assert rows(school) == dict.fromkeys(REGISTERED, 0)
    school.run("train", job_id)  # a message that comes late
    assert view(school, job_id).state == "paused"
    stopped_at = max(told)

    school.store(job_control.resume, job_id)
    with monkeypatch.context() as patch:
        told = when(patch, 1000, lambda job: None)
        school.run("train", job_id)

    assert min(told) >= stopped_at
    assert not checkpoints(school, job_id).exists()
    found = succeeded(school, job_id)
    other = learned(school, creation(school, "straight"))
    assert without_time(found["metrics"]) == without_time(other["metrics"])
    (paused,), (straight,) = versions(school), versions(school, "straight")
    assert paused.adapter is not None
    assert straight.adapter is not None
    assert paused.adapter.sha256 == straight.adapter.sha256


def test_what_a_paused_training_kept_is_gone_some_time_after_it_was_cancelled(
    school: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker has it in hand when it is cancelled; the next training finds it."""
    paused, other = queued(school, creation(school)), queued(school, creation(school, "waiting"))
    with monkeypatch.context() as patch:
        when(patch, 15, stopping(school, "pause"))
        school.run("train", paused)
    with monkeypatch.context() as patch:
        when(patch, 15, stopping(school, "pause"))
        school.run("train", other)
    assert school.store(job_control.stop, paused, "cancel").state == "cancelled"

    learned(school, creation(school, "next"))

    assert not checkpoints(school, paused).exists()
    assert checkpoints(school, other).exists()


def test_a_pause_that_is_taken_back_lets_the_training_go_on(school: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = queued(school, creation(school))

    def hesitating(job: TrainingJob) -> None:
        school.store(job_control.stop, job.id, "pause")
        school.store(job_control.resume, job.id)

    when(monkeypatch, 15, hesitating)

    school.run("train", job_id)

    assert succeeded(school, job_id)["version"] == 1


def test_a_killed_training_goes_on_from_its_checkpoint(school: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = queued(school, creation(school))
    with monkeypatch.context() as patch:
        when(patch, 15, killed)
        with pytest.raises(KeyboardInterrupt):
            school.run("train", job_id)
    assert view(school, job_id).state == "running"
    assert view(school, job_id).progress is not None

    with monkeypatch.context() as patch:
        told = when(patch, 1000, lambda job: None)
        claimed_again(school, job_id)

    found = succeeded(school, job_id)
    assert min(told) > 5
    assert found["metrics"]["steps"] == 48


@pytest.mark.parametrize("step", [1, 20], ids=["before its first checkpoint", "after one"])
def test_a_training_that_kills_its_worker_at_the_same_step_each_time_is_given_up(
    school: Bench, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    job_id = queued(school, creation(school))
    tries = 0
    while tries < 8:
        before = school.store.value("SELECT epoch FROM job")
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            when(patch, step, killed)
            school.run("train", job_id)
        if school.store.value("SELECT epoch FROM job") == before:
            break
        tries += 1
        expire_leases(school.store)

    assert tries == 3
    assert rows(school) == dict.fromkeys(REGISTERED, 0)


def test_tries_count_anew_after_a_checkpoint(school: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = queued(school, creation(school))
    school.store.sql("UPDATE job SET attempts = 2")
    with monkeypatch.context() as patch:
        when(patch, 20, killed)
        with pytest.raises(KeyboardInterrupt):
            school.run("train", job_id)

    assert list(checkpoints(school, job_id).glob("checkpoint-*/whole.json"))
    assert school.store.value("SELECT attempts FROM job") == 1


# --- learning from what people said --------------------------------------------------------------------------------


def said(bench: Bench, corrections: dict[str, str], name: str = "twice") -> None:
    """Somebody gives the right answers to questions, and says that they were for this expert."""
    run = bench.finalized(list(corrections))
    for n, answer in enumerate(corrections.values()):
        bench.store(feedback.add, run, f"q{n}", positive=None, correct_expert=name, correct_answer=answer)


@pytest.fixture
def schooled(school: Bench) -> Bench:
    """An expert that learned, and others that answer."""
    learned(school, creation(school))
    school.serve()
    return school


def retrain(bench: Bench) -> dict[str, Any]:
    return learned(bench, {"mode": "retrain", "expert": "twice", "rank": None})


def test_retraining_learns_from_the_stored_examples_and_from_corrected_answers(schooled: Bench) -> None:
    first, *_ = TRAIN
    said(schooled, {"e9": "ee", first.prompt[0].content: "other"})

    found = retrain(schooled)

    assert (found["expert"], found["version"]) == ("twice", 2)
    told = dict(newest(schooled, "train"))
    assert told == dict(pairs(TRAIN)) | {"e9": "ee", first.prompt[0].content: "other"}
    assert sorted(newest(schooled, "evaluation")) == pairs(EVALUATION)
    assert found["metrics"]["n"] == len(EVALUATION)
    assert found["metrics"]["previous_exact_match"] is not None
    assert "2 corrected answers are learned from as well" in story(schooled, view(schooled, found_job(schooled)))


def found_job(bench: Bench) -> int:
    number: int = bench.store.value("SELECT max(id) FROM job WHERE kind = 'train_expert'")
    return number


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(lambda text: text, id="as it is"),
        pytest.param(lambda text: f" {text.upper()} ", id="but for case and spacing"),
    ],
)
def test_retraining_never_learns_what_it_is_measured_on(schooled: Bench, asked: Any) -> None:
    measured = EVALUATION[0].prompt[0].content
    said(schooled, {asked(measured): "zz", "e9": "ee"})

    retrain(schooled)

    told = dict(newest(schooled, "train"))
    assert "e9" in told
    assert not {text for text in told if text.strip().lower() == measured}


def test_what_is_given_to_measure_is_not_learned_either(school: Bench) -> None:
    """Whoever gives the same examples twice must not get an expert that learned its own test."""
    params = creation(school, data=stored(school, EXAMPLES, "all"), validation=stored(school, EVALUATION, "some"))

    learned(school, params)

    assert not set(newest(school, "train")) & set(newest(school, "evaluation"))


# --- what cannot be trained ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "told"),
    [
        (EXAMPLES[:3], "cannot_train", "3 usable examples are too few to train on; at least 4 are needed"),
        ([EXAMPLES[0]] * 9, "cannot_train", "examples with at least two different prompts are needed"),
        (b"{broken\n", "cannot_train", "line 1 of the stored examples is no example"),
        (None, "artefact_damaged", "stored file training/given/gone.jsonl is missing"),
    ],
)
def test_examples_that_are_none_fail_clearly_and_the_worker_lives(
    school: Bench, data: Any, code: str, told: str
) -> None:
    place = "training/given/gone.jsonl" if data is None else stored(school, data, "bad")
    job_id = queued(school, creation(school, data=place, validation=None))

    school.run("train", job_id)

    state, error, message = failure(view(school, job_id))
    assert (state, error) == ("failed", code)
    assert told in (message or "")
    assert school.store.value("SELECT attempts FROM job") == 1
    assert rows(school) == dict.fromkeys(REGISTERED, 0)


def test_an_expert_that_learned_nothing_cannot_be_retrained(school: Bench) -> None:
    school.serve()
    job_id = queued(school, {"mode": "retrain", "expert": "alpha", "rank": None})

    school.run("train", job_id)

    state, code, message = failure(view(school, job_id))
    assert (state, code) == ("failed", "cannot_train")
    assert (message or "").startswith("0 usable examples are too few")


def test_a_base_that_is_not_there_fails_clearly(school: Bench, tmp_path: Path) -> None:
    configure(school, "base", name=str(tmp_path / "nowhere"))
    job_id = queued(school, creation(school))

    school.run("train", job_id)

    state, code, message = failure(view(school, job_id))
    assert (state, code) == ("failed", "model_unusable")
    assert "nowhere" in (message or "")


def test_on_another_base_an_expert_learns_anew_and_is_not_held_against_its_old_adapter(
    schooled: Bench, tmp_path: Path
) -> None:
    (before,) = versions(schooled)
    configure(schooled, "base", name=str(save_tiny_base(tmp_path / "other", seed=1)))

    found = retrain(schooled)

    assert found["metrics"]["previous_exact_match"] is None
    after = versions(schooled)[0]
    assert before.adapter is not None
    assert after.adapter is not None
    assert after.adapter.base_sha256 != before.adapter.base_sha256


def test_a_live_adapter_that_was_damaged_can_be_replaced_by_training(schooled: Bench) -> None:
    spoil(schooled, "adapters")

    found = retrain(schooled)

    assert (found["version"], found["state"]) == (2, "live")
    assert found["metrics"]["previous_exact_match"] is None


@pytest.mark.parametrize("data", [b"{broken\n", None], ids=["broken", "missing"])
def test_another_experts_broken_examples_keep_nobody_from_learning(school: Bench, data: bytes | None) -> None:
    school.store(catalogue.put_expert, NewExpert("other", "echo", CARD, [], []))
    place = "training/other/evaluation.jsonl"
    if data is not None:
        school.runtime.store.put_file(place, [data])
    other = school.store(catalogue.expert, "other")
    school.store(training_sets.add, other.id, NewSet("evaluation", place, "0" * 64, 12))

    found = learned(school, creation(school))

    assert (found["state"], found["metrics"]["matrix"]) == ("live", {})
    assert any(line.startswith("other: ") for line in story(school, view(school, 1)))


def test_examples_that_are_too_long_are_named_and_a_rank_may_be_asked_for(school: Bench) -> None:
    configure(school, "training", max_length=64)
    long = example("a" * 100, "aa", 77)

    learned(school, creation(school, data=stored(school, [*TRAIN, long], "long"), rank=4, complex=True))

    assert any("rank 12 on" in line for line in story(school, view(school, 1)))
    assert "1 examples were too long and are left out (lines 77)" in story(school, view(school, 1))


def test_a_training_out_of_time_ends_with_the_best_it_has(school: Bench) -> None:
    configure(school, "training", max_seconds=0.001)

    found = learned(school, creation(school))

    assert found["metrics"]["stopped_by"] == "seconds"
    assert found["metrics"]["steps"] == 1


def test_an_error_that_another_try_may_mend_keeps_the_checkpoints(
    school: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queued(school, creation(school))

    def breaks(job: TrainingJob) -> None:
        raise OSError("the network is away")

    with monkeypatch.context() as patch:
        when(patch, 15, breaks)
        school.run("train", job_id)
    assert view(school, job_id).state == "queued"
    assert list(checkpoints(school, job_id).glob("checkpoint-*"))
    end_rests(school.store)
    school.run("train", job_id)

    assert succeeded(school, job_id)["version"] == 1
