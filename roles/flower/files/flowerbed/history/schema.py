"""The history's tables, the rules by which two rows of one task become one, and the statements that follow them.

The columns of `tasks` are the fields of collector.tasks.Record.  A row may be written several times by records that
know different parts (the collector was restarted, or had forgotten the task), hence no row is ever simply replaced.

The indexes are in migrations/versions: a page of tasks sorted by their start, newest first, and filtered by state, or
by name, worker or queue and state, is read from one index in its order; paging.py says what is made of them.  The start
is null for tasks that did not start: those come last.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Boolean, Column, Double, Integer, MetaData, Table, Text

from flowerbed.collector.tasks import Record

#: the revision of migrations/ that these tables are of
REVISION = "0002"

metadata = MetaData()

tasks = Table(
    "tasks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text),
    Column("state", Text, nullable=False),
    Column("precedence", Double, nullable=False),
    Column("queue", Text),
    Column("worker", Text),
    Column("producer", Text),
    Column("root_id", Text),
    Column("parent_id", Text),
    Column("group_id", Text),
    Column("sent", Double),
    Column("received", Double),
    Column("started", Double),
    Column("succeeded", Double),
    Column("failed", Double),
    Column("retried", Double),
    Column("revoked", Double),
    Column("rejected", Double),
    Column("finished", Double),
    Column("wait_seconds", Double),
    Column("runtime_seconds", Double),
    Column("retries", Integer, nullable=False),
    Column("args", Text),
    Column("kwargs", Text),
    Column("result", Text),
    Column("exception", Text),
    Column("traceback", Text),
    Column("eta", Text),
    Column("expires", Text),
    Column("lost", Boolean, nullable=False),
    Column("tags", Text),
    Column("seen", Double, nullable=False),
    Column("updated", Double, nullable=False),
)
counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    #: JSON
    Column("labels", Text, primary_key=True),
    Column("value", Double, nullable=False),
)

#: a row of `tasks` as the values of a Record, in the order of the columns
Row = tuple[Any, ...]
#: name, labels, value
Counter = tuple[str, str, float]

COLUMNS = tuple(column.name for column in tasks.c)
SEEN = COLUMNS.index("seen")
_PRECEDENCE = COLUMNS.index("precedence")
_SMALLEST = ("sent", "seen")
_LARGEST = ("precedence", "succeeded", "failed", "retried", "revoked", "rejected", "retries", "updated")
_FIRST = ("producer", "root_id", "parent_id", "group_id")
#: a rule for each column but the id: of two values that are known the smaller, the larger, the one that was there
#: before, or that of the row with the larger precedence (the new one when both are equal)
RULES = {
    name: next(
        (rule for rule, names in (("smallest", _SMALLEST), ("largest", _LARGEST), ("first", _FIRST)) if name in names),
        "winner",
    )
    for name in COLUMNS[1:]
}
_RULES_BY_NUMBER = [(number, RULES[name]) for number, name in enumerate(COLUMNS) if number]


def row_of(record: Record) -> Row:
    """What is written of a record."""
    return msgspec.structs.astuple(record)


def merged(old: Row, new: Row) -> Row:
    """Two rows of one task as one, by RULES."""
    new_wins = new[_PRECEDENCE] >= old[_PRECEDENCE]
    row = list(old)
    for number, rule in _RULES_BY_NUMBER:
        was, comes = old[number], new[number]
        if comes is None:
            continue
        if was is None:
            takes = True
        elif rule == "winner":
            takes = new_wins
        elif rule == "first":
            takes = False
        else:
            takes = comes > was if rule == "largest" else comes < was
        if takes:
            row[number] = comes
    return tuple(row)


def _assignment(name: str) -> str:
    """One column of ON CONFLICT DO UPDATE SET, in the SQL that SQLite and PostgreSQL share."""
    old, new = f"tasks.{name}", f"excluded.{name}"
    rule = RULES[name]
    if rule == "first":
        value = f"COALESCE({old}, {new})"
    elif rule == "winner":
        wins = "excluded.precedence >= tasks.precedence"
        value = f"CASE WHEN {wins} THEN COALESCE({new}, {old}) ELSE COALESCE({old}, {new}) END"
    else:
        sign = ">" if rule == "largest" else "<"
        value = f"CASE WHEN {old} IS NULL OR {new} {sign} {old} THEN {new} ELSE {old} END"
    return f"{name} = {value}"


_UPDATE = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(_assignment(name) for name in RULES)
_NAMES = ", ".join(COLUMNS)
_TYPES = {Text: "text", Double: "float8", Integer: "integer", Boolean: "boolean"}
_POSTGRESQL_TYPES = ", ".join(f"{column.name} {_TYPES[type(column.type)]}" for column in tasks.c)

#: a row for each set of parameters
UPSERT_SQLITE = f"INSERT INTO tasks ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))}) {_UPDATE}"  # noqa: S608
#: all rows in one parameter, an array of JSON objects: a third of the client's time of a parameter a value
UPSERT_POSTGRESQL = (
    f"INSERT INTO tasks ({_NAMES}) SELECT {_NAMES}"  # noqa: S608
    f" FROM json_to_recordset(%s::json) AS new({_POSTGRESQL_TYPES}) {_UPDATE}"
)
COUNTERS_SQLITE = (
    "INSERT INTO counters (name, labels, value) VALUES (?, ?, ?)"
    " ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value"
)
COUNTERS_POSTGRESQL = (
    "INSERT INTO counters (name, labels, value) SELECT * FROM json_to_recordset(%s::json)"
    " AS new(name text, labels text, value float8)"
    " ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value"
)
