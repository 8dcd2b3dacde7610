import pytest

from worker import names
from worker.roles import ROLES, expert_queues
from worker.settings import Concurrency


def test_each_fixed_queue_is_consumed_by_exactly_one_role() -> None:
    consumed = [queue for role in ROLES.values() for queue in role.queues]
    assert sorted(consumed) == [
        "control",
        "control.interactive",
        "routing",
        "routing.interactive",
        "training",
    ]


def test_each_task_module_belongs_to_exactly_one_role() -> None:
    modules = [module for role in ROLES.values() for module in role.include]
    assert sorted(modules) == [
        "tasks.aggregate",
        "tasks.answer",
        "tasks.finalize",
        "tasks.plan",
        "tasks.route",
        "tasks.sweep",
        "tasks.train",
    ]


def test_only_the_control_role_runs_without_models() -> None:
    assert {name for name, role in ROLES.items() if not role.loads_models} == {"control"}


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_has_the_processes_that_are_set_for_it(role: str) -> None:
    assert ROLES[role].concurrency(Concurrency(**{role: 7})) == 7


def test_a_workers_interactive_queues_come_first() -> None:
    assert expert_queues(["alpha", "beta"]) == [
        "expert.alpha.interactive",
        "expert.beta.interactive",
        "expert.alpha",
        "expert.beta",
    ]
    assert expert_queues([]) == []


@pytest.mark.parametrize("role", ["control", "router"])
def test_a_role_looks_at_its_interactive_queue_first(role: str) -> None:
    first, *others = ROLES[role].queues
    assert names.is_interactive(first)
    assert not any(map(names.is_interactive, others))
