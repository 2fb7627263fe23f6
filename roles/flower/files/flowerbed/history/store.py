"""The history's database: opened, upgraded, and written in batches.

A Store is for one thread.  Every error of the database comes out as a HistoryError, one sentence; rows that the
database does not take for what they hold are dropped alone, and counted.
"""

# ruff: noqa: PLC0415  # psycopg is loaded when there is a PostgreSQL
from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url, select, update
from sqlalchemy.pool import NullPool

from flowerbed.history import schema
from flowerbed.history.problems import HistoryError, explained, unexplained
from flowerbed.history.schema import Counter, Row
from flowerbed.history.upgrade import upgrade
from flowerbed.settings import SettingsError

#: how long another program's lock is waited for, in seconds
BUSY_SECONDS = 5
#: what PostgreSQL may take to accept a connection, and for one statement, in seconds
CONNECT_SECONDS, STATEMENT_SECONDS = 10, 60
#: rows of one statement for PostgreSQL, which is a text of about a kilobyte a row
STATEMENT_ROWS = 2000
#: SQLite's memory for pages, in kB
CACHE_KB = 32 * 1024
#: pages of the write-ahead log after which it is written back (16 MB), and what is kept of its file, in bytes
CHECKPOINT_PAGES, LOG_BYTES = 4000, 64 * 1024 * 1024

#: https://www.postgresql.org/docs/current/libpq-ssl.html
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_NAMES = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_encode = msgspec.json.Encoder().encode

logger = logging.getLogger(__name__)


def checked_url(url: str) -> URL:
    """The URL of a history; raises SettingsError for one that can never work."""
    hint = "write sqlite:////var/lib/…/history.sqlite or postgresql://user:password@host/database"
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise SettingsError(f"flower_history_url is not the URL of a database: {hint}.") from None
    backend = parsed.drivername.partition("+")[0]
    if backend not in _NAMES or parsed.drivername not in (backend, _NAMES[backend]):
        raise SettingsError(f"flower_history_url: {parsed.drivername} is not a database that is known: {hint}.")
    if not parsed.database or (backend == "sqlite" and not Path(parsed.database).is_absolute()):
        raise SettingsError(f"flower_history_url names no database, or no whole path: {hint}.")
    if backend != "sqlite":
        _check_options(parsed)
    return parsed.set(drivername=_NAMES[backend])


def _check_options(url: URL) -> None:
    """Raises SettingsError for a port and for options that PostgreSQL's driver would refuse each time."""
    if url.port is not None and not 0 < url.port < 65536:
        raise SettingsError(f"flower_history_url: {url.port} is no port.")
    options = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
    mode = options.get("sslmode", SSL_MODES[0])
    if mode not in SSL_MODES:
        raise SettingsError(f"flower_history_url: sslmode must be one of {', '.join(SSL_MODES)}.")
    try:
        from psycopg import ProgrammingError, conninfo
    except ImportError:
        # said when it is used
        return
    try:
        conninfo.make_conninfo("", **options)
    except ProgrammingError as error:
        raise SettingsError(f"flower_history_url has an option that is not known: {str(error).strip()}.") from None


def open_store(url: str) -> Store:
    """Connects and upgrades the schema; raises SettingsError for a wrong URL and HistoryError for all else."""
    store = Store(checked_url(url))
    try:
        store.connect()
    except BaseException:
        store.close()
        raise
    return store


class Store:
    """One connection that writes.  `refused` counts rows that the database did not take."""

    def __init__(self, url: URL) -> None:
        #: for people: without a password
        self.where = str(url.database) if url.drivername == "sqlite" else f"{url.host or 'localhost'}/{url.database}"
        self.is_sqlite = url.drivername == "sqlite"
        self.refused = 0
        try:
            self._engine = _sqlite(url) if self.is_sqlite else _postgresql(url)
        except ImportError:
            raise SettingsError("flower_history_url: psycopg, the driver for PostgreSQL, is not installed.") from None
        self._connection: Connection | None = None
        self._inode: int | None = None

    def connect(self) -> None:
        """Opens the connection and brings the schema up to date."""
        try:
            with self.transaction() as connection:
                upgrade(connection, self.where)
        except exc.SQLAlchemyError as error:
            self.close()
            raise unexplained(error, self.where) from None

    def close(self) -> None:
        """Closes the connection; never raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except exc.SQLAlchemyError as error:
                logger.debug("The history was not closed well: %s", type(error).__name__)
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction; HistoryError when the database fails, and then the connection is made anew the next time."""
        try:
            if self._connection is not None and self._is_replaced():
                self.close()
                raise HistoryError("missing", f"The history in {self.where} was moved or deleted while it was open.")
            if self._connection is None:
                self._connection = self._engine.connect()
                self._inode = self._file_number()
            with self._connection.begin():
                yield self._connection
        except exc.SQLAlchemyError as error:
            problem = explained(error, self.where)
            if problem is None:
                raise
            self.close()
            raise problem from None

    def _file_number(self) -> int | None:
        try:
            return Path(self.where).stat().st_ino if self.is_sqlite else None
        except OSError:
            return None

    def _is_replaced(self) -> bool:
        """Whether SQLite would go on writing to a file that nobody can see any more."""
        return self.is_sqlite and self._file_number() != self._inode

    # ------------------------------------------------------------------ writing

    def write(self, rows: Sequence[Row], counters: Sequence[Counter] = ()) -> None:
        """Rows of different tasks, and counters, in one transaction: all of them are in the database, or none is.

        Rows that the database refuses for what they hold are the exception: the others are written without them.
        """
        try:
            with self.transaction() as connection:
                if rows:
                    self._upsert(connection, rows)
                if counters:
                    self._save(connection, counters)
        except (exc.SQLAlchemyError, ValueError, OverflowError) as error:
            # about what the rows hold: the halves tell which
            if len(rows) <= 1:
                if not rows:
                    raise HistoryError("other", f"The counters cannot be kept in {self.where}.") from None
                self.refused += 1
                logger.warning("A task could not be kept in the history: %s", type(error).__name__)
                rows = ()
            half = len(rows) // 2
            if half:
                self.write(rows[:half])
                self.write(rows[half:])
            if counters:
                self.write((), counters)

    def _upsert(self, connection: Connection, rows: Sequence[Row]) -> None:
        if self.is_sqlite:
            connection.exec_driver_sql(schema.UPSERT_SQLITE, list(rows))
        else:
            for first in range(0, len(rows), STATEMENT_ROWS):
                some = rows[first : first + STATEMENT_ROWS]
                objects = [dict(zip(schema.COLUMNS, row, strict=True)) for row in some]
                connection.exec_driver_sql(schema.UPSERT_POSTGRESQL, (_encode(objects).decode(),))

    def _save(self, connection: Connection, counters: Sequence[Counter]) -> None:
        if self.is_sqlite:
            connection.exec_driver_sql(schema.COUNTERS_SQLITE, list(counters))
        else:
            objects = [{"name": name, "labels": labels, "value": value} for name, labels, value in counters]
            connection.exec_driver_sql(schema.COUNTERS_POSTGRESQL, (_encode(objects).decode(),))

    def counters(self) -> list[Counter]:
        """The counters as they were last kept."""
        table = schema.counters
        with self.transaction() as connection:
            found = connection.execute(select(table.c.name, table.c.labels, table.c.value))
            return [(name, labels, value) for name, labels, value in found]

    def mark_lost(self, worker: str, before: float) -> int:
        """Marks tasks that `worker` left STARTED and of which nothing was heard since `before`; gives their number."""
        table = schema.tasks
        with self.transaction() as connection:
            result = connection.execute(
                update(table)
                .where(table.c.state == "STARTED", table.c.worker == worker)
                .where(table.c.updated < before, table.c.lost.is_(False))
                .values(lost=True)
            )
            return int(result.rowcount)


# ------------------------------------------------------------------ databases


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # transactions are ours: Python's own begin too late for changes of the schema
        connection.isolation_level = None
        # before the first table is there; lets pruned space be given back in small steps
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        # a batch a second: waiting for the disk is cheap, and what was kept is kept after a power loss
        connection.execute("PRAGMA synchronous = FULL")
        # Debian's SQLite writes zeros over all that is deleted; this does so where it costs no more writing
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # takes the lock now, so that a busy database is waited for and no transaction fails half-way
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    return create_engine(
        url,
        poolclass=NullPool,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "flowerbed-collector",
            "options": f"-c statement_timeout={STATEMENT_SECONDS * 1000} -c lock_timeout={BUSY_SECONDS * 1000}",
            # a server that went away without a word is noticed within a minute
            "keepalives_idle": 20,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30000,
        },
    )
