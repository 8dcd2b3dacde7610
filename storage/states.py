"""The states of everything that moves, and the one table of moves that are allowed.

A migration copies ``MOVES`` into the table ``state_move``; a trigger refuses every other move, so a bug in any
program that writes to the database cannot bring a row into a state it must not have.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum


class RunState(StrEnum):
    VALIDATING = "validating"  # stored, not yet cut into shards
    IN_PROGRESS = "in_progress"
    CANCELLING = "cancelling"  # lines without an outcome are being closed with `batch_cancelled`
    EXPIRING = "expiring"  # the same at the deadline, with `batch_expired`
    FINALIZING = "finalizing"  # every line has its outcome; the files are being written
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ShardState(StrEnum):
    PLANNED = "planned"  # outside the window of its run
    QUEUED = "queued"  # in the window: a routing hint is under way or due
    ROUTING = "routing"  # leased
    ANSWERING = "answering"  # waits for its chunks; with none left it is due for combining
    COMBINING = "combining"  # leased
    DONE = "done"
    SPLIT = "split"  # replaced by two halves
    CANCELLED = "cancelled"


class ChunkState(StrEnum):
    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"  # a single query that killed every worker that tried it
    SPLIT = "split"  # replaced by two halves
    CANCELLED = "cancelled"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"  # leased
    PAUSED = "paused"  # by a person; goes on where it was when resumed
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RouterState(StrEnum):
    TRAINED = "trained"
    LIVE = "live"  # at most one
    RETIRED = "retired"


RUN_ENDED = (RunState.COMPLETED, RunState.CANCELLED, RunState.EXPIRED)
SHARD_OPEN = (
    ShardState.PLANNED,
    ShardState.QUEUED,
    ShardState.ROUTING,
    ShardState.ANSWERING,
    ShardState.COMBINING,
)
# Shards that count against the window of their run.
SHARD_IN_WINDOW = SHARD_OPEN[1:]
CHUNK_OPEN = (ChunkState.QUEUED, ChunkState.LEASED)
JOB_OPEN = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)

# entity -> state -> states it may move to. A run that has ended moves only back to `in_progress`, and only together
# with a new generation (`retry-failed`); the trigger checks that as well.
MOVES: Mapping[str, Mapping[str, Iterable[str]]] = {
    "run": {
        RunState.VALIDATING: (RunState.IN_PROGRESS, RunState.CANCELLING, RunState.EXPIRING),
        RunState.IN_PROGRESS: (RunState.FINALIZING, RunState.CANCELLING, RunState.EXPIRING, RunState.COMPLETED),
        RunState.CANCELLING: (RunState.FINALIZING,),
        RunState.EXPIRING: (RunState.FINALIZING,),
        RunState.FINALIZING: RUN_ENDED,
        RunState.COMPLETED: (RunState.IN_PROGRESS,),
        RunState.CANCELLED: (RunState.IN_PROGRESS,),
        RunState.EXPIRED: (RunState.IN_PROGRESS,),
    },
    "shard": {
        ShardState.PLANNED: (ShardState.QUEUED, ShardState.CANCELLED),
        ShardState.QUEUED: (ShardState.ROUTING, ShardState.CANCELLED),
        ShardState.ROUTING: (
            ShardState.QUEUED,
            ShardState.ANSWERING,
            ShardState.DONE,
            ShardState.SPLIT,
            ShardState.CANCELLED,
        ),
        ShardState.ANSWERING: (ShardState.COMBINING, ShardState.CANCELLED),
        ShardState.COMBINING: (ShardState.ANSWERING, ShardState.DONE, ShardState.SPLIT, ShardState.CANCELLED),
    },
    "chunk": {
        ChunkState.QUEUED: (ChunkState.LEASED, ChunkState.CANCELLED),
        ChunkState.LEASED: (
            ChunkState.QUEUED,
            ChunkState.DONE,
            ChunkState.DEAD,
            ChunkState.SPLIT,
            ChunkState.CANCELLED,
        ),
    },
    "job": {
        JobState.QUEUED: (JobState.RUNNING, JobState.FAILED, JobState.PAUSED, JobState.CANCELLED),
        JobState.RUNNING: (
            JobState.QUEUED,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.PAUSED,
            JobState.CANCELLED,
        ),
        JobState.PAUSED: (JobState.QUEUED, JobState.CANCELLED),
    },
    "router_version": {
        RouterState.TRAINED: (RouterState.LIVE, RouterState.RETIRED),
        RouterState.LIVE: (RouterState.RETIRED,),
        RouterState.RETIRED: (RouterState.LIVE,),
    },
}


def in_list(states: Iterable[str]) -> str:
    """``'a', 'b'`` for use inside SQL text; the values are the constants above, never input."""
    return ", ".join(f"'{state}'" for state in states)
