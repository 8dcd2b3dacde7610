"""The order in which a worker looks at its queues: interactive ones first, the others taking turns."""

from kombu.utils.scheduling import round_robin_cycle

from worker.names import is_interactive


class InteractiveFirst(round_robin_cycle):
    """A round robin in which interactive queues always come before the rest.

    Kombu asks for the queues before every pop and tells which one it popped from. A plain priority order would let a
    busy expert starve the ones listed after it; a plain round robin would let a batch delay a person's question.
    """

    def consume(self, n: int) -> list[str]:
        queues: list[str] = self.items[:n]
        return sorted(queues, key=lambda queue: not is_interactive(queue))
