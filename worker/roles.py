"""The kinds of worker: what each consumes and which task modules it loads."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker import names
from worker.settings import Concurrency


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of worker. The queues of `expert` workers follow the experts in the database instead."""

    name: str
    queues: tuple[str, ...]
    # Modules with Celery tasks, as strings: the ones with models are imported by the workers that need them only.
    include: tuple[str, ...]
    loads_models: bool

    def concurrency(self, settings: Concurrency) -> int:
        """Processes of one worker of this role."""
        return int(getattr(settings, self.name))


ROLES = {
    role.name: role
    for role in (
        Role(
            "control",
            (names.interactive(names.CONTROL), names.CONTROL),
            ("tasks.plan", "tasks.aggregate", "tasks.finalize", "tasks.sweep"),
            loads_models=False,
        ),
        Role("router", (names.interactive(names.ROUTING), names.ROUTING), ("tasks.route",), loads_models=True),
        Role("expert", (), ("tasks.answer",), loads_models=True),
        Role("training", (names.TRAINING,), ("tasks.train",), loads_models=True),
    )
}


def expert_queues(experts: Sequence[str]) -> list[str]:
    """The queues a worker for these experts consumes: the interactive ones first."""
    queues = [names.expert_queue(name) for name in experts]
    return [names.interactive(queue) for queue in queues] + queues
