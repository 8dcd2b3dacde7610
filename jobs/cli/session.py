"""What a command starts from: settings, and the runtime of a client."""

from functools import cache

from jobs.cli.console import note
from worker import logs
from worker.runtime import Runtime, make_runtime
from worker.settings import Settings, load, unknown_variables


@cache
def settings() -> Settings:
    """The configuration, read once per command. Raises BadSettings."""
    loaded = load()
    # A person at a terminal reads the command's own words; only real trouble is logged beside them.
    logs.configure(loaded.model_copy(update={"log_level": "error"}))
    unknown = unknown_variables()
    if unknown:
        note(f"not settings, and ignored: {', '.join(unknown)}; `moe config show` lists what there is")
    return loaded


@cache
def runtime() -> Runtime:
    """Connections for a command. Raises NoStack."""
    return make_runtime(settings())
