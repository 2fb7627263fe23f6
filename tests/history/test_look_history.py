"""The role's look at a host signs in to a real PostgreSQL with nothing but the standard library."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.history.conftest import Postgres

FILE = Path(__file__).resolve().parents[2] / "roles/flower/files/look.py"
PASSWORD, QUOTED = "pass/word é", "pass%2Fword%20%C3%A9"

_spec = importlib.util.spec_from_file_location("look", FILE)
assert _spec and _spec.loader
look = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(look)


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[Postgres]:
    """With a role for each way to keep a password, and the databases that want one."""
    for name, kind in (("ada", "scram-sha-256"), ("bob", "md5")):
        postgres.sql(f"SET password_encryption = '{kind}'; CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    for database in ("scram", "hashed", "clear", "tls"):
        postgres.sql(f"CREATE DATABASE {database}")
    return postgres


def problem(server: Postgres, entry: str, database: str, query: str = "") -> str:
    said: dict[str, str] = look.ask_history(f"postgresql://{entry}@127.0.0.1:{server.port}/{database}{query}")
    assert said["at"] == f"127.0.0.1:{server.port}"
    assert PASSWORD not in json.dumps(said, ensure_ascii=False)
    return said["problem"]


@pytest.mark.parametrize(
    ("entry", "database", "expected"),
    [
        (f"ada:{QUOTED}", "scram", ""),
        (f"ada:{QUOTED}", "hashed", ""),
        (f"bob:{QUOTED}", "hashed", ""),
        (f"bob:{QUOTED}", "clear", ""),
        ("ada:wrong", "scram", "refused"),
        ("bob:wrong", "hashed", "refused"),
        ("bob:wrong", "clear", "refused"),
        ("nobody:wrong", "scram", "refused"),
        ("ada", "scram", "password-needed"),
        ("flower", "postgres", ""),
        ("flower", "no_such_thing", "no-database"),
    ],
)
def test_signing_in(server: Postgres, entry: str, database: str, expected: str) -> None:
    assert problem(server, entry, database) == expected
    assert problem(server, entry, database, "?sslmode=disable") == expected


def test_over_tls(server: Postgres, tmp_path: Path) -> None:
    key, certificate = server.data / "server.key", server.data / "server.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    trusted = tmp_path / "ca.pem"
    shutil.copy(certificate, trusted)
    key.chmod(0o600)
    if (owner := server.data.owner()) != key.owner():
        shutil.chown(key, owner)
        shutil.chown(certificate, owner)
    assert problem(server, f"ada:{QUOTED}", "scram", "?sslmode=require") == "plain"
    server.sql("ALTER SYSTEM SET ssl = on")
    server.sql("SELECT pg_reload_conf()")
    try:
        while problem(server, f"ada:{QUOTED}", "scram", "?sslmode=require") == "plain":
            pass
        assert problem(server, f"ada:{QUOTED}", "tls", "?sslmode=require") == ""
        assert problem(server, "ada:wrong", "tls") == "refused"
        assert problem(server, f"ada:{QUOTED}", "tls", f"?sslmode=verify-full&sslrootcert={trusted}") == ""
        # nobody on this host has signed it
        assert problem(server, f"ada:{QUOTED}", "tls", "?sslmode=verify-full") == "tls"
    finally:
        server.sql("ALTER SYSTEM RESET ssl")
        server.sql("SELECT pg_reload_conf()")
