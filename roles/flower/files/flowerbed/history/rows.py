"""What is read of the history, and the plainest ways to read it."""

# ruff: noqa: S608  # names of columns are put into statements, values are bound
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from flowerbed.history.reading import Session

#: the most tasks that are counted one by one, and values of a column
MOST_COUNTED, MOST_VALUES = 10_000, 2000


class Task(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of schema.tasks: times are seconds since 1970, durations seconds; None is "not known"."""

    id: str
    name: str | None
    state: str
    queue: str | None
    worker: str | None
    producer: str | None
    root_id: str | None
    parent_id: str | None
    group_id: str | None
    sent: float | None
    received: float | None
    started: float | None
    succeeded: float | None
    failed: float | None
    retried: float | None
    revoked: float | None
    rejected: float | None
    finished: float | None
    wait_seconds: float | None
    runtime_seconds: float | None
    retries: int
    args: str | None
    kwargs: str | None
    result: str | None
    exception: str | None
    traceback: str | None
    eta: str | None
    expires: str | None
    lost: bool
    tags: str | None
    seen: float
    updated: float


#: of the table, in this order
COLUMNS = Task.__struct_fields__


@dataclass(frozen=True)
class Page:
    """Some of the tasks that were asked for, in their order."""

    tasks: list[Task]
    #: how many tasks match; at least so many when it is not exact
    matching: int
    matching_exact: bool
    #: how many tasks are remembered; about so many when it is not exact
    total: int
    total_exact: bool
    #: tasks that the collector saw before this time (seconds since 1970) were not looked at; None when all were
    searched_back_to: float | None = None


@dataclass(frozen=True)
class Tree:
    """A task with its relatives, sorted by when they were received; `root` may be unknown to the history."""

    root: str
    tasks: list[Task]
    #: there are more, which were left out
    cut: bool


def task_of(row: Any) -> Task:
    """A row with all columns as a Task."""
    task = dict(zip(COLUMNS, row, strict=True))
    # SQLite has no truth values
    return Task(**{**task, "lost": bool(task["lost"])})


def tasks(session: Session, where: str, parameters: dict[str, Any]) -> list[Task]:
    """The tasks for which a condition holds."""
    return [task_of(row) for row in session.fetch(f"SELECT {', '.join(COLUMNS)} FROM tasks WHERE {where}", parameters)]


def values(session: Session, column: str) -> list[str]:
    """The values of a column that has an index, each looked up from the one before it; one more than MOST_VALUES."""
    found = session.fetch(
        f"WITH RECURSIVE each(value) AS (SELECT min({column}) FROM tasks UNION ALL"
        f" SELECT (SELECT min({column}) FROM tasks WHERE {column} > each.value) FROM each WHERE each.value IS NOT NULL)"
        f" SELECT value FROM each WHERE value IS NOT NULL LIMIT {MOST_VALUES + 1}"
    )
    return [value for (value,) in found]


def total(session: Session) -> tuple[int, bool]:
    """How many tasks there are: exactly when they are few."""
    if session.is_sqlite:
        # rows have numbers in their order of coming, and the oldest are pruned
        first, last = session.fetch("SELECT (SELECT min(rowid) FROM tasks), (SELECT max(rowid) FROM tasks)")[0]
        about = 0 if last is None else last - first + 1
    else:
        about = int(session.fetch("SELECT reltuples FROM pg_class WHERE oid = to_regclass('tasks')")[0][0])
    if about > MOST_COUNTED:
        return about, False
    counted = session.fetch(f"SELECT count(*) FROM (SELECT 1 FROM tasks LIMIT {MOST_COUNTED + 1}) AS few")[0][0]
    return counted, counted <= MOST_COUNTED
