"""A private PostgreSQL for the tests of the history, and both databases as a parameter."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


class Postgres:
    """A server in a temporary folder, run by the user postgres when we are root, as PostgreSQL refuses root.

    It is killed at times, the machine is not: without fsync it needs no minute to come back with all its databases.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        self.fsync = "on" if fsync else "off"
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            pytest.fail("PostgreSQL's server is missing: apt-get install postgresql")
        self.programs = found[-1].parent
        self.directory = Path(tempfile.mkdtemp(prefix="flowerbed-postgres-"))
        self.data = self.directory / "data"
        if os.getuid() == 0:
            shutil.chown(self.directory, "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._databases = 0
        self.run("initdb", "-D", str(self.data), "-U", "flower", "-A", "trust", "-E", "UTF8", "--no-sync")
        (self.data / "pg_hba.conf").write_text(
            "host locked,scram all 127.0.0.1/32 scram-sha-256\n"
            "host hashed all 127.0.0.1/32 md5\n"
            "host clear all 127.0.0.1/32 password\n"
            "hostssl tls all 127.0.0.1/32 scram-sha-256\n"
            "local all all trust\n"
            "host all all 127.0.0.1/32 trust\n"
        )
        self.start()

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = (
            f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c shared_buffers=64MB"
            f" -c fsync={self.fsync}"
        )
        self.run("pg_ctl", "-D", str(self.data), "-l", str(self.directory / "log"), "-o", options, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def sql(self, statement: str, database: str = "postgres") -> str:
        command = [str(self.programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "flower", "-qAt"]
        done = subprocess.run([*command, "-d", database, "-c", statement], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def url(self, database: str | None = None) -> str:
        """The URL of a database; of a new one when none is named."""
        if database is None:
            self._databases += 1
            database = f"history{self._databases}"
            self.sql(f"CREATE DATABASE {database}")
        return f"postgresql://flower@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()
    shutil.rmtree(server.directory)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/history.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url()
