"""How Alembic runs a migration: on the connection that ``storage.migrate`` hands over."""

from alembic import context
from sqlalchemy import Connection
from sqlmodel import SQLModel

import storage.tables.alerts
import storage.tables.experts
import storage.tables.jobs
import storage.tables.runs
import storage.tables.schedules  # noqa: F401  (the imports fill SQLModel.metadata)

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
