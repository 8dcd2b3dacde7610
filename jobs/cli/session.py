"""What a command starts from: settings, and the runtime of a client."""

from functools import cache

from worker import logs
from worker.runtime import Runtime, make_runtime
from worker.settings import Settings, load


@cache
def settings() -> Settings:
    """The configuration, read once per command. Raises BadSettings."""
    loaded = load()
    # A person at a terminal reads the command's own words; only real trouble is logged beside them.
    logs.configure(loaded.model_copy(update={"log_level": "error"}))
    return loaded


@cache
def runtime() -> Runtime:
    """Connections for a command. Raises NoStack."""
    return make_runtime(settings())
