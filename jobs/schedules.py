"""Schedules as people set them."""

import re

from experts.cards import NAME
from jobs.errors import BadInput
from jobs.learning import has_learned
from storage import schedules
from storage.database import transact
from storage.hints import JobHint
from storage.schedules import NewSchedule, ScheduleView
from worker.runtime import Runtime

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_EVERY = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_LONGEST_S = 366 * 86_400


def every(text: str) -> float:
    """``30m``, ``6h``, ``1d`` or ``2w`` in seconds. Raises BadInput."""
    found = _EVERY.fullmatch(text.strip())
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 60 <= seconds <= _LONGEST_S:
        raise BadInput(f"{text!r} is no stretch of time; write it as 30m, 6h, 1d or 2w, at most a year")
    return float(seconds)


def put(
    runtime: Runtime,
    name: str,
    *,
    every_s: float,
    expert: str | None = None,
    router: bool = False,
    min_feedback: int = 0,
) -> ScheduleView:
    """Set a schedule: an expert is retrained, or the router is. Raises BadInput, NotFound, NotAllowed."""
    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} is no name of a schedule: lower-case letters, digits and _, a letter first")
    if (expert is None) == (not router):
        raise BadInput("say what is to be done: --expert NAME, or --router")
    if expert is None:
        if min_feedback:
            raise BadInput("--min-feedback counts feedback on one expert; it goes with --expert")
        kind = runtime.settings.routing.kind
        new = NewSchedule(name, "train_router", {"kind": kind, "promote": True}, "router", every_s)
    else:
        has_learned(runtime, expert)
        params = {"mode": "retrain", "expert": expert}
        new = NewSchedule(name, "train_expert", params, f"expert:{expert}", every_s, min_feedback)
    return transact(runtime.engine, lambda c: schedules.put(c, new))


def listing(runtime: Runtime) -> list[ScheduleView]:
    """Every schedule by name."""
    return transact(runtime.engine, schedules.views)


def pause(runtime: Runtime, name: str, *, paused: bool) -> ScheduleView:
    """Hold a schedule, or let it go on. Raises NotFound."""
    return transact(runtime.engine, lambda c: schedules.pause(c, name, paused=paused))


def remove(runtime: Runtime, name: str) -> None:
    """Delete a schedule. Raises NotFound."""
    transact(runtime.engine, lambda c: schedules.remove(c, name))


def run_now(runtime: Runtime, name: str) -> int:
    """Queue a schedule's job at once; its number. Raises NotFound, NotAllowed."""
    job_id = transact(runtime.engine, lambda c: schedules.run_now(c, name))
    runtime.dispatcher.send([JobHint(job_id)])
    return job_id


def outcome(view: ScheduleView) -> str:
    """In words, what came of its last time."""
    if view.last_said is not None:
        return view.last_said
    if view.last_job_id is None:
        return "never ran"
    result = view.job_result or {}
    if view.job_state != "succeeded":
        return f"job {view.last_job_id} {view.job_state}"
    if "promoted" in result:
        said = "went live" if result["promoted"] else f"stayed a candidate: {'; '.join(result['reasons'])}"
        return f"job {view.last_job_id}: {result['expert']}@{result['version']} {said}"
    return f"job {view.last_job_id}: router {result.get('router_version')} {result.get('state', 'trained')}"
