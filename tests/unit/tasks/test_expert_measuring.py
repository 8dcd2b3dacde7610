"""A version of an expert is measured against the base, and nothing is changed by it."""

from dataclasses import replace
from typing import Any

import pytest

from experts.adapters.evaluation import exact_match
from experts.encoders.hashing import HashingEncoder
from experts.language.base import weights_sha256
from experts.language.generating import generate
from storage import catalogue, jobs, training_sets
from storage.catalogue import NewExpert
from storage.training_sets import NewSet
from tasks import bases, expert_measuring
from tasks import train as kinds
from tasks.training_job import TrainingJob
from tests.tiny_base import save_tiny_base
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.learning import CARD, EVALUATION, example, put_version, random_adapter, set_up, stored, view
from tests.unit.tasks.training import configure, failure, spoil, story

LONG = 8


@pytest.fixture
def school(bench: Bench, tiny_base: str) -> Bench:
    """An expert whose adapter nobody trained, with an evaluation set of which it happens to know a half."""
    set_up(bench, tiny_base)
    configure(bench, "serving", max_tokens=LONG)
    weights = random_adapter(bench)
    put_version(bench, weights)
    asked = EVALUATION[:12]
    known = generate(bases.base(bench.runtime.settings), weights, asked, LONG)
    answers = [answer if n % 2 else "wrong" for n, answer in enumerate(known)]
    learned = [
        replace(one, answer=answer, line=n) for n, (one, answer) in enumerate(zip(asked, answers, strict=True), 1)
    ]
    assert sum(map(exact_match, known, answers)) == 6
    give_set(bench, stored(bench, learned, "own"))
    return bench


def give_set(bench: Bench, place: str) -> None:
    expert = bench.store(catalogue.expert, "twice")
    bench.store(training_sets.add, expert.id, NewSet("evaluation", place, place[-64:], 12))


def measured(bench: Bench, **params: Any) -> Any:
    given = {"expert": "twice", "version": None, "data": None} | params
    job_id = bench.store(jobs.add, "evaluate_expert", given)
    bench.run("train", job_id)
    return view(bench, job_id)


def test_a_version_is_measured_on_its_own_set_against_the_base(school: Bench) -> None:
    before = school.everything()["answer"], school.store.rows("SELECT v::text FROM expert_version v")
    base = bases.base(school.runtime.settings)

    job = measured(school)

    assert job.state == "succeeded", job.error_message
    assert job.result.keys() == {
        "expert",
        "version",
        "n",
        "exact_match",
        "base_exact_match",
        "token_f1",
        "base_token_f1",
        "ci",
        "p",
        "base_unchanged",
        "wrong",
    }
    found = job.result
    assert (found["expert"], found["version"], found["n"]) == ("twice", 1, 12)
    assert (found["exact_match"], found["base_exact_match"], found["base_unchanged"]) == (0.5, 0.0, True)
    assert [row["line"] for row in found["wrong"]] == [1, 3, 5, 7, 9, 11]
    assert {row["expected"] for row in found["wrong"]} == {"wrong"}
    low, high = found["ci"]
    assert 0 < low < 0.5 < high < 1
    assert found["p"] == pytest.approx(0.03125)
    assert story(school, job) == ["twice@1: asking 12 examples, and the base the same"]
    assert weights_sha256(base.model) == base.sha256
    assert (school.everything()["answer"], school.store.rows("SELECT v::text FROM expert_version v")) == before


def test_a_version_may_be_named_and_so_may_the_examples(school: Bench) -> None:
    put_version(school, random_adapter(school, 2))
    others = stored(school, [example("xy", "wrong", 5)], "others")

    job = measured(school, version=1, data=others)

    assert job.state == "succeeded", job.error_message
    assert (job.result["version"], job.result["n"], job.result["exact_match"]) == (1, 1, 0.0)
    assert [row["line"] for row in job.result["wrong"]] == [5]


def test_few_rows_at_once_are_answered_as_all_are(school: Bench) -> None:
    whole = measured(school).result
    configure(school, "serving", rows=5)
    assert measured(school).result == whole


def test_likeness_of_meaning_is_measured_by_an_encoder_that_knows_of_it(
    school: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(school, "encoder", name="another")
    monkeypatch.setattr(TrainingJob, "encoder", lambda job: HashingEncoder())

    found = measured(school).result

    assert found["base_similarity"] < found["similarity"] <= 1
    assert found["similarity"] >= 0.5  # half of the answers are the same


def test_an_expert_without_an_adapter_has_nothing_to_be_measured(school: Bench) -> None:
    school.store(catalogue.put_expert, NewExpert("plain", "echo", CARD, [], []))

    assert failure(measured(school, expert="plain")) == (
        "failed",
        "cannot_train",
        "version 1 of plain has no adapter: there is nothing to compare with the base",
    )


def test_an_expert_without_a_set_of_its_own_needs_one_given(school: Bench) -> None:
    put_version(school, random_adapter(school), "other")

    assert failure(measured(school, expert="other")) == (
        "failed",
        "cannot_train",
        "other has no evaluation set; give --data FILE",
    )


@pytest.mark.parametrize(
    ("params", "code", "said"),
    [
        ({"expert": "nobody"}, "not_found", "no expert 'nobody'; there are: twice"),
        ({"version": 9}, "not_found", "no version of twice '9'; there are: 1"),
        ({"data": "training/given/gone.jsonl"}, "artefact_damaged", "training/given/gone.jsonl is missing"),
    ],
)
def test_what_is_not_there_is_named(school: Bench, params: dict[str, Any], code: str, said: str) -> None:
    state, error, message = failure(measured(school, **params))
    assert (state, error) == ("failed", code)
    assert said in (message or "")


def test_a_broken_line_of_the_set_is_named(school: Bench) -> None:
    give_set(school, stored(school, b"{}\n", "broken"))

    state, code, message = failure(measured(school))

    assert (state, code) == ("failed", "cannot_train")
    assert (message or "").startswith("line 1 of the stored examples is no example")


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "changed"])
def test_a_damaged_adapter_is_not_measured(school: Bench, missing: bool) -> None:
    spoil(school, "adapters", missing=missing)

    job = measured(school)

    assert (job.state, job.error_code) == ("failed", "artefact_damaged")


def test_an_adapter_of_another_base_is_not_measured(school: Bench, tmp_path: Any) -> None:
    configure(school, "base", name=str(save_tiny_base(tmp_path / "other", seed=1)))

    state, code, message = failure(measured(school))

    assert (state, code) == ("failed", "model_unusable")
    assert "belongs to base" in (message or "")


def test_a_lost_lease_ends_the_measuring(school: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at between the parts of the examples."""
    configure(school, "serving", rows=4)
    parts: list[int] = []
    measure = expert_measuring.evaluate_expert

    def losing(job: TrainingJob) -> dict[str, Any]:
        def generate(base: Any, adapter: Any, part: Any, tokens: int) -> list[str]:
            parts.append(len(part))
            job.heartbeat._lost.set()
            return ["x"] * len(part)

        monkeypatch.setattr(expert_measuring, "generate", generate)
        return measure(job)

    monkeypatch.setitem(kinds.KINDS, "evaluate_expert", losing)

    found = measured(school)

    assert (found.state, parts) == ("running", [4])
