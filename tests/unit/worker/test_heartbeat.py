from datetime import datetime

import pytest
from sqlalchemy import Engine, text

from storage import jobs
from storage.database import connect
from storage.leases import Lease, LeaseLost
from tests.unit.worker.waiting import until
from worker.embedded.servers import free_port
from worker.heartbeat import Heartbeat

# Short, so that a beat comes every few hundredths of a second.
TTL_S = 0.15


def claimed(engine: Engine, ttl_s: float = TTL_S) -> Lease:
    with engine.begin() as connection:
        job = jobs.claim(connection, jobs.add(connection, "refresh"), owner="me", ttl_s=ttl_s, max_attempts=3)
        assert job is not None
        return job.lease


def ends_at(engine: Engine, lease: Lease) -> datetime:
    with engine.connect() as connection:
        found: datetime = connection.execute(
            text("SELECT lease_until FROM job WHERE id = :id"), {"id": lease.id}
        ).scalar_one()
        return found


def lost(heartbeat: Heartbeat) -> bool:
    try:
        heartbeat.check()
    except LeaseLost:
        return True
    return False


def test_a_lease_goes_on_for_as_long_as_the_block_runs(engine: Engine) -> None:
    lease = claimed(engine)
    first = ends_at(engine, lease)
    with Heartbeat(engine, lease) as heartbeat:
        until(lambda: ends_at(engine, lease) > first, "a first beat")
        second = ends_at(engine, lease)
        until(lambda: ends_at(engine, lease) > second, "a second beat")
        heartbeat.check()


def test_after_the_block_nothing_beats_any_more(engine: Engine) -> None:
    lease = claimed(engine)
    with Heartbeat(engine, lease) as heartbeat:
        pass
    assert not heartbeat._thread.is_alive()


@pytest.mark.parametrize(
    "taken",
    [
        "UPDATE job SET epoch = epoch + 1",  # claimed by somebody else
        "UPDATE job SET state = 'failed', lease_until = NULL, owner = NULL",  # ended by the sweeper
        "UPDATE job SET state = 'queued', lease_until = NULL, owner = NULL",  # taken back
    ],
)
def test_who_is_fenced_notices(engine: Engine, taken: str) -> None:
    lease = claimed(engine)
    with Heartbeat(engine, lease) as heartbeat:
        heartbeat.check()
        with engine.begin() as connection:
            connection.execute(text(taken))
        until(lambda: lost(heartbeat), "the loss to be noticed")
        with pytest.raises(LeaseLost, match=f"job {lease.id}: the lease was lost while working"):
            heartbeat.check()


def test_who_is_fenced_does_not_renew_the_lease_of_the_other(engine: Engine) -> None:
    lease = claimed(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE job SET epoch = epoch + 1"))
    before = ends_at(engine, lease)
    with Heartbeat(engine, lease) as heartbeat:
        until(lambda: lost(heartbeat), "the loss to be noticed")
    assert ends_at(engine, lease) == before


def test_a_database_that_is_away_costs_a_beat_and_not_the_lease(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    away = connect(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    said = ""

    def missed() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.count("heartbeat.missed") >= 2

    with Heartbeat(away, Lease("job", 1, 1, 1, TTL_S)) as heartbeat:
        until(missed, "two beats that failed")
        heartbeat.check()
    away.dispose()


def test_an_error_in_the_block_comes_out_and_ends_the_beat(engine: Engine) -> None:
    heartbeat = Heartbeat(engine, claimed(engine))
    with pytest.raises(ZeroDivisionError), heartbeat:
        raise ZeroDivisionError
    assert not heartbeat._thread.is_alive()
