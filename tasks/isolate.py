"""Finding the one bad item in a batch that raised, so that its neighbours still get their results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from storage.errors import StorageUnavailable
from storage.leases import LeaseLost
from worker.logs import describe

log = structlog.get_logger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Failed:
    """What stands in place of a result; ``reason`` names the error, never the item."""

    reason: str


def isolate(items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result | Failed]:
    """``work(items)``, or the same in halves where it raises, down to the single items that cannot be worked on.

    Running out of memory counts as an error of the batch: a smaller one may fit. A lost lease or database ends it all.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except (LeaseLost, StorageUnavailable):
        raise
    except Exception as error:  # noqa: BLE001  (whatever an engine or a model raises is the item's own failure)
        if len(items) == 1:
            log.warning("item.failed", **describe(error))
            return [Failed(f"{type(error).__name__}: {error}"[:500])]
    middle = len(items) // 2
    return [*isolate(items[:middle], work), *isolate(items[middle:], work)]
