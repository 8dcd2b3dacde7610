"""Column kinds that several tables share."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Identity, text
from sqlmodel import Field, SQLModel


def identity() -> Any:
    """A 64-bit primary key that Postgres counts up."""
    return Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))


def moment(*, required: bool = False, now: bool = False) -> Any:
    """A point in time with its zone; with ``now`` the database clock fills it in."""
    kwargs: dict[str, Any] = {"nullable": not (required or now)}
    if now:
        kwargs["server_default"] = text("clock_timestamp()")
    return Field(default=None, sa_type=DateTime(timezone=True), sa_column_kwargs=kwargs)


def zero(column_type: Any = BigInteger) -> Any:
    """A counter that starts at nought."""
    return Field(default=0, sa_type=column_type, sa_column_kwargs={"server_default": text("0")})


class Leased(SQLModel):
    """What a row has that workers take turns to work on. ``storage.leases`` is the only code that writes these.

    A lease is held while ``lease_until`` is in the future by the database clock. ``epoch`` goes up with every claim;
    who settles must name the epoch of his claim, so a worker that lost its lease can no longer write anything.
    """

    epoch: int = zero()
    attempts: int = zero()
    lease_until: datetime | None = moment()
    not_before: datetime | None = moment(now=True)
    published_at: datetime | None = moment()
    owner: str | None = None
