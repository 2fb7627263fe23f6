"""The thread that writes the history: what the fold thread hands over, in batches, whatever becomes of the database.

Handing over never waits for the database.  Many events of one task between two batches are one row.  While the
database fails, rows wait in a buffer of bounded size; when it is full the oldest rows are dropped and counted.

Rows and counters are of one moment and in one transaction, so that after `kill -9` they say the same: the thread that
counts is met between two turns (meet()), and what it had counted by then is written together.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flowerbed.collector.tasks import Record
from flowerbed.history.problems import HistoryError
from flowerbed.history.recent import recent
from flowerbed.history.retention import Limits, Retention
from flowerbed.history.schema import COLUMNS, SEEN, Counter, Row, merged, row_of
from flowerbed.history.store import Store, checked_url

#: the least time between two batches, and the time that pruning may take between them, in seconds
BATCH_SECONDS, PRUNE_SECONDS = 0.5, 0.1
#: the most rows of one transaction; of a larger backlog, after an outage, the counters come with the last of it
BATCH_ROWS = 20_000
#: how long the thread that counts is waited for, in seconds
MEET_SECONDS = 5.0
#: what may wait for the database: rows, and bytes (about; a row with nothing in it is ROW_BYTES)
MOST_ROWS, MOST_BYTES, ROW_BYTES = 100_000, 64 * 1024 * 1024, 700
#: waits between attempts to reach a database that fails, in seconds
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
#: a full disk takes a small batch now and then: seconds without a failure after which it is believed to have room
ROOM_SECONDS = 5.0
#: up to so many rows are not weighed: it would cost more than all the rest of put()
UNWEIGHED_ROWS = 4000
_FINISHED = COLUMNS.index("finished")
_TEXTS = [COLUMNS.index(name) for name in ("args", "kwargs", "result", "exception", "traceback")]

logger = logging.getLogger(__name__)


@dataclass
class Stats:
    """What the writer has done since its start; read by other threads, written by it."""

    #: rows written (a task that was written twice counts twice), and batches: rows and counters of one moment
    written: int = 0
    batches: int = 0
    #: rows that were dropped because the buffer was full
    dropped: int = 0
    #: rows that the database did not take for what they hold
    refused: int = 0
    #: batches that failed
    failures: int = 0
    pruned: int = 0
    #: seconds that the last batch took
    batch_seconds: float = 0.0
    #: time.time() of the last good batch, or of the first connection
    last_written: float | None = None
    #: why nothing is written now: one sentence, and its kind; None when all is well
    problem: HistoryError | None = None


@dataclass
class _Buffer:
    #: by id, the oldest first
    rows: OrderedDict[str, Row] = field(default_factory=OrderedDict)
    #: about the bytes of the rows, when there are more than UNWEIGHED_ROWS
    size: int | None = None


class Writer:
    """Give it records with put(), run it with start() and stop().

    `counters` is asked before each batch for the counters that changed (their values, not differences); `on_loaded`
    is told, once and before the first is asked for, those of former runs, to be added to what was counted meanwhile,
    and `on_tasks`, before that, the tasks of former runs.  All are called in the writer's thread.

    `look` makes rows and counters be of one moment: whoever gives it must call meet() again and again until stop(),
    where all that was counted is also put.  It is called there, and gives a position, such as how many messages were
    taken in: what `safe` becomes when everything up to there is written.

    `clock` gives the time by which rows are old, None while that is not known.
    """

    def __init__(
        self,
        url: str,
        limits: Limits | None = None,
        *,
        counters: Callable[[], Iterable[Counter]] | None = None,
        on_loaded: Callable[[list[Counter]], None] | None = None,
        on_tasks: Callable[[list[Record]], None] | None = None,
        look: Callable[[], int] | None = None,
        clock: Callable[[], float | None] = time.time,
        batch_seconds: float = BATCH_SECONDS,
        most_rows: int = MOST_ROWS,
        most_bytes: int = MOST_BYTES,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        """Raises SettingsError for a URL that can never work."""
        self.stats = Stats()
        self._store = Store(checked_url(url))
        self._retention = Retention(limits or Limits())
        self._counters = counters
        self._on_loaded = on_loaded
        self._on_tasks = on_tasks
        self._look = look
        self._clock = clock
        #: the position up to which all is written; read by any thread
        self.safe = 0
        self._batch_seconds = batch_seconds
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._first_wait = first_wait
        self._lock = threading.Lock()
        self._buffer = _Buffer()
        #: counters that are still to be written; only the writer's thread touches them
        self._unsaved: dict[tuple[str, str], float] = {}
        self._lost: dict[str, float] = {}
        #: what meet() has to give, and has given: rows and their position
        self._asks = False
        self._given: tuple[list[Row], int] = ([], 0)
        self._met = threading.Event()
        self._is_open = False
        self._failed_at = 0.0
        self._deadline: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flowerbed-history", daemon=True)

    # ------------------------------------------------------------------ any thread

    def put(self, record: Record) -> None:
        """Hands over what is now known of a task; the record may change afterwards."""
        row = row_of(record)
        with self._lock:
            self._put(row)

    def mark_lost(self, worker: str, before: float) -> None:
        """Has tasks marked that `worker` left STARTED and of which nothing was heard since `before`."""
        with self._lock:
            self._lost[worker] = before

    def meet(self) -> None:
        """Called again and again by the thread that puts and counts, where both are done: see `look` above."""
        if not self._asks:
            return
        with self._lock:
            if self._asks:
                self._asks = False
                self._given = self._take(), self._look() if self._look is not None else 0
        self._met.set()

    @property
    def opened(self) -> bool:
        """Whether the database was reached, and told of former runs."""
        return self._on_loaded is None and self._on_tasks is None and self.stats.last_written is not None

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def backlog(self) -> int:
        """Rows that wait for the database."""
        return len(self._buffer.rows)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> int:
        """Writes what waits, for up to `seconds`, and ends the thread; gives the number of rows that are left."""
        self._deadline = time.monotonic() + seconds
        # nobody counts any more: now is as good as any moment
        self._stopping.set()
        self.meet()
        self._thread.join(seconds + 1)
        if left := self.backlog:
            logger.error("%s tasks were not written to the history in %s s: %s", left, seconds, self.stats.problem)
        return left

    def _put(self, row: Row) -> None:
        buffer = self._buffer
        rows = buffer.rows
        old = rows.get(row[0])
        if old is not None and _knows_more(old, row):
            row = merged(old, row)
        rows[row[0]] = row
        if len(rows) > min(UNWEIGHED_ROWS, self._most_rows):
            self._bound(buffer, row, old)

    def _bound(self, buffer: _Buffer, row: Row, old: Row | None) -> None:
        """Drops the oldest rows when there are too many; `row` was just put in place of `old`."""
        rows = buffer.rows
        if buffer.size is None:
            buffer.size = sum(map(_size, rows.values()))
        else:
            buffer.size += _size(row) - (0 if old is None else _size(old))
        while len(rows) > self._most_rows or (buffer.size > self._most_bytes and len(rows) > UNWEIGHED_ROWS):
            buffer.size -= _size(rows.popitem(last=False)[1])
            self.stats.dropped += 1

    # ------------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        wait = self._first_wait
        while True:
            stopping = self._stopping.is_set()
            failures = self.stats.failures
            try:
                self._turn()
                wait = self._first_wait
            except HistoryError as error:
                self._failed(error)
            except Exception as error:  # the thread must not end before the collector does
                logger.exception("The history's writer failed")
                self._failed(HistoryError("other", f"The history cannot be written: {type(error).__name__}."))
            if stopping and (self._is_past_deadline() or (self.stats.failures == failures and not self.backlog)):
                break
            if self.stats.problem is not None:
                self._wait(wait * random.uniform(0.75, 1.25))  # noqa: S311 - jitter is no secret
                wait = min(wait * 2, LONGEST_WAIT)
            else:
                self._stopping.wait(self._batch_seconds)
        self._store.close()

    def _wait(self, seconds: float) -> None:
        """Waits between attempts; when stopping, shortly, since there is a deadline."""
        if self._stopping.is_set():
            time.sleep(min(seconds, 0.2))
        else:
            self._stopping.wait(seconds)

    def _is_past_deadline(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _turn(self) -> None:
        """Writes a batch and prunes a little."""
        if not self._is_open:
            self._open()
        given = self._together()
        if given is not None:
            rows, position = given
            if self._counters is not None:
                self._unsaved.update({(name, labels): value for name, labels, value in self._counters()})
            self._write(rows)
            self.safe = position
        self._mark_lost()
        if not self._stopping.is_set() and (now := self._clock()) is not None:
            self._retention.run(self._store, now, PRUNE_SECONDS)
            self.stats.pruned = self._retention.pruned
            if self.stats.problem is not None:
                self._well()

    def _open(self) -> None:
        """Connects, upgrades, and tells what former runs have left, once."""
        self._store.connect()
        if self._on_tasks is not None:
            self._on_tasks(recent(self._store))
            self._on_tasks = None
        if self._on_loaded is not None:
            self._on_loaded(self._store.counters())
            self._on_loaded = None
        self._is_open = True
        self._well()

    def _together(self) -> tuple[list[Row], int] | None:
        """All rows that wait, and the position that they are of; None when the thread that counts does not come."""
        if self._look is None or self._stopping.is_set():
            with self._lock:
                return self._take(), self._look() if self._look is not None else 0
        self._met.clear()
        self._asks = True
        self._met.wait(MEET_SECONDS)
        with self._lock:
            if self._asks:
                self._asks = False
                return None
            given, self._given = self._given, ([], 0)
            return given

    def _write(self, rows: list[Row]) -> None:
        """Rows and the counters that belong to them."""
        counters = [(name, labels, value) for (name, labels), value in self._unsaved.items()]
        if not rows and not counters:
            return
        begun = time.monotonic()
        try:
            while len(rows) > BATCH_ROWS:
                self._store.write(rows[:BATCH_ROWS])
                self.stats.written += BATCH_ROWS
                rows = rows[BATCH_ROWS:]
            self._store.write(rows, counters)
        except BaseException:
            self._put_back(rows)
            raise
        self._unsaved.clear()
        self.stats.batches += 1
        self.stats.written += len(rows)
        self.stats.refused = self._store.refused
        self.stats.batch_seconds = time.monotonic() - begun
        self._well()

    def _take(self) -> list[Row]:
        """All rows that wait, the oldest first; under the lock."""
        rows = list(self._buffer.rows.values())
        self._buffer = _Buffer()
        return rows

    def _put_back(self, rows: list[Row]) -> None:
        """Puts rows that were not written before those that came since."""
        with self._lock:
            newer = self._buffer.rows
            older = {row[0]: row for row in rows}
            for uuid in older.keys() & newer.keys():
                if _knows_more(older[uuid], newer[uuid]):
                    newer[uuid] = merged(older[uuid], newer[uuid])
            # the next put() sees to it that they are not too many
            self._buffer = _Buffer(OrderedDict({**older, **newer}))

    def _mark_lost(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, {}
        try:
            while lost:
                worker, before = next(iter(lost.items()))
                self._store.mark_lost(worker, before)
                del lost[worker]
        finally:
            with self._lock:
                self._lost = {**lost, **self._lost}

    def _well(self) -> None:
        self.stats.last_written = time.time()
        problem = self.stats.problem
        if problem is None or (problem.kind == "full" and time.monotonic() - self._failed_at < ROOM_SECONDS):
            return
        logger.warning("The history is written again; %s tasks waited.", self.backlog)
        self.stats.problem = None

    def _failed(self, error: HistoryError) -> None:
        self.stats.failures += 1
        self._failed_at = time.monotonic()
        if self.stats.problem is None or str(self.stats.problem) != str(error):
            logger.error("%s Tasks wait in memory until it is well; metrics are not concerned.", error)
        self.stats.problem = error
        # what comes back may be another database
        self._is_open = False


def _knows_more(old: Row, row: Row) -> bool:
    """Whether a later row of the same task may lack what an earlier one has.

    The Folder had forgotten the task in between, or its texts, as it does when a task has ended.
    """
    return old[SEEN] != row[SEEN] or old[_FINISHED] is not None


def _size(row: Row) -> int:
    """About the bytes that a row takes in memory."""
    return ROW_BYTES + sum(len(row[number]) for number in _TEXTS if row[number] is not None)
