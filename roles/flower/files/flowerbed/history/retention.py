"""How long tasks are remembered: by age, number and size; the oldest go first, in small steps between two batches.

Age counts from when the collector first saw a task.  Number and size are looked at every few minutes, and then a
hundredth more is deleted than must be, so that it need not be done all the time.  SQLite's file gets smaller again;
PostgreSQL uses the space of deleted rows for new ones, and its size is what its rows take, not what its files do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from sqlalchemy import Connection, text

from flowerbed.history.store import Store

#: rows of one step, and free pages that SQLite gives back in one (4 MB)
STEP_ROWS, STEP_PAGES = 500, 1000
#: how many times longer it may take when the last time was not enough
BEHIND = 3
#: the least time between two looks when there was nothing to do, in seconds
LOOK_SECONDS = 300.0
#: rows that PostgreSQL looks at to know what a row takes, and what the indexes take for a row, in bytes
SAMPLE_ROWS, INDEX_BYTES = 2000, 600
#: more than any limit: rows are counted then
MOST_UNKNOWN = 10**15


@dataclass(frozen=True)
class Limits:
    """What is kept; None is without a limit."""

    seconds: float | None = 30 * 86400.0
    rows: int | None = None
    #: of the database's tables and indexes
    size: int | None = None


class Retention:
    """Prunes one store; `pruned` counts the rows that it deleted.  For the thread of the store."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self.pruned = 0
        self._limits = limits
        self._clock = clock
        self._next_look = 0.0
        #: rows over the limits of number and size that are still to be deleted
        self._too_many = 0
        self._has_more = False

    def run(self, store: Store, now: float, budget: float) -> bool:
        """Prunes for up to `budget` seconds (of the clock); True when more is to be done.

        `now` is the time since 1970 by which tasks are old; the writer gives none that events do not confirm, since a
        clock that jumps into the future must not make everything old.
        """
        # a step of 10 million rows is 0.1 s: many rows a second are only kept up with when there is more time
        until = self._clock() + budget * (BEHIND if self._has_more else 1)
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_SECONDS
            self._has_more = True
            with store.transaction() as connection:
                self._too_many = self._excess(store, connection)
        while self._has_more:
            self._has_more = self._step(store, now)
            if self._clock() >= until:
                break
        return self._has_more

    def _step(self, store: Store, now: float) -> bool:
        with store.transaction() as connection:
            deleted = 0
            if self._limits.seconds is not None:
                deleted = _delete(connection, STEP_ROWS, now - self._limits.seconds)
            self._too_many = max(self._too_many - deleted, 0)
            if deleted < STEP_ROWS and self._too_many:
                excess = _delete(connection, min(STEP_ROWS - deleted, self._too_many))
                self._too_many = self._too_many - excess if excess else 0
                deleted += excess
            self.pruned += deleted
            has_freed = store.is_sqlite and deleted < STEP_ROWS and _give_back(connection)
            return deleted >= STEP_ROWS or self._too_many > 0 or has_freed

    def _excess(self, store: Store, connection: Connection) -> int:
        """How many rows are over the limits of number and size."""
        most, size = self._limits.rows, self._limits.size
        if most is None and size is None:
            return 0
        # what is quick to know says at most too much; rows are counted only when it does
        rows, bytes_ = (_sqlite_usage if store.is_sqlite else _postgresql_usage)(connection)
        if (most is None or rows <= most) and (size is None or bytes_ <= size):
            return 0
        rows = int(connection.exec_driver_sql("SELECT count(*) FROM tasks").scalar() or 0)
        if size is not None and bytes_ > size and not store.is_sqlite:
            bytes_ = _postgresql_bytes(connection, rows)
        excess = 0
        if most is not None and rows > most:
            excess = rows - most + most // 100
        if size is not None and bytes_ > size:
            excess = max(excess, int(rows * (1 - 0.99 * size / bytes_)) + 1)
        return excess


def _delete(connection: Connection, rows: int, before: float | None = None) -> int:
    """Deletes up to `rows` of the oldest tasks, those that were first seen before `before` if it is given."""
    where = "" if before is None else "WHERE seen < :before"
    oldest = f"SELECT id FROM tasks {where} ORDER BY seen LIMIT :rows"  # noqa: S608 - one of the two texts above
    result = connection.execute(
        text(f"DELETE FROM tasks WHERE id IN ({oldest})"),  # noqa: S608
        {"rows": rows} if before is None else {"rows": rows, "before": before},
    )
    return int(result.rowcount)


def _sqlite_usage(connection: Connection) -> tuple[int, int]:
    """The most rows that there can be (they are numbered as they come), and their bytes."""
    last = connection.exec_driver_sql("SELECT max(rowid) FROM tasks").scalar()
    first = connection.exec_driver_sql("SELECT min(rowid) FROM tasks").scalar()
    pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar() or 0)
    free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0)
    page = int(connection.exec_driver_sql("PRAGMA page_size").scalar() or 0)
    return 0 if last is None or first is None else int(last - first + 1), (pages - free) * page


def _postgresql_usage(connection: Connection) -> tuple[int, int]:
    """About the number of rows, and the bytes of the files: with the room that deleted rows have left."""
    live = connection.exec_driver_sql("SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'tasks'::regclass")
    size = connection.exec_driver_sql("SELECT pg_total_relation_size('tasks')").scalar()
    # kept by the server as rows come and go, and 0 after a crash
    rows = int(live.scalar() or 0) or MOST_UNKNOWN
    return rows + rows // 10, int(size or 0)


def _postgresql_bytes(connection: Connection, rows: int) -> int:
    """About what the rows take with their indexes, from a sample of the table's pages."""
    percent = min(100.0, 100.0 * SAMPLE_ROWS / max(rows, 1))
    width = connection.exec_driver_sql(
        f"SELECT avg(pg_column_size(tasks.*)) FROM tasks TABLESAMPLE SYSTEM ({percent:.6f})"  # noqa: S608 - a number
    ).scalar()
    return int(rows * (float(width or 0) + INDEX_BYTES))


def _give_back(connection: Connection) -> bool:
    """Gives some of SQLite's free pages back to the file system; True when there are more than are kept for reuse."""
    free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0)
    pages = int(connection.exec_driver_sql("PRAGMA page_count").scalar() or 0)
    # a tenth is kept: new tasks will need it
    if free <= max(pages // 10, STEP_PAGES):
        return False
    # frees a page with each row that it is asked for, and says that it has no rows
    cursor = connection.connection.cursor()
    cursor.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})")
    cursor.fetchall()
    cursor.close()
    return True
