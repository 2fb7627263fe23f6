"""`user hash`: the entry that it prints is one that the role takes and the password opens."""

from __future__ import annotations

import os
import pty
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from addon_support import FILES
from passlib.hash import bcrypt, sha512_crypt

from filter_plugins.credentials import HASH_SCHEMES, hashed_users, user_problems
from flowerbed import users
from flowerbed.auth import verify
from flowerbed.settings import User

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(FILES), "PYTHONDONTWRITEBYTECODE": "1"}


def hash_command(*arguments: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "flowerbed", "user", "hash", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, input=stdin, capture_output=True, check=False, timeout=60)


def on_a_terminal(*typed: str, name: str | None = "alice") -> tuple[int, str, str]:
    """Exit code, standard output, and all that the terminal showed."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "flowerbed", "user", "hash", *([name] if name else [])]
    # a session of its own, so that getpass finds this terminal and not the one of the tests
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    shown = b""
    for line in typed:
        # what is typed before the prompt would be shown
        while not shown.endswith(b": "):
            shown += os.read(controller, 1000)
        shown += b"\n"
        os.write(controller, line.encode() + b"\n")
    out = process.communicate(timeout=60)[0]
    while True:
        try:
            more = os.read(controller, 1000)
        except OSError:
            break
        if not more:
            break
        shown += more
    os.close(controller)
    return process.returncode, out.decode(), shown.decode()


def opens(hashed: str, password: str) -> bool:
    return verify([User("a", hashed)], "a", password)


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_the_entry_is_one_for_flower_users(role: str) -> None:
    password = secrets.token_urlsafe(12) + " :ü\"'"
    done = hash_command("o'brien", "--role", role, stdin=password.encode() + b"\n")
    assert (done.returncode, done.stderr) == (0, b"")
    entries = yaml.safe_load(done.stdout)
    assert [(entry["name"], entry["role"]) for entry in entries] == [("o'brien", role)]
    assert bcrypt.verify(password, entries[0]["password_hash"])
    assert user_problems(entries) == []
    assert hashed_users(entries) == [{"name": "o'brien", "hash": entries[0]["password_hash"], "role": role}]


def test_an_operator_unless_said_otherwise() -> None:
    assert yaml.safe_load(hash_command("a", stdin=b"some word").stdout)[0]["role"] == "operator"


@pytest.mark.parametrize("name", ["yes", "007", "Zoë", "a#b", "null"])
def test_a_name_stays_a_text(name: str) -> None:
    assert yaml.safe_load(users.entry(name, "word", "viewer", "pbkdf2_sha256"))[0]["name"] == name


def test_another_kind_of_hash() -> None:
    password = secrets.token_urlsafe(60)
    done = hash_command("a", "--scheme", "sha512_crypt", stdin=password.encode())
    assert sha512_crypt.verify(password, yaml.safe_load(done.stdout)[0]["password_hash"])
    # the role and the command know the same kinds
    assert users.SCHEMES == HASH_SCHEMES


def test_a_kind_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from passlib.exc import MissingBackendError
    from passlib.hash import argon2

    def missing(_: str) -> str:
        raise MissingBackendError

    monkeypatch.setattr(argon2, "hash", missing)
    with pytest.raises(users.UserError, match="argon2 is not installed here: install argon2-cffi"):
        users.entry("a", "word", "viewer", "argon2")


@pytest.mark.parametrize(
    ("name", "stdin", "sentence"),
    [
        ("a", b"", "the password is empty"),
        ("a", b"\n", "the password is empty"),
        ("a", b"hush" * 19, "more than 72 bytes"),
        ("a", "hüsh".encode() * 15, "more than 72 bytes"),
        ("a", b"hush\0", "control character"),
        ("a", b"hush\nhush\n", "a line break or a control character"),
        ("a", b"hush\x1b", "control character"),
        ("a", b"hush\xff", "not UTF-8"),
        ("a:b", b"hush", "a ':'"),
        ("doctor", b"hush", "reserved"),
        ("a ", b"hush", "a blank at its end"),
        ("", b"hush", "the user name is missing"),
    ],
)
def test_mistakes_are_one_sentence_without_the_password(name: str, stdin: bytes, sentence: str) -> None:
    done = hash_command(name, stdin=stdin)
    said = done.stderr.decode()
    assert done.returncode == 1 and done.stdout == b""
    assert said.startswith("flowerbed: ") and sentence in said and said.count("\n") == 1
    assert "hush" not in said and "hüsh" not in said


def test_on_a_terminal_it_asks_twice_and_shows_nothing() -> None:
    password = secrets.token_urlsafe(12)
    code, out, shown = on_a_terminal(password, password)
    assert code == 0, shown
    assert opens(yaml.safe_load(out)[0]["password_hash"], password)
    assert "Password: " in shown and "Again: " in shown
    assert password not in shown


def test_on_a_terminal_it_asks_for_the_name() -> None:
    password = secrets.token_urlsafe(12)
    code, out, shown = on_a_terminal("bob", password, password, name=None)
    assert code == 0, shown
    assert yaml.safe_load(out)[0]["name"] == "bob" and "User name: " in shown


def test_two_different_passwords_on_a_terminal() -> None:
    first, second = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
    code, out, shown = on_a_terminal(first, second)
    assert (code, out) == (1, "")
    assert "the two passwords are not the same" in shown
    assert first not in shown and second not in shown


def test_the_old_command_is_gone() -> None:
    command = [sys.executable, "-m", "flowerbed", "hash"]
    assert subprocess.run(command, env=ENVIRONMENT, input=b"word", capture_output=True, check=False).returncode == 2


def test_the_docs_name_it() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "flower-setup.md").read_text(encoding="utf-8")
    assert "flowerbed user hash" in text and "flowerbed hash" not in text
