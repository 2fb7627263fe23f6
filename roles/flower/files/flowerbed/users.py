"""`python -m flowerbed user hash`: an entry of flower_users from a password that nobody else sees."""

# ruff: noqa: PLC0415  # late imports: hashing is not needed by the other commands
from __future__ import annotations

import getpass
import json
import re
import sys

#: kinds of hash that can be made; the role's filter hashed_users has the same
SCHEMES = ("bcrypt", "argon2", "sha512_crypt", "pbkdf2_sha256", "scrypt")
MAX_BCRYPT_BYTES = 72
RESERVED = "doctor"


class UserError(ValueError):
    """No entry can be made; the text is one sentence without the password."""


def hash_command(name: str | None, role: str, scheme: str) -> int:
    """Prints the entry and gives 0, or says on stderr what is wrong and gives 1."""
    try:
        print(entry(_name(name), read_password(), role, scheme))
    except UserError as error:
        print(f"flowerbed: {error}", file=sys.stderr)
        return 1
    return 0


def entry(name: str, password: str, role: str, scheme: str) -> str:
    """The entry as YAML; raises UserError for a name or a password that cannot work."""
    if wrong := name_problem(name) or password_problem(password, scheme):
        raise UserError(wrong)
    # JSON's quotes are YAML's too, so that a user may be called yes
    quoted = json.dumps(name, ensure_ascii=False)
    return f'- name: {quoted}\n  password_hash: "{_hash(password, scheme)}"\n  role: {role}'


def name_problem(name: str) -> str | None:
    """What is wrong with a user name, as a sentence."""
    if not name:
        return "the user name is missing: write it after `user hash`."
    if ":" in name:
        return "the user name has a ':', which HTTP Basic cannot carry: leave it out."
    if not name.isprintable() or name != name.strip():
        return "the user name has a control character or a blank at its end: leave it out."
    if name == RESERVED:
        return f"the user name {RESERVED} is reserved for the health check: choose another name."
    return None


def password_problem(password: str, scheme: str) -> str | None:
    """What is wrong with a password, as a sentence without it."""
    if not password:
        return "the password is empty: type one."
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", password):
        return "the password has a line break or a control character: leave it out."
    if scheme == "bcrypt" and len(password.encode()) > MAX_BCRYPT_BYTES:
        return f"the password has more than {MAX_BCRYPT_BYTES} bytes, which bcrypt ignores: shorten it."
    return None


def read_password() -> str:
    """The password from the terminal, typed twice and not shown, or from standard input with one line break cut off."""
    if not sys.stdin.isatty():
        try:
            return re.sub(r"\r?\n\Z", "", sys.stdin.buffer.read().decode())
        except UnicodeDecodeError:
            raise UserError("the password on standard input is not UTF-8 text.") from None
    try:
        password = getpass.getpass("Password: ")
        # an empty one is refused anyway
        if password and getpass.getpass("Again: ") != password:
            raise UserError("the two passwords are not the same: try again.")
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        raise UserError("no password was given.") from None
    return password


def _name(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        # asked on stderr: standard output is for the entry
        print("User name: ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip()
    return given or ""


def _hash(password: str, scheme: str) -> str:
    from passlib import hash as hashes

    try:
        # the same cost whatever passlib's default will be: a quarter of a second
        handler = hashes.bcrypt.using(rounds=12) if scheme == "bcrypt" else getattr(hashes, scheme)
        return str(handler.hash(password))
    except RuntimeError:  # passlib's MissingBackendError
        needs = "argon2-cffi" if scheme == "argon2" else scheme
        raise UserError(f"{scheme} is not installed here: install {needs}, or choose another scheme.") from None
