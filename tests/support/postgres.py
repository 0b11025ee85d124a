"""A real PostgreSQL server in a folder of its own, on a free loopback port and a unix socket."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from apiban.alive import is_alive

from tests.support.node import wait_for
from tests.support.ports import free_port

HOST = "127.0.0.1"
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
STARTS_WITHIN = 30


class Postgres:
    """A server that a test may stop, kill and start again; ``fresh`` gives empty databases.

    It refuses to run as root, so a test that does gives it Debian's user postgres. ``durable`` is
    for tests that pull the plug: without it the server does not wait for the disk.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self.port = free_port()
        self._numbers = itertools.count(1)
        # Not pytest's tmp_path: its parents are closed to other users.
        self._folder = Path(tempfile.mkdtemp(prefix="apiban-postgres-", dir="/tmp"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._data = self._folder / "data"
        initdb = ["initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync"]
        self._run(*initdb, "-E", "UTF8", "--locale=C.UTF-8")
        sync = "on" if durable else "off"
        self._options = (
            f"-c listen_addresses={HOST} -c port={self.port} "
            f"-c unix_socket_directories={self._folder} -c max_connections=100 "
            f"-c fsync={sync} -c full_page_writes={sync} -c synchronous_commit={sync}"
        )
        self.start()

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        log = str(self._folder / "log")
        self._control("start", "-w", "-t", str(STARTS_WITHIN), "-l", log, "-o", self._options)

    def stop(self, mode: str = "fast") -> None:
        """End in one of pg_ctl's modes, and wait; ``immediate`` leaves a recovery to the start."""
        self._control("stop", "-w", "-m", mode)

    def kill(self) -> None:
        """End every process of it at once, as a crash does."""
        file = self._data / "postmaster.pid"
        pid = int(file.read_text(encoding="ascii").split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for one in (pid, *map(int, children)):
            os.kill(one, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, (pid, *map(int, children)))), "its end")
        # Where nobody reaps orphans it stays a zombie, which would pass for a running server.
        file.unlink()
        for lock in self._folder.glob(".s.PGSQL.*"):
            lock.unlink()

    def url(self, database: str) -> str:
        """Give a database's URL."""
        return f"postgresql://postgres@{HOST}:{self.port}/{database}"

    def fresh(self, template: str = "template1") -> str:
        """Make a database, empty or the copy of another, and give its URL."""
        name = f"feed{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.url(name)

    def close(self) -> None:
        """End it, and take its folder away."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._folder)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-s", "-D", str(self._data), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, str(PROGRAMS / program), *arguments]
        # Its output goes to a file: the server inherits it, and a pipe would stay open.
        with (self._folder / "output").open("w+", encoding="utf-8") as output:
            ended = subprocess.run(
                command, stdout=output, stderr=output, cwd="/", check=False, timeout=60
            )
            output.seek(0)
            assert ended.returncode == 0, output.read()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Give the server that all tests share; each takes a ``fresh`` database."""
    server = Postgres()
    yield server
    server.close()
