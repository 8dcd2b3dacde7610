"""What a process works with: settings, database, files, messages. Made once per process, at its first use."""

import os
from dataclasses import dataclass

from celery import Celery
from sqlalchemy import Engine

from storage.artefacts import ArtefactStore
from storage.database import connect
from worker.addresses import addresses, artefacts_url
from worker.app import create_app
from worker.dispatch import Dispatcher
from worker.roles import Role
from worker.settings import Settings, load


@dataclass(frozen=True)
class Runtime:
    settings: Settings
    engine: Engine
    store: ArtefactStore
    app: Celery
    dispatcher: Dispatcher
    redis_url: str

    def close(self) -> None:
        """Give back the database's connections. Those to Redis are shared by the process and go with it."""
        self.engine.dispose()
        self.app.close()


def make_runtime(settings: Settings, app: Celery | None = None, *, role: Role | None = None) -> Runtime:
    """Wire everything by hand, here and nowhere else. Raises NoStack."""
    where = addresses(settings)
    app = app or create_app(settings, where.redis_url, role)
    return Runtime(
        settings=settings,
        engine=connect(where.database_url, application=f"moe {role.name if role else 'client'}"),
        store=ArtefactStore(artefacts_url(settings), (settings.home / "cache").resolve()),
        app=app,
        dispatcher=Dispatcher(app),
        redis_url=where.redis_url,
    )


_of_process: dict[int, Runtime] = {}


def task_runtime(app: Celery) -> Runtime:
    """The runtime of a worker's process; a forked child makes its own, for connections do not survive a fork."""
    pid = os.getpid()
    if pid not in _of_process:
        _of_process.clear()
        _of_process[pid] = make_runtime(load(), app)
    return _of_process[pid]
