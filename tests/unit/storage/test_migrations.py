"""The schema: what the migrations make is what the tables say, and goes without a trace."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlmodel import SQLModel

import storage.tables.alerts
import storage.tables.experts
import storage.tables.jobs
import storage.tables.runs
import storage.tables.schedules  # noqa: F401  (the imports fill SQLModel.metadata)
from storage import migrate
from storage.database import connect
from tests.support.servers import TEMPLATE, drop_database
from worker.embedded.servers import Servers

CONSTRAINTS = """
SELECT c.conrelid::regclass::text, c.contype, pg_get_constraintdef(c.oid),
       CASE WHEN c.contype IN ('c', 'x') THEN c.conname END
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE n.nspname = 'public' AND c.contype <> 'n' AND c.conrelid::regclass::text NOT IN ('alembic_version', 'state_move')
"""
INDEXES = """
SELECT replace(indexdef, 'public.', '') FROM pg_indexes
WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'state_move')
"""
COLUMNS = """
SELECT table_name, column_name, udt_name, is_nullable, is_identity FROM information_schema.columns
WHERE table_schema = 'public' AND table_name NOT IN ('alembic_version', 'state_move')
"""
LEFT_BEHIND = """
SELECT 'table ' || tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
UNION ALL SELECT 'sequence ' || sequencename FROM pg_sequences WHERE schemaname = 'public'
"""


def new_engine(servers: Servers, name: str) -> Engine:
    address = servers.postgres.start().replace(f"/{TEMPLATE}?", f"/{name}?")
    servers.postgres.create_database(address)
    return connect(address)


def drop(servers: Servers, engine: Engine) -> None:
    engine.dispose()
    drop_database(servers, engine.url.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql"))


@pytest.fixture
def empty(servers: Servers) -> Iterator[Engine]:
    """A database in which nothing was ever made."""
    engine = new_engine(servers, "migrated")
    yield engine
    drop(servers, engine)


@pytest.fixture
def declared(servers: Servers) -> Iterator[Engine]:
    """A database made from the table classes, without any migration."""
    engine = new_engine(servers, "declared")
    SQLModel.metadata.create_all(engine)
    yield engine
    drop(servers, engine)


def listed(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return sorted((tuple(row) for row in connection.execute(text(query))), key=repr)


def current(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return migrate.current(connection)


def test_an_upgrade_from_nothing_makes_what_the_tables_declare(empty: Engine) -> None:
    assert current(empty) is None

    migrate.upgrade(empty)

    assert current(empty) == migrate.head()
    with empty.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_name": lambda name, kind, _: name != "state_move"}
        )
        assert compare_metadata(context, SQLModel.metadata) == []


@pytest.mark.parametrize("query", [CONSTRAINTS, INDEXES, COLUMNS], ids=["constraints", "indexes", "columns"])
def test_the_catalogue_of_postgres_agrees(empty: Engine, declared: Engine, query: str) -> None:
    """Alembic compares neither CHECK nor EXCLUDE constraints, nor indexes over expressions."""
    migrate.upgrade(empty)

    migrated = listed(empty, query)

    assert len(migrated) > 10
    assert migrated == listed(declared, query)


def test_a_downgrade_to_base_leaves_nothing_of_ours(empty: Engine) -> None:
    migrate.upgrade(empty)
    assert len(listed(empty, LEFT_BEHIND)) > 30

    migrate.downgrade(empty, "base")

    assert listed(empty, LEFT_BEHIND) == []
    assert current(empty) is None


def test_up_down_and_up_again_makes_the_same(empty: Engine) -> None:
    migrate.upgrade(empty)
    first = [listed(empty, query) for query in (CONSTRAINTS, INDEXES, COLUMNS, LEFT_BEHIND)]

    migrate.downgrade(empty, "base")
    migrate.upgrade(empty)

    assert [listed(empty, query) for query in (CONSTRAINTS, INDEXES, COLUMNS, LEFT_BEHIND)] == first


def test_an_upgrade_of_a_database_at_the_head_changes_nothing(empty: Engine) -> None:
    migrate.upgrade(empty)
    with empty.begin() as connection:
        connection.execute(text("INSERT INTO expert (name) VALUES ('alpha')"))
    before = listed(empty, LEFT_BEHIND)

    migrate.upgrade(empty)

    assert listed(empty, LEFT_BEHIND) == before
    assert listed(empty, "SELECT name FROM expert") == [("alpha",)]


def test_two_upgrades_at_once_do_no_harm(empty: Engine) -> None:
    with ThreadPoolExecutor(2) as pool:
        for upgrade in [pool.submit(migrate.upgrade, empty) for _ in range(2)]:
            upgrade.result()

    assert current(empty) == migrate.head()
    assert listed(empty, "SELECT count(*) FROM alembic_version") == [(1,)]
