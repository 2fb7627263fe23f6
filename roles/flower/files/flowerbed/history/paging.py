"""How a page of tasks is made of a search, in the time that there is.

In one of these ways, whichever is the first that can:

1. Sorted by start, and filtered by what an index has before the start: the first rows of some ranges of that index.
2. All that matches is gathered and sorted, if it is not too much: from the index of a filter, or from that of words.
3. The rows are looked at in the order of the page, in steps, until it is full.  This is tried shortly before 2.: what
   is common fills a page at once, and what is rare can be gathered.
4. What was gathered until then, which is the newest; the page says how far back that goes.
"""

# ruff: noqa: S608  # names of columns and numbers are put into statements, values are bound
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any

from flowerbed.history.conditions import Conditions, Filters, filters, sources
from flowerbed.history.reading import Session, TimeUpError
from flowerbed.history.rows import COLUMNS, MOST_VALUES, Page, Task, task_of, total, values
from flowerbed.history.search import Search, SearchError
from flowerbed.history.words import PART_NUMBERS, Index, number, opened

#: columns that have an index in their order; of runtime_seconds only for what took a second
_ORDERED = {"received": "tasks_received", "started": "tasks_started", "runtime_seconds": "tasks_slow"}
TOO_DEEP = "So many tasks cannot be gone through: narrow the search, with until: for example."
#: by the numbers of tasks only; by their ids
NO_INDEX, ID_INDEX = "none", "sqlite_autoindex_tasks_1"
#: columns of a filter -> its index, the most selective first
_INDEXES = {"name": "tasks_name", "worker": "tasks_worker", "queue": "tasks_queue", "state": "tasks_state"}
#: all states that a task can have (collector.tasks)
STATES = ("PENDING", "RECEIVED", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED", "REJECTED")
#: what of them is in it
_INDEXED = {
    "received": "received IS NOT NULL",
    "started": "started IS NOT NULL",
    "runtime_seconds": "runtime_seconds >= 1",
}
#: of the time of a page, in seconds: for looking at the first rows for words, and for what filters let through
QUICK_SECONDS, FILTER_SECONDS = 0.015, 0.06
#: for gathering, for a scan that may find nothing, and what is kept for fetching what was found
GATHER_SECONDS, SCAN_SECONDS, RESERVED_SECONDS = 0.6, 0.2, 0.3
#: the most rows that are gathered by filters: before a scan is tried, and after it
MOST_FEW, MOST_SORTED = 500, 2500
#: the most rows that are gathered by words, or are counted, and of those that the index of words has only in part
MOST_GATHERED, MOST_LATE = 5000, 1000
#: what counting may take, in seconds
COUNT_SECONDS = 0.02
#: how many rows that are not yet in the index of words, or that it names, are looked at in one statement
STEP_NUMBERS, STEP_NAMED = 10_000, 1000
#: the most ranges of an index that a page is put together from
MOST_RANGES = 64
#: rows of the first step and of the largest one, and the seconds that make the next one larger
FIRST_STEP, LARGEST_STEP, STEP_SECONDS = 1000, 50_000, 0.01


#: number, what is sorted by, seen
_Row = tuple[int, Any, float]


@dataclass
class _Found:
    """Rows, and what is known of the others."""

    rows: list[_Row] = field(default_factory=list)
    #: nothing else matches
    is_whole: bool = True
    #: time was up, or too much matched: older tasks than this were not looked at (seconds since 1970)
    back_to: float | None = None


class TooManyError(Exception):
    """The index of words names so many tasks that looking at the newest is quicker."""


class Pages:
    """One search."""

    def __init__(self, session: Session, words: Path | None, search: Search, sort: str, descending: bool) -> None:
        self._session = session
        self._words = words
        self._sort, self._descending = sort, descending
        self._known: dict[str, list[str] | None] = {}
        self._filters = filters(search, self._values)
        self._number = number(session.is_sqlite)
        self._columns = f"{self._number}, {sort}, seen"

    def page(self, offset: int, limit: int) -> Page:
        """The tasks from `offset` on; raises SearchError when they are too far."""
        all_tasks, is_exact = total(self._session)
        found = _Found()
        first = 0
        if self._is_all():
            # the rows before the page need not be fetched
            found, first = self._ordered(offset, limit), offset
        elif not self._filters.is_empty:
            try:
                # one more tells whether there is a next page
                found = self._find(offset + limit + 1)
            except TimeUpError:
                if offset:
                    raise SearchError(TOO_DEEP) from None
                raise
        chosen = found.rows[offset - first :][:limit]
        matching = first + len(found.rows)
        matching_exact = found.is_whole
        if self._is_all():
            matching, matching_exact = all_tasks, is_exact
            if not found.rows and offset < all_tasks and limit:
                raise SearchError(TOO_DEEP)
        elif not found.is_whole and found.back_to is None and not self._filters.rest:
            matching, matching_exact = self._count(matching)
        tasks = dict(self._fetch([row[0] for row in chosen]))
        return Page(
            # one may have been pruned meanwhile
            [tasks[row[0]] for row in chosen if row[0] in tasks],
            matching,
            matching_exact,
            max(all_tasks, matching),
            is_exact,
            found.back_to,
        )

    def _is_all(self) -> bool:
        """Nothing is asked for, and it comes in the order of an index."""
        return self._filters == Filters() and self._sort in ("received", "started")

    def _is_ordered(self) -> bool:
        """An index has the rows in the order of the page, at least the first of them."""
        return self._sort in _ORDERED and (self._descending or self._sort != "runtime_seconds")

    def _find(self, need: int) -> _Found:
        """The first `need` rows, at least, if there are so many."""
        if self._sort == "started" and self._ranges():
            return self._from_ranges(need)
        has_words = self._filters.rest is not None
        few = None if has_words else self._gather(MOST_FEW)
        if few is not None and few.is_whole:
            return self._sorted(few)
        scanned = _Found(is_whole=False)
        if self._is_ordered():
            seconds = QUICK_SECONDS if has_words else FILTER_SECONDS
            scanned = self._scan(self._sort, self._descending, need, seconds)
            if scanned.is_whole or len(scanned.rows) >= need:
                return scanned
        gathered = self._gather(MOST_SORTED)
        if gathered is not None and gathered.is_whole:
            return self._sorted(gathered)
        return self._slowly(need, gathered)

    def _slowly(self, need: int, gathered: _Found | None) -> _Found:
        """What can be found of a search that no index answers; `gathered` is what was gathered until then."""
        scanned = _Found(is_whole=False)
        # what the index of words gave until its time was up goes further back than a scan comes
        is_far = gathered is not None and gathered.back_to is not None and len(gathered.rows) <= MOST_GATHERED
        if self._is_ordered() and not is_far:
            is_newest = self._sort == "received" and self._descending
            seconds = self._session.left - RESERVED_SECONDS if is_newest else SCAN_SECONDS
            scanned = self._scan(self._sort, self._descending, need, seconds)
            if is_newest or scanned.is_whole or len(scanned.rows) >= need:
                return scanned
        if not is_far or gathered is None:
            gathered = self._scan("received", True, MOST_GATHERED, SCAN_SECONDS)
            if not gathered.is_whole and gathered.back_to is None:
                gathered.back_to = gathered.rows[-1][2]
        if self._sort == "runtime_seconds":
            gathered.rows = list({row[0]: row for row in (*gathered.rows, *scanned.rows)}.values())
        return self._sorted(gathered)

    def _sorted(self, found: _Found) -> _Found:
        found.rows.sort(key=lambda row: row[0], reverse=not self._descending)
        found.rows.sort(key=_key, reverse=self._descending)
        return found

    # -------------------------------------------------------------- 1. ranges of an index

    def _ranges(self) -> list[tuple[str, dict[str, str]]]:
        """Index and values of its columns before the start, for each range; none when there is no such index."""
        asked = self._filters
        if asked.rest is not None or asked.is_empty or not set(asked.ranges) <= {"started"}:
            return []
        states = asked.values.get("state")
        columns = [column for column in asked.values if column != "state"]
        if not columns:
            return [("tasks_state", {"state": state}) for state in states] if states else [("tasks_started", {})]
        if len(columns) > 1:
            return []
        column = columns[0]
        ranges = [
            (_INDEXES[column], {column: value, "state": state})
            for value in asked.values[column]
            for state in states or STATES
        ]
        return ranges if len(ranges) <= MOST_RANGES else []

    def _from_ranges(self, need: int) -> _Found:
        found = _Found()
        for index, fixed in self._ranges():
            asked = Conditions(self._session.is_sqlite)
            parts = [asked.one_of(column, (value,)) for column, value in fixed.items()]
            for column, bounds in self._filters.ranges.items():
                parts += asked.between(column, *bounds)
            rows = self._rows(index, parts, asked, _order("started", self._descending), need)
            found.rows += rows
            found.is_whole &= len(rows) < need
        # those of the same start stay as they are: each range goes on with the next page where it ended with this one
        found.rows.sort(key=_key, reverse=self._descending)
        return found

    def _count(self, least: int) -> tuple[int, bool]:
        """How many rows match, up to MOST_GATHERED; of what was found there are `least`."""
        asked = Conditions(self._session.is_sqlite)
        parts = asked.all(self._filters)
        where = f"WHERE {' AND '.join(parts)}" if parts else ""
        most = max(MOST_GATHERED, least)
        index = self._index()
        try:
            with self._session.within(COUNT_SECONDS):
                counted = self._session.fetch(
                    f"SELECT count(*) FROM (SELECT 1 FROM tasks {self._by(index)} {where} LIMIT {most + 1}) AS few",
                    asked.parameters,
                )[0][0]
        except TimeUpError:
            return least, False
        return (most, False) if counted > most else (counted, True)

    # -------------------------------------------------------------- 2. gathering

    def _gather(self, most: int) -> _Found | None:
        """All rows that match, or the newest of them; None when there is no index for it."""
        try:
            with self._session.within(GATHER_SECONDS):
                # an index of words names fewer than that of a filter, as a rule
                found = self._gather_words()
                return self._gather_values(most) if found is None else found
        except (TimeUpError, TooManyError):
            return None

    def _gather_values(self, most: int) -> _Found | None:
        if not self._filters.values:
            return None
        asked = Conditions(self._session.is_sqlite)
        rows = self._rows(self._index(), asked.all(self._filters), asked, "", most + 1)
        return _Found(rows, len(rows) <= most)

    def _gather_words(self) -> _Found | None:
        wanted = sources(self._filters.rest, self._values) if self._filters.rest is not None else None
        if wanted is None:
            return None
        with opened(self._words) as index:
            if wanted.match is not None and index is None:
                return None
            rows: dict[int, _Row] = {}
            found = _Found()
            for column, chosen in wanted.values:
                asked = Conditions(self._session.is_sqlite)
                found.is_whole &= self._add(rows, asked.one_of(column, chosen), asked, _INDEXES[column])
            for uuid in wanted.ids:
                asked = Conditions(self._session.is_sqlite)
                found.is_whole &= self._add(rows, asked.begins("id", uuid), asked, ID_INDEX)
            if wanted.match is not None and index is not None:
                found.back_to = self._add_words(rows, index, wanted.match)
            found.rows = list(rows.values())
            found.is_whole &= found.back_to is None and len(rows) <= MOST_GATHERED
            return found

    def _add(self, rows: dict[int, _Row], condition: str, asked: Conditions, index: str | None = None) -> bool:
        """Adds the rows for which a condition holds beside all others; False when there are too many."""
        found = self._rows(index, [condition, *asked.all(self._filters)], asked, "", MOST_GATHERED + 1)
        rows.update((row[0], row) for row in found)
        return len(found) <= MOST_GATHERED

    def _add_words(self, rows: dict[int, _Row], index: Index, match: str) -> float | None:
        """Adds rows that the index of words names, the newest first; gives the time that it has come to if not all."""
        reached: int | None = None
        try:
            for begin, end in self._young(index.frontier):
                young = f"{self._number} >= {begin} AND {self._number} < {end}"
                self._add(rows, young, Conditions(self._session.is_sqlite), NO_INDEX)
                reached = begin
            self._add_numbers(rows, index.late(MOST_LATE))
            for part in index.parts:
                numbers = index.holding(part, match, monotonic() + self._session.left)
                if len(numbers) > MOST_GATHERED:
                    # as good as everywhere
                    raise TooManyError
                self._add_numbers(rows, numbers)
                reached = part * PART_NUMBERS
                if len(rows) > MOST_GATHERED:
                    break
            else:
                return None
        except TimeUpError:
            pass
        return self._seen(reached)

    def _add_numbers(self, rows: dict[int, _Row], numbers: list[int]) -> None:
        for begin in range(0, len(numbers), STEP_NAMED):
            some = ", ".join(map(str, numbers[begin : begin + STEP_NAMED]))
            self._add(rows, f"{self._number} IN ({some})", Conditions(self._session.is_sqlite), NO_INDEX)

    def _young(self, frontier: int) -> Iterator[tuple[int, int]]:
        """Ranges of numbers that are not in the index of words, the newest first."""
        end = (self._session.fetch(f"SELECT max({self._number}) FROM tasks")[0][0] or 0) + 1
        while end > frontier:
            begin = max(end - STEP_NUMBERS, frontier)
            yield begin, end
            end = begin

    def _seen(self, reached: int | None) -> float:
        """When the first task from a number on came; now, if none was reached."""
        if reached is None:
            return time()
        found = self._session.fetch(
            f"SELECT seen FROM tasks WHERE {self._number} >= {reached} ORDER BY {self._number} LIMIT 1"
        )
        return float(found[0][0]) if found else time()

    def _index(self) -> str | None:
        values = self._filters.values
        # this one has both
        if "worker" in values and "queue" in values:
            return _INDEXES["worker"]
        return next((index for column, index in _INDEXES.items() if column in values), None)

    # -------------------------------------------------------------- 3. in the order of the page

    def _ordered(self, offset: int, limit: int) -> _Found:
        """The rows of a page of all tasks."""
        order = self._order(self._sort, self._descending)
        try:
            return _Found(self._rows(_ORDERED[self._sort], [], Conditions(True), order, limit, offset))
        except TimeUpError:
            return _Found()

    def _scan(self, key: str, descending: bool, need: int, seconds: float) -> _Found:
        """Looks at rows in the order of an index until `need` match, or time is up after some of the steps."""
        found = _Found(is_whole=False)
        order = self._order(key, descending)
        edge: float | None = None
        until = monotonic() + seconds
        try:
            for parts, parameters, next_edge in self._steps(key, descending):
                asked = Conditions(self._session.is_sqlite)
                conditions = asked.all(self._filters, (key,))
                asked.parameters.update(parameters)
                rows = self._rows(_ORDERED[key], [*parts, *conditions], asked, order, need - len(found.rows))
                found.rows += rows
                if len(found.rows) >= need:
                    return found
                edge = next_edge if next_edge is not None else edge
                # not within a step: on a busy machine the first one would never end
                if monotonic() > until:
                    raise TimeUpError
        except TimeUpError:
            found.back_to = edge if edge is not None and key != "runtime_seconds" else time()
            return found
        # of run times only the long ones are in order
        found.is_whole = key != "runtime_seconds"
        return found

    def _steps(self, key: str, descending: bool) -> Iterator[tuple[list[str], dict[str, float], float | None]]:
        """Ranges of `key`, one after the other, as conditions; each with where it ends."""
        least, largest = self._filters.ranges.get(key, (None, None))
        has_nulls = least is None and largest is None and key != "runtime_seconds"
        if has_nulls and not descending:
            yield [f"{key} IS NULL"], {}, None
        edge = largest if descending else least
        inclusive = "=" if edge is not None else ""
        size = FIRST_STEP
        while True:
            begun = monotonic()
            beyond = self._beyond(key, descending, edge, inclusive, least if descending else largest, size)
            first, last = ("<", ">=") if descending else (">", "<=")
            parts, parameters = [_INDEXED[key]], {}
            if edge is not None:
                parts.append(f"{key} {first}{inclusive} :edge")
                parameters["edge"] = edge
            final = beyond if beyond is not None else (least if descending else largest)
            if final is not None:
                parts.append(f"{key} {last} :beyond")
                parameters["beyond"] = final
            yield parts, parameters, beyond
            if beyond is None:
                break
            edge, inclusive = beyond, ""
            if monotonic() - begun < STEP_SECONDS:
                size = min(size * 2, LARGEST_STEP)
        if has_nulls and descending:
            yield [f"{key} IS NULL"], {}, None

    def _beyond(
        self, key: str, descending: bool, edge: float | None, inclusive: str, end: float | None, size: int
    ) -> float | None:
        """The key of the row that is `size` rows further; None when there are not so many."""
        first, last = ("<", ">=") if descending else (">", "<=")
        parts = [_INDEXED[key]]
        parameters: dict[str, float] = {}
        for sign, name, value in ((f"{first}{inclusive}", "edge", edge), (last, "stop", end)):
            if value is not None:
                parts.append(f"{key} {sign} :{name}")
                parameters[name] = value
        found = self._session.fetch(
            f"SELECT {key} FROM tasks {self._by(_ORDERED[key])} WHERE {' AND '.join(parts)}"
            f" {self._order(key, descending)} LIMIT 1 OFFSET {size}",
            parameters,
        )
        return found[0][0] if found else None

    # -------------------------------------------------------------- statements

    def _rows(
        self, index: str | None, parts: list[str], asked: Conditions, order: str, limit: int, offset: int = 0
    ) -> list[_Row]:
        where = f"WHERE {' AND '.join(parts)}" if parts else ""
        statement = f"SELECT {self._columns} FROM tasks {self._by(index)} {where} {order} LIMIT {limit} OFFSET {offset}"
        return [(row[0], row[1], row[2]) for row in self._session.fetch(statement, asked.parameters)]

    def _by(self, index: str | None) -> str:
        """For SQLite, which would take any index of a filter; PostgreSQL knows from its statistics."""
        if not self._session.is_sqlite or index is None:
            return ""
        return "NOT INDEXED" if index == NO_INDEX else f"INDEXED BY {index}"

    def _order(self, key: str, descending: bool) -> str:
        """With the numbers for those of one key: SQLite's indexes have them, PostgreSQL's have rows as they lie."""
        ties = f", {self._number} {'ASC' if descending else 'DESC'}" if self._session.is_sqlite else ""
        return _order(key, descending) + ties

    def _fetch(self, numbers: list[int]) -> Iterator[tuple[int, Task]]:
        if not numbers:
            return
        some = ", ".join(map(str, numbers))
        for row in self._session.fetch(
            f"SELECT {self._number}, {', '.join(COLUMNS)} FROM tasks WHERE {self._number} IN ({some})"
        ):
            yield row[0], task_of(row[1:])

    def _values(self, column: str) -> list[str] | None:
        if column not in self._known:
            found = values(self._session, column)
            self._known[column] = found if len(found) <= MOST_VALUES else None
        return self._known[column]


def _order(key: str, descending: bool) -> str:
    return f"ORDER BY {key} {'DESC NULLS LAST' if descending else 'ASC NULLS FIRST'}"


def _key(row: _Row) -> tuple[bool, Any]:
    value = row[1]
    return value is not None, value.casefold() if isinstance(value, str) else value or 0
