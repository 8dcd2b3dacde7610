"""Names of queues and tasks. Everything that sends or receives a message takes them from here."""

PLAN_RUN = "plan_run"
ROUTE_SHARD = "route_shard"
ANSWER_CHUNK = "answer_chunk"
AGGREGATE_SHARD = "aggregate_shard"
FINALIZE_RUN = "finalize_run"
SWEEP = "sweep"
TRAIN = "train"

CONTROL = "control"
ROUTING = "routing"
TRAINING = "training"
_EXPERT = "expert."
_INTERACTIVE = ".interactive"


def interactive(queue: str) -> str:
    """The queue beside ``queue`` that is always served first."""
    return queue + _INTERACTIVE


def is_interactive(queue: str) -> bool:
    """Whether it is such a queue; the plain one of an expert called `interactive` is not."""
    return queue.removeprefix(_EXPERT).endswith(_INTERACTIVE)


def expert_queue(expert: str) -> str:
    """``expert.finance``. Names of experts are plain (``^[a-z][a-z0-9_]*$``), so nothing can be smuggled in."""
    return _EXPERT + expert


def lane(queue: str, is_interactive_run: bool) -> str:
    """The queue a run's messages go to."""
    return interactive(queue) if is_interactive_run else queue
