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


class NothingWorked(Exception):
    """Every item of a batch failed. That is more likely the worker's fault than theirs: another one should try."""


def isolate(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    *,
    is_last_try: bool = True,
    fatal: tuple[type[Exception], ...] = (),
) -> list[Result | Failed]:
    """``work(items)``, or the same in halves where it raises, down to the single items that cannot be worked on.

    Running out of memory counts as an error of the batch: a smaller one may fit. A lost lease or database ends it all,
    and so does what is ``fatal``: no item alone is to blame for it, and halves would only fail again.
    Raises NothingWorked when not one of several items could be worked on and this is not the last try.
    """
    results = _halves(items, work, (LeaseLost, StorageUnavailable, *fatal))
    if len(items) > 1 and not is_last_try and all(isinstance(result, Failed) for result in results):
        raise NothingWorked(f"all {len(items)} items failed, the first with {getattr(results[0], 'reason', '')[:80]}")
    return results


def _halves(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]], fatal: tuple[type[Exception], ...]
) -> list[Result | Failed]:
    if not items:
        return []
    try:
        return list(work(items))
    except fatal:
        raise
    except Exception as error:  # noqa: BLE001  (whatever an engine or a model raises is the item's own failure)
        if len(items) == 1:
            log.warning("item.failed", **describe(error))
            return [Failed(f"{type(error).__name__}: {error}"[:500])]
    middle = len(items) // 2
    return [*_halves(items[:middle], work, fatal), *_halves(items[middle:], work, fatal)]
