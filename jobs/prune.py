"""Deleting what is old, so that a system can run for years."""

from storage import runs
from storage.database import transact
from storage.finalizing import folder_of
from worker.runtime import Runtime


def prune(runtime: Runtime, *, older_than_s: float) -> int:
    """Delete the runs (questions too) that ended longer ago than this, rows and files; how many there were."""
    n = 0
    while gone := transact(runtime.engine, lambda c: runs.prune(c, older_than_s=older_than_s)):
        for public_id in gone:
            runtime.store.remove_folder(folder_of(public_id))
        n += len(gone)
    return n
