"""One database for all tests of storage, emptied before each of them."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from storage.database import connect
from tests.support.servers import drop_database, fresh_database
from tests.unit.storage.builders import Store
from worker.embedded.servers import Servers


@pytest.fixture(scope="session")
def storage_engine(servers: Servers) -> Iterator[Engine]:
    """An engine on a database that the tests of storage share."""
    address = fresh_database(servers)
    made = connect(address, application="moe storage tests")
    with made.begin() as connection:
        # Nothing here survives the test run, so no commit has to wait for the disk.
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    made.dispose()
    yield made
    made.dispose()
    drop_database(servers, address)


@pytest.fixture
def engine(storage_engine: Engine) -> Engine:
    """An engine on a database without rows."""
    with storage_engine.begin() as connection:
        for table in ("run", "job", "schedule", "expert", "router_version", "router_alert"):  # all others go with these
            connection.execute(text(f"DELETE FROM {table}"))
    return storage_engine


@pytest.fixture
def store(engine: Engine) -> Store:
    """The storage functions on an empty database, each call in a transaction of its own."""
    return Store(engine)
