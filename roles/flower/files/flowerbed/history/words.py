"""Which tasks have which words in their texts: an index of all triples of letters, in a file beside the history.

The collector fills it in the background, seconds after the tasks, in their order of coming, so that the writer pays
nothing for it, whichever the database.  It consists of parts of PART_NUMBERS tasks, which are deleted as a whole.  What
it finds is looked at in the task itself, so that it may hold too much.  It may be deleted at any time, to be made anew.
"""

# ruff: noqa: S608  # names of columns and numbers are put into statements, values are bound
from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flowerbed.history.problems import HistoryError
from flowerbed.history.reading import STEPS, Reading, Session, TimeUpError
from flowerbed.history.store import checked_url

#: numbers of tasks of one part of the index, and the most tasks of one step, whose texts are in memory then
PART_NUMBERS, STEP_NUMBERS = 1 << 18, 2500
#: a task is taken in when it is so old, since most have ended by then; and the time between two turns, in seconds
REST_SECONDS = 2.0
#: how much of the time is spent on it, at the most
SHARE = 0.25
#: what one look at the history may take, in seconds
HISTORY_SECONDS = 30.0
#: waits after an error, in seconds
FAILED_SECONDS = 60.0
#: how the file is made
VERSION = 1
TEXTS = " || chr(31) || ".join(f"coalesce({name}, '')" for name in ("args", "kwargs", "result", "exception"))

logger = logging.getLogger(__name__)


def file_of(url: str) -> Path | None:
    """Where the index of a history is; None when there is no place for it.

    That is beside SQLite's file, and for PostgreSQL in the state directory that Flower and the collector share.
    """
    parsed = checked_url(url)
    if parsed.drivername == "sqlite":
        return Path(f"{parsed.database}-words")
    directory = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(directory, "history-words") if directory else None


def number(is_sqlite: bool) -> str:
    """The column with a task's number."""
    return "tasks.rowid" if is_sqlite else "number"


# ------------------------------------------------------------------ searching


class Index:
    """The index, for one search."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        #: tasks from this number on are not in it
        self.frontier: int = connection.execute("SELECT number FROM frontier").fetchone()[0]
        #: parts, the newest first
        self.parts = sorted(_parts(connection), reverse=True)

    def late(self, most: int) -> list[int]:
        """Tasks that were under way when they were taken in, the newest of them."""
        found = self._connection.execute("SELECT number FROM late ORDER BY number DESC LIMIT ?", (most,))
        return [number for (number,) in found]

    def holding(self, part: int, match: str, until: float) -> list[int]:
        """The tasks of a part that may have what is looked for; raises TimeUpError at `until` (monotonic)."""
        self._connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
        try:
            found = self._connection.execute(f"SELECT rowid FROM part_{part}(?) ORDER BY rowid DESC", (match,))
            return [number for (number,) in found]
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise TimeUpError from None
            raise


@contextmanager
def opened(path: Path | None) -> Iterator[Index | None]:
    """The index in a file; None when it is not there, or cannot be used."""
    if path is None or not path.exists():
        yield None
        return
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)) as connection:
        try:
            is_ours = connection.execute("PRAGMA user_version").fetchone()[0] == VERSION
            # what is read is of one moment
            connection.execute("BEGIN")
            index = Index(connection) if is_ours else None
        except sqlite3.DatabaseError as error:
            logger.warning("Searching the history is slow for now, its index cannot be read: %s", error)
            index = None
        yield index


def _parts(connection: sqlite3.Connection) -> set[int]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'part_[0-9]*'")
    return {int(name[5:]) for (name,) in names if name[5:].isdecimal()}


# ------------------------------------------------------------------ filling


class Words:
    """Fills the index of one history; `run` is for a thread."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError for a URL that can never work."""
        self._reading = Reading(url)
        self._number = number(self._reading.is_sqlite)
        self._texts = TEXTS.replace("chr(", "char(") if self._reading.is_sqlite else TEXTS
        self.path = file_of(url)
        #: the first number that was not given yet, at some moments (monotonic)
        self._ends: list[tuple[float, int]] = []
        #: up to which of the late tasks were looked at again
        self._looked = -1

    def run(self, stop: threading.Event) -> None:
        """Works until `stop`; what goes wrong is logged once, and tried again after a minute."""
        problem = ""
        while not stop.is_set():
            wait = REST_SECONDS
            try:
                self.turn(stop)
                problem = ""
            except HistoryError:
                # that is the writer's to say
                wait = FAILED_SECONDS
            except Exception as error:  # noqa: BLE001 - the thread must not end before the collector does
                wait = FAILED_SECONDS
                if str(error) != problem:
                    logger.warning("Searching the history is slow for now, its index cannot be written: %s", error)
                problem = str(error)
                if isinstance(error, sqlite3.DatabaseError) and ("malformed" in problem or "not a database" in problem):
                    self._forget()
            stop.wait(wait)
        self._reading.close()

    def turn(self, stop: threading.Event) -> None:
        """Takes in what is old enough."""
        if self.path is None:
            return
        with closing(self._connect(self.path)) as connection:
            with self._history() as history:
                self._check(connection, history)
                self._prune(connection, history)
                self._look_again(connection, history)
                end = self._horizon(history)
            while not stop.is_set():
                begun = time.monotonic()
                with self._history() as history:
                    if not self._step(connection, history, end):
                        break
                stop.wait((time.monotonic() - begun) * (1 / SHARE - 1))

    def _history(self) -> Any:
        return self._reading.session(HISTORY_SECONDS)

    def _connect(self, path: Path) -> sqlite3.Connection:
        # nobody else may read what tasks were given
        path.touch(0o600)
        connection = sqlite3.connect(path, timeout=5, isolation_level=None)
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            # a power loss may take the latest steps, which are then done again
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = FAST")
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                with _transaction(connection):
                    # the first task that was not taken in, and the id of the one before it
                    connection.execute("CREATE TABLE frontier (number INTEGER NOT NULL, id TEXT)")
                    connection.execute("CREATE TABLE late (number INTEGER PRIMARY KEY)")
                    connection.execute("INSERT INTO frontier VALUES (0, NULL)")
                    connection.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _forget(self) -> None:
        for end in ("", "-wal", "-shm"):
            Path(f"{self.path}{end}").unlink(missing_ok=True)

    def _bounds(self, history: Session) -> tuple[int, int] | None:
        """The first and the last number; None when there are no tasks."""
        column = self._number
        first, last = history.fetch(f"SELECT (SELECT min({column}) FROM tasks), (SELECT max({column}) FROM tasks)")[0]
        return None if last is None else (first, last)

    def _horizon(self, history: Session) -> int:
        """The first number of the tasks that are too young."""
        bounds, now = self._bounds(history), time.monotonic()
        if bounds is None:
            return 0
        self._ends = [entry for entry in self._ends if entry[0] > now - 5 * REST_SECONDS]
        self._ends.append((now, bounds[1] + 1))
        return max((end for moment, end in self._ends if moment <= now - REST_SECONDS), default=0)

    def _step(self, connection: sqlite3.Connection, history: Session, end: int) -> bool:
        """Takes in some tasks; False when there are none left before `end`."""
        (begin,) = connection.execute("SELECT number FROM frontier").fetchone()
        column = self._number
        if begin >= end:
            return False
        end = min(end, (begin // PART_NUMBERS + 1) * PART_NUMBERS)
        rows = history.fetch(
            f"SELECT {column}, {self._texts}, finished IS NULL, id FROM tasks"
            f" WHERE {column} >= :begin AND {column} < :end ORDER BY {column} LIMIT {STEP_NUMBERS}",
            {"begin": begin, "end": end},
        )
        # numbers need not be without gaps
        if len(rows) == STEP_NUMBERS:
            end = rows[-1][0] + 1
        with _transaction(connection):
            self._take_in(connection, begin // PART_NUMBERS, [(row[0], row[1]) for row in rows])
            connection.executemany("INSERT OR IGNORE INTO late VALUES (?)", [(row[0],) for row in rows if row[2]])
            uuid = rows[-1][3] if rows and rows[-1][0] == end - 1 else None
            connection.execute("UPDATE frontier SET number = ?, id = ?", (end, uuid))
        return True

    @staticmethod
    def _take_in(connection: sqlite3.Connection, part: int, rows: Iterable[tuple[int, str]]) -> None:
        connection.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS part_{part}"
            " USING fts5(text, tokenize = 'trigram', detail = none, columnsize = 0, content = '')"
        )
        connection.executemany(f"INSERT INTO part_{part} (rowid, text) VALUES (?, ?)", rows)

    def _look_again(self, connection: sqlite3.Connection, history: Session) -> None:
        """Takes in what came since of tasks that were under way."""
        found = connection.execute(
            "SELECT number FROM late WHERE number > ? ORDER BY number LIMIT ?", (self._looked, STEP_NUMBERS)
        )
        numbers = [number for (number,) in found]
        self._looked = numbers[-1] if len(numbers) == STEP_NUMBERS else -1
        if not numbers:
            return
        column, parts = self._number, _parts(connection)
        rows = history.fetch(
            f"SELECT {column}, {self._texts} FROM tasks"
            f" WHERE {column} IN ({', '.join(map(str, numbers))}) AND finished IS NOT NULL"
        )
        with _transaction(connection):
            for part in {row[0] // PART_NUMBERS for row in rows} & parts:
                self._take_in(connection, part, [(row[0], row[1]) for row in rows if row[0] // PART_NUMBERS == part])
            connection.executemany("DELETE FROM late WHERE number = ?", [(row[0],) for row in rows])

    def _prune(self, connection: sqlite3.Connection, history: Session) -> None:
        """Deletes parts whose tasks are all gone."""
        bounds = self._bounds(history)
        if bounds is None:
            return
        gone = [part for part in _parts(connection) if (part + 1) * PART_NUMBERS <= bounds[0]]
        for part in gone:
            connection.execute(f"DROP TABLE part_{part}")
        connection.execute("DELETE FROM late WHERE number < ?", (bounds[0],))
        if gone:
            connection.execute("PRAGMA incremental_vacuum").fetchall()
        # tasks before the first one will not come any more
        connection.execute("UPDATE frontier SET number = ?, id = NULL WHERE number < ?", (bounds[0], bounds[0]))

    def _check(self, connection: sqlite3.Connection, history: Session) -> None:
        """Begins anew when the history is another one than before: restored, or emptied."""
        frontier, uuid = connection.execute("SELECT number, id FROM frontier").fetchone()
        bounds = self._bounds(history)
        before = history.fetch(f"SELECT id FROM tasks WHERE {self._number} = {frontier - 1}")
        is_other = bool(before) and uuid is not None and before[0][0] != uuid
        if frontier <= (bounds[1] + 1 if bounds else 0) and not is_other:
            return
        with _transaction(connection):
            for part in _parts(connection):
                connection.execute(f"DROP TABLE part_{part}")
            connection.execute("DELETE FROM late")
            connection.execute("UPDATE frontier SET number = 0, id = NULL")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
