"""Real servers in folders of their own: started, stopped, killed, and started over what a crash left behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.unit.worker.embedded.foreign import dead_pid, sleeping
from tests.unit.worker.waiting import until
from worker.embedded import servers
from worker.embedded.servers import EmbeddedPostgres, EmbeddedRedis, ServerFailed, Servers, free_port


def kill(pid: int | None) -> None:
    assert pid is not None
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    process.wait(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for all tests of PostgreSQL: making it takes longer than all the rest."""
    return tmp_path_factory.mktemp("own") / "postgres"


class TestPostgres:
    @pytest.fixture
    def postgres(self, folder: Path) -> Iterator[EmbeddedPostgres]:
        """A server that does not run yet."""
        made = EmbeddedPostgres(folder)
        yield made
        made.stop(immediately=True)
        (folder / "postmaster.pid").unlink(missing_ok=True)

    def test_it_starts_with_our_settings_and_is_found_running(self, postgres: EmbeddedPostgres) -> None:
        assert postgres.pid() is None
        address = postgres.start()
        pid = postgres.pid()
        postgres.create_database(address)
        postgres.create_database(address)  # it is there already
        with psycopg.connect(address) as connection:
            found = connection.execute("SELECT current_database(), current_setting('jit')").fetchone()
        assert found == ("moe", "off")
        assert postgres.start() == address
        assert EmbeddedPostgres(postgres.folder).start() == address
        assert postgres.pid() == pid

    def test_it_listens_on_a_socket_only(self, postgres: EmbeddedPostgres) -> None:
        with psycopg.connect(postgres.start().replace("/moe?", "/postgres?")) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)

    def test_stopped_in_order_it_is_gone_and_stopping_again_does_nothing(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        pid = postgres.pid()
        assert pid is not None
        postgres.stop()
        assert postgres.pid() is None
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        postgres.stop()

    def test_what_was_stored_is_there_after_a_restart(self, postgres: EmbeddedPostgres) -> None:
        address = postgres.start()
        with psycopg.connect(address.replace("/moe?", "/postgres?"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        postgres.stop()
        with psycopg.connect(postgres.start().replace("/moe?", "/postgres?"), autocommit=True) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
            connection.execute("DROP TABLE kept")

    def test_killed_without_warning_it_starts_again_with_all_that_was_committed(
        self, postgres: EmbeddedPostgres
    ) -> None:
        address = postgres.start()
        with psycopg.connect(address.replace("/moe?", "/postgres?"), autocommit=True) as connection:
            connection.execute("CREATE TABLE survivor AS SELECT 8 AS n")
        kill(postgres.pid())
        assert postgres.pid() is None
        again = postgres.start()
        with psycopg.connect(again.replace("/moe?", "/postgres?"), autocommit=True) as connection:
            assert connection.execute("SELECT n FROM survivor").fetchone() == (8,)
            connection.execute("DROP TABLE survivor")

    def stale(self, postgres: EmbeddedPostgres, pid: int) -> None:
        """What a machine that lost power leaves: the file of a server that ran, its number given to somebody else."""
        postgres.start()
        note = postgres.folder / "postmaster.pid"
        lines = note.read_text().split("\n")
        postgres.stop()
        note.write_text("\n".join([str(pid), *lines[1:]]))

    def answers(self, address: str) -> bool:
        with psycopg.connect(address.replace("/moe?", "/postgres?")) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)

    def test_it_starts_over_the_file_of_a_dead_process(self, postgres: EmbeddedPostgres) -> None:
        self.stale(postgres, dead_pid())
        assert postgres.pid() is None
        assert self.answers(postgres.start())

    @pytest.mark.parametrize("name", ["sleep", "postgres"])
    def test_a_foreign_process_with_the_noted_number_is_not_taken_for_the_server(
        self, postgres: EmbeddedPostgres, tmp_path: Path, name: str
    ) -> None:
        with sleeping(tmp_path, name) as foreign:
            self.stale(postgres, foreign.pid)
            assert postgres.pid() is None
            postgres.stop()
            assert foreign.poll() is None

    def test_it_starts_although_a_foreign_process_has_the_noted_number(
        self, postgres: EmbeddedPostgres, tmp_path: Path
    ) -> None:
        with sleeping(tmp_path) as foreign:
            self.stale(postgres, foreign.pid)
            assert self.answers(postgres.start())
            assert foreign.poll() is None

    @pytest.mark.parametrize("content", ["", "\n", "nonsense\n"])
    def test_it_starts_over_a_damaged_file(self, postgres: EmbeddedPostgres, content: str) -> None:
        """An empty file is what is left when the power fails between making and writing it."""
        postgres.start()
        postgres.stop()
        (postgres.folder / "postmaster.pid").write_text(content)
        assert postgres.pid() is None
        assert self.answers(postgres.start())

    def test_a_folder_of_something_else_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "PG_VERSION").write_text("9\n")
        with pytest.raises(ServerFailed, match=f"PostgreSQL did not start in {tmp_path / 'mine'}: "):
            EmbeddedPostgres(tmp_path / "mine").start()


class TestRedis:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Iterator[EmbeddedRedis]:
        """A server that does not run yet."""
        made = EmbeddedRedis(tmp_path / "redis")
        yield made
        made.stop()

    def client(self, own: EmbeddedRedis) -> redis.Redis:
        return redis.Redis.from_url(own.address(), retry=Retry(NoBackoff(), 0))

    def test_it_starts_once_and_is_found_running(self, own: EmbeddedRedis) -> None:
        assert (own.answers(), own.pid()) == (False, None)
        own.start()
        pid = own.pid()
        own.start()
        EmbeddedRedis(own.folder).start()
        assert own.answers()
        assert own.pid() == pid

    def test_it_keeps_what_it_holds_on_disk_and_throws_nothing_away(self, own: EmbeddedRedis) -> None:
        own.start()
        with self.client(own) as client:
            known = {name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "save")}
            assert known == {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}

    def test_nobody_enters_without_the_password(self, own: EmbeddedRedis) -> None:
        own.start()
        port = int(own.address().rsplit(":", 1)[1].split("/")[0])
        for password in (None, "guessed"):
            with (
                redis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0)) as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.ping()

    def test_the_password_is_readable_by_its_owner_only(self, own: EmbeddedRedis) -> None:
        own.start()
        password = own.address().split(":", 2)[2].split("@")[0]
        assert len(password) >= 24
        holding = [file for file in own.folder.rglob("*") if file.is_file() and password in file.read_text("latin-1")]
        assert sorted(file.name for file in holding) == ["address", "redis.conf"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in holding} == {0o600}
        pid = own.pid()
        assert pid is not None
        assert password not in " ".join(psutil.Process(pid).cmdline())

    def test_two_folders_have_two_passwords_and_two_ports(self, tmp_path: Path) -> None:
        assert EmbeddedRedis(tmp_path / "a").address() != EmbeddedRedis(tmp_path / "b").address()

    def test_stopped_and_started_again_it_has_its_address_and_its_data(self, own: EmbeddedRedis) -> None:
        own.start()
        address = own.address()
        with self.client(own) as client:
            client.set("kept", 7)
        own.stop()
        assert (own.answers(), own.pid()) == (False, None)
        own.stop()
        own.start()
        assert own.address() == address
        with self.client(own) as client:
            assert client.get("kept") == b"7"

    def test_killed_without_warning_it_starts_again_with_its_data(self, own: EmbeddedRedis) -> None:
        own.start()
        with self.client(own) as client:
            client.set("kept", 8)
        kill(own.pid())
        assert (own.answers(), own.pid()) == (False, None)
        own.start()
        with self.client(own) as client:
            assert client.get("kept") == b"8"

    def test_one_started_by_another_process_can_be_stopped(self, own: EmbeddedRedis) -> None:
        own.start()
        pid = own.pid()
        assert pid is not None
        # Whoever started it is gone, so nobody but the system reaps it.
        EmbeddedRedis(own.folder).stop()
        assert own.pid() is None

    def test_it_moves_to_another_port_when_its_own_was_taken_since(self, own: EmbeddedRedis) -> None:
        before = own.address()
        port = int(before.rsplit(":", 1)[1].split("/")[0])
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", port))
            squatter.listen()
            own.start()
        assert own.address() != before
        assert own.address().split("@")[0] == before.split("@")[0]  # the password stays
        assert own.answers()

    @pytest.mark.parametrize("content", ["", "nonsense\n", "-5\n"])
    def test_it_starts_over_a_damaged_file(self, own: EmbeddedRedis, content: str) -> None:
        own.folder.mkdir()
        (own.folder / "redis.pid").write_text(content)
        assert own.pid() is None
        own.start()
        assert own.answers()

    def test_it_starts_over_the_file_of_a_dead_process(self, own: EmbeddedRedis) -> None:
        own.folder.mkdir()
        (own.folder / "redis.pid").write_text(f"{dead_pid()}\n")
        assert own.pid() is None
        own.start()
        assert own.answers()

    @pytest.mark.parametrize("name", ["sleep", "redis-server"])
    def test_a_foreign_process_with_the_noted_number_is_neither_taken_for_it_nor_stopped(
        self, own: EmbeddedRedis, tmp_path: Path, name: str
    ) -> None:
        own.folder.mkdir()
        with sleeping(tmp_path, name) as foreign:
            (own.folder / "redis.pid").write_text(f"{foreign.pid}\n")
            assert own.pid() is None
            own.stop()
            assert foreign.poll() is None
            own.start()
            assert own.answers()
            assert own.pid() not in (None, foreign.pid)

    def test_a_server_that_cannot_start_is_an_error_that_names_its_log(self, own: EmbeddedRedis) -> None:
        own.address()
        (own.folder / "appendonly.aof").mkdir()  # it wants to write a file there
        (own.folder / "appendonlydir").write_text("")
        with pytest.raises(ServerFailed, match=f"Redis did not start in {own.folder}; see {own.folder / 'redis.log'}"):
            own.start()


def test_a_process_that_does_not_stop_in_time_is_an_error(tmp_path: Path) -> None:
    """Neither server is killed: whoever stops it may look first."""
    own = EmbeddedRedis(tmp_path / "redis")
    own.start()
    pid = own.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerFailed, match=f"process {pid} did not stop within 0 s"):
            own.stop(wait_s=0.05)
    finally:
        os.kill(pid, signal.SIGCONT)
        own.stop()


def test_a_process_that_ended_has_stopped_also_while_nobody_has_reaped_it() -> None:
    """In a container the first process may reap late, or never; a server is nobody's child once its starter is gone."""
    program = (
        "import subprocess, sys\nchild = subprocess.Popen(['true'])\nprint(child.pid, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "its end")
        try:
            servers._wait_for_end(pid, 0.2)
        finally:
            parent.communicate()


def test_servers_of_a_home_lie_in_two_folders_below_it(tmp_path: Path) -> None:
    both = Servers.of(tmp_path)
    assert (both.postgres.folder, both.redis.folder) == (tmp_path / "postgres", tmp_path / "redis")


def test_the_redis_of_this_machine_or_of_the_wheel_can_be_run() -> None:
    said = subprocess.run([servers.redis_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith(("Redis server v=", "Valkey server v="))


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
