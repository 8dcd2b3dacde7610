"""Starting one process of a role: a Celery worker, beat, or Flower."""

import os
import socket
import threading
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.signals import setup_logging, task_failure

from storage import catalogue, sweeping
from storage.database import connect, transact
from storage.errors import StorageError
from storage.sweeping import Patience
from worker import logs
from worker.addresses import addresses
from worker.app import create_app
from worker.consumers import follow_experts
from worker.faults import armed
from worker.roles import Role, expert_queues
from worker.settings import Settings

log = structlog.get_logger(__name__)


def run_worker(settings: Settings, role: Role, *, name: str | None = None, experts: list[str] | None = None) -> int:
    """Run a worker of this role until it is told to stop; its exit code.

    An `expert` worker serves ``experts``, or all that the database knows, also those that come later.
    """
    logs.configure(settings, role=role.name)
    # Threads of torch that wait for each other sleep instead of spinning: beside other work on the same cores,
    # spinning made embedding four times slower. Read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    armed()  # a misspelt fault must not pass for "no fault"
    app = create_app(settings, addresses(settings).redis_url, role)
    node = f"{name or f'{role.name}-{os.getpid()}'}@{socket.gethostname()}"
    queues = list(role.queues)
    if role.name == "expert":
        queues = expert_queues(experts if experts is not None else _serving(settings))
        if experts is None:
            follow_experts(app, settings)
    setup_logging.connect(lambda **_: None, weak=False)  # ours is set up already; Celery leaves it alone
    _free_work_of_dead_children(settings, node)
    arguments = ["worker", "--hostname", node, "--concurrency", str(role.concurrency(settings.concurrency))]
    # Without a queue of its own a worker would consume all known ones; a new expert's is added when it comes.
    arguments += ["--queues", ",".join(queues or [f"none.{node}"])]
    arguments += ["--without-gossip", "--without-mingle", "--loglevel", settings.log_level]
    return _start(app, arguments)


def run_beat(settings: Settings) -> int:
    """Run the clock that makes the sweeper run; its exit code."""
    logs.configure(settings, role="beat")
    app = create_app(settings, addresses(settings).redis_url)
    setup_logging.connect(lambda **_: None, weak=False)
    return _start(app, ["beat", "--pidfile", "", "--loglevel", settings.log_level])


def run_flower(settings: Settings) -> int:
    """Run the monitor behind its login; its exit code. Raises ValueError without a password."""
    flower = settings.flower
    if flower.password is None or not flower.password.get_secret_value():
        raise ValueError("flower.password (MOE_FLOWER__PASSWORD) is not set; Flower does not start without a login")
    logs.configure(settings, role="flower")
    # By environment: arguments can be read by every user of the machine.
    os.environ["FLOWER_BASIC_AUTH"] = f"{flower.user}:{flower.password.get_secret_value()}"
    app = create_app(settings, addresses(settings).redis_url)
    app.conf.broker_transport = None  # it reads no messages, and knows queue lengths of plain `redis` only
    columns = "name,args,state,received,runtime,worker,uuid"
    return _start(app, ["flower", f"--address={flower.address}", f"--port={flower.port}", f"--tasks-columns={columns}"])


def _start(app: Celery, arguments: list[str]) -> int:
    code = app.start(argv=arguments)
    return int(code or 0)


def _serving(settings: Settings) -> list[str]:
    """The experts to serve from the start; none when the database cannot be asked yet, they are followed anyway."""
    engine = connect(addresses(settings).database_url, application="moe expert")
    try:
        return transact(engine, catalogue.names_to_answer_for, patience_s=20)
    except StorageError as error:
        log.warning("experts.unknown", error=str(error))
        return []
    finally:
        engine.dispose()


def _free_work_of_dead_children(settings: Settings, node: str) -> None:
    """When a child dies its parent knows at once, and frees the work it held instead of letting the lease run out."""
    pipeline = settings.pipeline
    patience = Patience(pipeline.max_attempts, pipeline.back_off_seconds)

    def free(task_id: str) -> None:
        engine = connect(addresses(settings).database_url, application="moe parent", pool_size=1)
        try:
            transact(engine, lambda c: sweeping.recover(c, patience, dead_owner=f"{node}/{task_id}"), patience_s=10)
        except StorageError as error:  # the sweeper does it when the lease has run out
            log.warning("child.not_freed", error=str(error))
        finally:
            engine.dispose()

    def on_failure(task_id: str = "", exception: BaseException | None = None, **_: Any) -> None:
        if isinstance(exception, (WorkerLostError, TimeLimitExceeded)):
            log.warning("child.lost", task=task_id, error=type(exception).__name__)
            # Beside the event loop: the parent must go on talking to Redis while the database is slow.
            threading.Thread(target=free, args=(task_id,), daemon=True).start()

    task_failure.connect(on_failure, weak=False)
