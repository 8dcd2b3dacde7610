import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from storage import catalogue
from storage.catalogue import NewExpert
from tests.support.experts import card
from worker import names

# What storage accepts as the name of an expert.
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,49}", fullmatch=True)


def test_an_expert_has_two_queues_of_its_own() -> None:
    assert names.expert_queue("finance") == "expert.finance"
    assert names.lane("expert.finance", True) == "expert.finance.interactive"
    assert names.lane("expert.finance", False) == "expert.finance"


@pytest.mark.parametrize("queue", [names.CONTROL, names.ROUTING, names.TRAINING, names.expert_queue("finance")])
def test_only_the_interactive_lane_is_interactive(queue: str) -> None:
    assert names.is_interactive(names.interactive(queue)) is True
    assert names.is_interactive(queue) is False


@given(NAMES)
@example("interactive")
@settings(deadline=None, max_examples=100, derandomize=True)
def test_the_batches_of_no_expert_go_before_questions(name: str) -> None:
    assert names.is_interactive(names.expert_queue(name)) is False


@given(st.lists(NAMES, unique=True, max_size=20))
@example(["alpha", "interactive", "expert", "control"])
@settings(deadline=None, max_examples=100, derandomize=True)
def test_no_two_lanes_of_all_experts_and_roles_are_one_queue(experts: list[str]) -> None:
    plain = [names.CONTROL, names.ROUTING, names.TRAINING, *map(names.expert_queue, experts)]
    lanes = [names.lane(queue, interactive) for queue in plain for interactive in (False, True)]
    assert len(set(lanes)) == len(lanes)


def test_task_names_are_all_different() -> None:
    tasks = [
        names.PLAN_RUN,
        names.ROUTE_SHARD,
        names.ANSWER_CHUNK,
        names.AGGREGATE_SHARD,
        names.FINALIZE_RUN,
        names.SWEEP,
        names.TRAIN,
    ]
    assert len(set(tasks)) == 7


HOSTILE = [
    "",
    "Alpha",
    "1st",
    "a.interactive",
    "a,control",
    "a b",
    "a\nb",
    "alpha\n",
    "a\x06\x16b",
    "../alpha",
    "a/b",
    "a*",
    "a:b",
    "äpfel",
    "alpha\u200b",
    "'; DROP TABLE expert; --",
    "x" * 51,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_smuggle_something_into_a_queues_name_is_never_stored(engine: Engine, name: str) -> None:
    with pytest.raises(DBAPIError, match="name_is_plain"), engine.begin() as connection:
        catalogue.put_expert(connection, NewExpert(name, "echo", card("x"), ["a question"], []))
    with engine.begin() as connection:
        assert catalogue.names(connection) == []
