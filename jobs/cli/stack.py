"""``moe up``, ``down``, ``status`` and the single roles that containers run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from jobs import catalogue
from jobs.cli.console import JsonFlag, emit_json, note, say, table, working
from jobs.cli.errors import BAD_INPUT, stop
from jobs.cli.session import runtime, settings
from jobs.health import health, wait_for_workers
from jobs.training_jobs import wait_for_job
from storage import catalogue as stored
from storage import migrate, versions
from storage.database import connect, transact
from worker import logs
from worker.addresses import addresses
from worker.embedded import stack
from worker.names import is_interactive
from worker.process import run_beat, run_flower, run_worker
from worker.roles import ROLES
from worker.runtime import make_runtime
from worker.settings import Settings

database_app = typer.Typer(no_args_is_help=True, help="The database's schema.")

NoLoad = Annotated[bool, typer.Option("--no-load", help="Do not load the shipped experts into an empty database.")]


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    no_load: NoLoad = False,
    as_json: JsonFlag = False,
) -> None:
    """Start the embedded stack: PostgreSQL, Redis, workers, beat, Flower.

    The first time, the shipped catalogue of eight experts is loaded.
    """
    config = settings()
    if not detach:
        _run_in_front(config, no_load)
        return
    with working("starting the stack"):
        noted = stack.start_detached(config)
    with working("waiting for the workers"):
        replying = wait_for_workers(make_runtime(config), tuple(ROLES))
    if not no_load:
        load_if_empty(config)
    if not replying:
        note(f"not every worker replies yet; their logs are in {config.home}/logs")
    if as_json:
        emit_json({"home": str(config.home.resolve()), "flower": noted["flower"], "processes": stack.processes(noted)})
        return
    say(f"the stack is up in {config.home}")
    show_flower(noted)


def _run_in_front(config: Settings, no_load: bool) -> None:
    logs.configure(config, role="supervisor")

    def on_ready() -> None:
        # The supervisor goes on watching while the experts are loaded.
        if not no_load:
            threading.Thread(target=load_if_empty, args=(config,), daemon=True).start()
        note("press Ctrl-C to stop")

    stack.Supervisor(config, note).run(on_ready=on_ready)


def load_if_empty(config: Settings) -> None:
    """Load the shipped catalogue when no router is live, nor any other catalogue stored; wait until it serves."""
    client = make_runtime(config)
    foreign = set(transact(client.engine, stored.names)) - catalogue.shipped_names()
    if foreign or transact(client.engine, versions.live_router) is not None:
        return
    names = catalogue.load(client, catalogue.SHIPPED).experts
    note(f"loading the shipped experts: {', '.join(names)}")
    wait_for_job(client, catalogue.refresh(client), on_event=note)


def show_flower(noted: dict[str, Any]) -> None:
    """Say how Flower is opened."""
    flower = noted["flower"]
    say(f"Flower: {flower['url']} (user {flower['user']}, password {flower['password']})")


def down(as_json: JsonFlag = False) -> None:
    """Stop the embedded stack. Everything that was stored stays."""
    with working("stopping the stack"):
        stopped = stack.stop(settings())
    if as_json:
        emit_json({"stopped": stopped})
    else:
        say("stopped" if stopped else "nothing was running")


def status(as_json: JsonFlag = False) -> None:
    """Show what runs: servers, workers, queues, experts."""
    found = health(runtime())
    if as_json:
        emit_json(found)
        return
    say(f"database {found['database']}, redis {found['redis']}, router {found['router'] or 'none'}")
    say(f"open runs: {found['open_runs']}")
    if found["processes"]:
        table(("process", "runs"), found["processes"].items())
    table(
        ("worker", "queues"),
        [
            (worker, ", ".join(q for q in queues if not is_interactive(q)))
            for worker, queues in found["workers"].items()
        ],
    )
    busy = [(q["queue"], q["messages"], q["waiting"]) for q in found["queues"] if q["messages"] or q["waiting"]]
    if busy:
        table(("queue", "messages", "queries waiting"), busy)
    if found["flower"]:
        login = f"user {found['flower']['user']}; its password is in {settings().home}/flower.password"
        say(f"Flower: {found['flower']['url']} ({login})")
    for warning in found["warnings"]:
        say(f"[yellow]{warning}[/]")


def worker(
    role: Annotated[str, typer.Argument(metavar="ROLE", help=f"One of {', '.join(ROLES)}.")],
    name: Annotated[
        str | None, typer.Option(help="Name of this worker; by default its role and process number.")
    ] = None,
    expert: Annotated[
        list[str] | None, typer.Option("--expert", help="Serve only this expert (role expert); may be repeated.")
    ] = None,
) -> None:
    """Run one worker."""
    if role not in ROLES:
        raise stop(f"unknown role {role!r}; the roles are {', '.join(ROLES)}", BAD_INPUT)
    if expert and role != "expert":
        raise stop("--expert goes with the role expert", BAD_INPUT)
    raise typer.Exit(run_worker(settings(), ROLES[role], name=name, experts=expert or None))


def beat() -> None:
    """Run the clock: the sweeper's schedule. Two clocks do no harm."""
    raise typer.Exit(run_beat(settings()))


def flower() -> None:
    """Run Flower, the monitor, behind its login."""
    try:
        raise typer.Exit(run_flower(settings()))
    except ValueError as error:
        raise stop(str(error), BAD_INPUT) from None


@database_app.command()
def upgrade(as_json: JsonFlag = False) -> None:
    """Bring the database to the schema of this program."""
    with _database() as engine:
        migrate.upgrade(engine)
        _show_revision(engine, as_json)


@database_app.command()
def current(as_json: JsonFlag = False) -> None:
    """Show the schema's revision and the one this program needs."""
    with _database() as engine:
        _show_revision(engine, as_json)


@contextmanager
def _database() -> Iterator[Engine]:
    engine = connect(addresses(settings()).database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def _show_revision(engine: Engine, as_json: bool) -> None:
    with engine.connect() as connection:
        found = {"current": migrate.current(connection), "head": migrate.head()}
    if as_json:
        emit_json(found)
    else:
        say(f"database is at {found['current'] or 'nothing'}, this program needs {found['head']}")
