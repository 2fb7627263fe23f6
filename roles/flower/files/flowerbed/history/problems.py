"""What a database complains of, as one sentence that says what to do; never with a password in it."""

from __future__ import annotations

from sqlalchemy import exc


class HistoryError(Exception):
    """The history cannot be written or read now; the text is one sentence.

    `kind` is one of down, denied, missing, full, locked, readonly, newer, damaged, schema, slow or other.
    """

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


#: part of SQLite's message -> kind and what to say; the first that fits
_SQLITE = (
    ("database is locked", "locked", "is locked by another program"),
    ("database table is locked", "locked", "is locked by another program"),
    ("database or disk is full", "full", "has no room left on its disk: make room, or lower the retention"),
    ("readonly database", "readonly", "may not be written: look at the owner and mode of the file and its directory"),
    ("unable to open", "missing", "cannot be opened: look whether its directory exists and may be written"),
    ("malformed", "damaged", "is damaged: restore it from a backup, or move it away and a new one is begun"),
    ("not a database", "damaged", "is a file of something else: name another in flower_history_url"),
    ("disk i/o error", "other", "cannot be written because of its disk: look for errors of the disk"),
)
#: beginning of PostgreSQL's SQLSTATE -> the same (https://www.postgresql.org/docs/current/errcodes-appendix.html)
_POSTGRESQL = (
    ("28", "denied", "refuses our user or password: look at flower_history_url"),
    ("3D000", "missing", "does not exist: create it, or name another in flower_history_url"),
    ("42501", "denied", "does not let our user create or write its tables: grant that"),
    ("3F", "denied", "has no schema that our user may use: grant one"),
    ("42P", "schema", "lacks a table or column of ours: was it changed by hand?"),
    ("42703", "schema", "lacks a table or column of ours: was it changed by hand?"),
    ("53100", "full", "has no room left on its disk: make room, or lower the retention"),
    ("53", "down", "has no connection or memory left for us"),
    ("25006", "readonly", "is read-only: is it a standby?"),
    ("55P03", "locked", "is locked by another program"),
    ("57014", "locked", "took too long"),
    ("57P", "down", "is starting or shutting down"),
    ("40", "locked", "was busy with a conflicting change"),
    ("XX001", "damaged", "is damaged: restore it from a backup"),
)


def explained(error: exc.SQLAlchemyError, where: str) -> HistoryError | None:
    """The error of a database as a sentence; None for one that is about the data, and would come again with them."""
    original = error.orig if isinstance(error, exc.DBAPIError) else None
    if original is None:
        return HistoryError("other", f"The history in {where} cannot be used: {_first_line(error)}.")
    state = getattr(original, "sqlstate", None)
    message = str(original).lower()
    if type(original).__module__.startswith("psycopg"):
        if state is None and isinstance(error, exc.OperationalError | exc.InterfaceError):
            return _unreached(where, message, original)
        found = next((entry for entry in _POSTGRESQL if state and state.startswith(entry[0])), None)
    else:
        found = next((entry for entry in _SQLITE if entry[0] in message), None)
    if found:
        return HistoryError(found[1], f"The history in {where} {found[2]}.")
    if isinstance(error, exc.OperationalError):
        return HistoryError("other", f"The history in {where} cannot be used: {_first_line(original)}.")
    return None


def _unreached(where: str, message: str, original: BaseException) -> HistoryError:
    """PostgreSQL's refusals before there is a session have no SQLSTATE in psycopg."""
    for part, state in (
        ("password authentication failed", "28P01"),
        ("no password supplied", "28P01"),
        ("pg_hba.conf", "28000"),
        ("authentication", "28000"),
        ("starting up", "57P03"),
        ("shutting down", "57P03"),
        ("too many clients", "53300"),
        ("remaining connection slots", "53300"),
    ):
        if part in message:
            _, kind, sentence = next(entry for entry in _POSTGRESQL if state.startswith(entry[0]))
            return HistoryError(kind, f"The history in {where} {sentence}.")
    if 'role "' in message and "does not exist" in message:
        return HistoryError(
            "denied", f"The history in {where} refuses our user or password: look at flower_history_url."
        )
    if 'database "' in message and "does not exist" in message:
        sentence = "does not exist: create it, or name another in flower_history_url"
        return HistoryError("missing", f"The history in {where} {sentence}.")
    return HistoryError("down", f"The history in {where} cannot be reached: {_first_line(original)}.")


def unexplained(error: BaseException, where: str) -> HistoryError:
    """Any other error, with the database's own words."""
    original = getattr(error, "orig", None) or error
    return HistoryError("other", f"The history in {where} cannot be used: {_first_line(original)}.")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
