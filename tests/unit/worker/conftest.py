import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from celery import Celery

from tests.support.servers import Backends, fresh_redis
from tests.unit.worker.waiting import disconnect
from worker.app import create_app
from worker.embedded.servers import Servers
from worker.settings import Settings, load


@pytest.fixture(autouse=True)
def plain_logging() -> Iterator[None]:
    """Logging as it was before the test, whatever the test configured."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logging.Logger.manager.loggerDict}
    yield
    root.handlers, root.level = handlers, level
    for name in logging.Logger.manager.loggerDict:
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """The address of an emptied Redis."""
    return fresh_redis(servers)


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """The application of a sender, on an emptied Redis."""
    made = create_app(Settings.model_construct(), redis_url)
    yield made
    made.close()
    disconnect(made)


@pytest.fixture
def configured(workdir: Path, backends: Backends) -> Settings:
    """Settings of a process that works on fresh servers, in a folder of its own."""
    return load(home=workdir / "home", database_url=backends.database_url, redis_url=backends.redis_url)
