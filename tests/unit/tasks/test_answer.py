"""Chunks of experts that learned: answered by their own adapter, or not at all."""

import json
from typing import Any

import pytest

from experts.adapters.data import Example
from experts.language.adapting import AdapterWeights
from experts.language.generating import generate
from experts.language.prompting import Turn, encode_prompt
from storage import catalogue
from storage.runs import RunView
from tasks import answer, bases
from tests.support.experts import serve
from tests.unit.storage.builders import end_rests
from tests.unit.tasks.conftest import Bench
from tests.unit.tasks.learning import put_version, random_adapter, set_up
from tests.unit.tasks.training import spoil

TEXTS = ["what is a letter said twice", "twice b", "twice, please, and in full"]
LONG = 8


@pytest.fixture
def school(bench: Bench, tiny_base: str) -> Bench:
    """An expert ``twice`` beside one that echoes; it has no adapter yet."""
    set_up(bench, tiny_base)
    home = bench.runtime.settings.home
    bench.store(lambda c: serve(c, home, names=("echo", "twice")))
    return bench


@pytest.fixture
def weights(school: Bench) -> AdapterWeights:
    return random_adapter(school)


def expected(bench: Bench, weights: AdapterWeights | None) -> list[str | None]:
    """What the reference says with the adapter, or with the base alone, as it can be stored."""
    asked = [Example((Turn("user", text),), "", n) for n, text in enumerate(TEXTS)]
    return [answer.clean(text) for text in generate(bases.base(bench.runtime.settings), weights, asked, LONG)]


def rows(bench: Bench, run: RunView) -> list[Any]:
    return bench.store.rows(
        "SELECT text, error_code, prompt_tokens, completion_tokens, finish_reason FROM answer WHERE run_id = :run"
        " ORDER BY idx",
        run=run.id,
    )


def output(bench: Bench, run: RunView) -> list[dict[str, Any]]:
    assert run.output is not None
    with bench.runtime.store.open(run.output["path"]) as file:
        return [json.loads(line) for line in file]


def tried_to_the_end(bench: Bench, texts: list[str] = TEXTS) -> RunView:
    """A run whose chunks were tried as often as they are."""
    run = bench.routed(texts)
    for _ in range(bench.runtime.settings.pipeline.max_attempts):
        for chunk in bench.chunks(run, "queued"):
            bench.run("answer_chunk", chunk)
        end_rests(bench.store)
    for shard in bench.shards(run, "answering"):
        bench.run("aggregate_shard", [], shard)
    bench.run("finalize_run", run.id)
    return bench.view(run)


def test_a_chunk_is_answered_by_the_adapter_of_its_version(school: Bench, weights: AdapterWeights) -> None:
    put_version(school, weights)
    tokenizer = bases.base(school.runtime.settings).tokenizer

    run = school.answered(TEXTS)

    found = rows(school, run)
    assert [row[0] for row in found] == expected(school, weights) != expected(school, None)
    assert [row[2] for row in found] == [len(encode_prompt(tokenizer, [Turn("user", text)])) for text in TEXTS]
    assert all(0 < row[3] <= LONG for row in found)
    assert [row[1] for row in found] == [None] * 3
    assert {row[4] for row in found} <= {"stop", "length"}
    assert school.store.values("SELECT attempts FROM chunk") == [1]


def test_the_line_names_the_adapter_and_counts_the_tokens(school: Bench, weights: AdapterWeights) -> None:
    put_version(school, weights)

    run = school.finalized([TEXTS[0], "echo this"])

    learned, plain = output(school, run)
    ((_, _, prompt, completion, finish), _) = rows(school, run)
    (expert,) = learned["moe"]["experts"]
    assert (expert["name"], expert["adapter"]) == ("twice", weights.sha256)
    assert expert["tokens"] == {"prompt": prompt, "completion": completion}
    body = learned["response"]["body"]
    assert body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    assert body["choices"][0]["finish_reason"] == finish
    (other,) = plain["moe"]["experts"]
    assert not {"adapter", "tokens"} & set(other)
    assert plain["response"]["body"]["usage"]["total_tokens"] == 0
    assert plain["response"]["body"]["choices"][0]["finish_reason"] == "stop"


def test_chunks_that_were_cut_before_a_promotion_end_with_their_version(school: Bench, weights: AdapterWeights) -> None:
    put_version(school, weights)
    before = school.routed(TEXTS)
    newer = random_adapter(school, 2)
    put_version(school, newer)
    after = school.routed(TEXTS)

    for chunk in [*school.chunks(before), *school.chunks(after)]:
        school.run("answer_chunk", chunk)

    assert [row[0] for row in rows(school, before)] == expected(school, weights)
    assert [row[0] for row in rows(school, after)] == expected(school, newer)


def test_an_engine_stays_loaded_from_chunk_to_chunk(school: Bench, weights: AdapterWeights) -> None:
    put_version(school, weights)
    school.answered(TEXTS)
    (engine,) = answer._engines.held()

    run = school.answered(TEXTS)

    assert answer._engines.held() == [engine]
    assert [row[0] for row in rows(school, run)] == expected(school, weights)


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "changed"])
def test_a_damaged_adapter_makes_error_lines_and_never_the_bases_answers(
    school: Bench, weights: AdapterWeights, missing: bool
) -> None:
    put_version(school, weights)
    spoil(school, "adapters", missing=missing)

    run = tried_to_the_end(school, [*TEXTS, "echo this"])

    assert (run.state, run.n_ok, run.n_error) == ("completed", 1, 3)
    assert set(school.outcomes(run).values()) == {(False, "expert_unavailable"), (True, None)}
    assert [row[:4] for row in rows(school, run)[:3]] == [(None, "expert_unavailable", None, None)] * 3
    assert school.store.values("SELECT attempts FROM chunk ORDER BY attempts") == [1, 3]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"base_sha256": "0" * 64}, "trained on base 000000000000"),
        ({"sha256": "0" * 64}, "not 000000000000"),
    ],
)
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]], ids=["several", "one"])
def test_an_adapter_that_is_not_what_was_meant_is_refused_as_a_whole(
    school: Bench, weights: AdapterWeights, changed: dict[str, str], said: str, texts: list[str]
) -> None:
    put_version(school, weights, **changed)

    run = tried_to_the_end(school, texts)

    assert (run.n_ok, run.n_error) == (0, len(texts))
    assert set(school.outcomes(run).values()) == {(False, "expert_unavailable")}
    (message,) = set(school.store.values("SELECT error_message FROM answer"))
    assert said in message
    assert school.store.values("SELECT attempts FROM chunk") == [3]


def test_a_refused_adapter_harms_no_chunk_of_another_expert(school: Bench, weights: AdapterWeights) -> None:
    put_version(school, weights)
    spoil(school, "adapters")
    tried_to_the_end(school)
    good = random_adapter(school, 2)
    put_version(school, good)

    run = school.answered(TEXTS)

    assert [row[0] for row in rows(school, run)] == expected(school, good)


def test_the_parameters_of_a_request_reach_the_expert(school: Bench, weights: AdapterWeights) -> None:
    put_version(school, weights)
    run = school.routed(TEXTS)
    school.store.sql("UPDATE query SET request = '{\"max_tokens\": 3}' WHERE idx = 1")

    for chunk in school.chunks(run):
        school.run("answer_chunk", chunk)

    found = rows(school, run)
    assert found[1][3:] == (3, "length")
    assert [found[n][0] for n in (0, 2)] == [expected(school, weights)[n] for n in (0, 2)]


def test_a_retired_experts_chunks_are_still_answered(school: Bench, weights: AdapterWeights) -> None:
    """They were cut when it served."""
    put_version(school, weights)
    run = school.routed(TEXTS)
    school.store.sql("UPDATE expert SET retired_at = clock_timestamp(), serving = false WHERE name = 'twice'")

    for chunk in school.chunks(run):
        school.run("answer_chunk", chunk)

    assert [row[0] for row in rows(school, run)] == expected(school, weights)
    assert school.store(catalogue.names, serving=True) == ["echo"]
