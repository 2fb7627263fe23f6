"""Connections that only read the history, and statements that end in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, exc, text
from sqlalchemy.pool import NullPool

from flowerbed.history.problems import HistoryError, explained, unexplained
from flowerbed.history.schema import REVISION
from flowerbed.history.store import checked_url
from flowerbed.history.upgrade import revision
from flowerbed.settings import SettingsError

#: how many questions PostgreSQL is asked at a time, and how long a further one waits for its turn, in seconds
CONNECTIONS, TURN_SECONDS = 4, 5.0
#: what a connection to PostgreSQL may take, and how long a lock of another program is waited for, in seconds
CONNECT_SECONDS, BUSY_SECONDS = 3, 1.0
#: SQLite looks at the clock after so many of its steps (about 0.2 ms)
STEPS = 5000


class TimeUpError(Exception):
    """A statement was not done in its time."""


class Session:
    """One question to the history: a connection, and the time that it has."""

    def __init__(self, connection: Connection, is_sqlite: bool, seconds: float) -> None:
        self.is_sqlite = is_sqlite
        self._connection = connection
        self._until = monotonic() + seconds
        if is_sqlite:
            raw: Any = connection.connection.driver_connection
            raw.set_progress_handler(lambda: monotonic() > self._until, STEPS)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What is asked in here has less time."""
        until, self._until = self._until, min(self._until, monotonic() + seconds)
        try:
            yield
        finally:
            self._until = until

    @property
    def left(self) -> float:
        """Seconds."""
        return self._until - monotonic()

    def fetch(self, statement: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        """All rows of a statement; raises TimeUpError."""
        milliseconds = int(self.left * 1000)
        if milliseconds < 1:
            raise TimeUpError
        if not self.is_sqlite:
            self._connection.exec_driver_sql(f"SET statement_timeout = {milliseconds}")
        try:
            return list(self._connection.execute(text(statement), parameters or {}))
        except exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", None) == "57014" or str(error.orig) == "interrupted":
                raise TimeUpError from None
            raise


class Reading:
    """The database of a URL, for reading; for any thread."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError for a URL that can never work."""
        parsed = checked_url(url)
        self.is_sqlite = parsed.drivername == "sqlite"
        #: for people: without a password
        self.where = str(parsed.database) if self.is_sqlite else f"{parsed.host or 'localhost'}/{parsed.database}"
        try:
            self._engine = _sqlite(self.where) if self.is_sqlite else _postgresql(parsed)
        except ImportError:
            raise SettingsError("flower_history_url: psycopg, the driver for PostgreSQL, is not installed.") from None
        if not self.is_sqlite:
            event.listen(self._engine, "connect", _is_new)

    @contextmanager
    def session(self, seconds: float) -> Iterator[Session]:
        """A connection for up to `seconds`; HistoryError when the history is not there, or is of another release."""
        if self.is_sqlite and not Path(self.where).exists():
            raise _missing(self.where)
        try:
            with self._engine.connect() as connection:
                if connection.info.pop("is_new", self.is_sqlite):
                    self._check(connection)
                yield Session(connection, self.is_sqlite, seconds)
        except exc.TimeoutError:
            raise HistoryError("locked", f"The history in {self.where} is busy: too much was asked at once.") from None
        except exc.SQLAlchemyError as error:
            raise explained(error, self.where) or unexplained(error, self.where) from None
        except TimeUpError:
            raise HistoryError(
                "slow", f"The history in {self.where} took too long to answer: ask for a shorter time, with since:."
            ) from None

    def _check(self, connection: Connection) -> None:
        try:
            found = revision(connection)
            if found is None:
                raise _missing(self.where)
            if found > REVISION:
                raise HistoryError(
                    "newer", f"The history in {self.where} is of a newer release: restart Flower with it."
                )
            if found < REVISION:
                raise HistoryError(
                    "schema",
                    f"The history in {self.where} is of an older release: the collector upgrades it at its start.",
                )
        except BaseException:
            # what is wrong now is looked at again the next time
            connection.invalidate()
            raise

    def close(self) -> None:
        """Closes what is not in use; never raises."""
        self._engine.dispose()


def _missing(where: str) -> HistoryError:
    return HistoryError("missing", f"There is no history in {where} yet: the collector makes it when it starts.")


def _is_new(_connection: Any, record: Any) -> None:
    record.info["is_new"] = True


def _sqlite(path: str) -> Engine:
    # a new connection for each question costs a millisecond, and sees a file that was put in the other's place
    engine = create_engine(
        f"sqlite:///file:{quote(path)}?mode=ro&uri=true",
        poolclass=NullPool,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    return engine


def _postgresql(url: Any) -> Engine:
    options = {
        "default_transaction_read_only": "on",
        "lock_timeout": f"{BUSY_SECONDS * 1000:.0f}ms",
        # a plan for each question: they differ as much as what is asked for
        "plan_cache_mode": "force_custom_plan",
        "jit": "off",
        # what comes in the order of an index is read from it: a page needs few rows
        "enable_sort": "off",
        "enable_incremental_sort": "off",
        "max_parallel_workers_per_gather": "0",
    }
    return create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=TURN_SECONDS,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "flowerbed-flower",
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            "prepare_threshold": None,
            "tcp_user_timeout": 30000,
        },
    )
