"""Indexes by name, worker and queue have the state before the start; one for the slowest tasks; numbers in PostgreSQL.

A page of a worker's failures is then read in the order of the index, and one of all its tasks from one range for each
state.  Tasks have numbers in their order of coming, which SQLite gives by itself: the index of words goes by them.
Where there are 10 million tasks this takes minutes, during which the collector keeps new ones in memory.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

#: index -> columns before the start, and after it
INDEXES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tasks_name": (("name", "state"), ()),
    # with the queue, so that no task is fetched to see that a worker took none from it
    "tasks_worker": (("worker", "state"), ("queue",)),
    "tasks_queue": (("queue", "state"), ()),
}
#: as in 0001
STATISTICS = {
    "tasks_name": "10000000 20000 2000 1",
    "tasks_worker": "10000000 100000 10000 1 1",
    "tasks_queue": "10000000 1000000 50000 1",
    "tasks_slow": "1000000 1",
}


def upgrade() -> None:
    """Makes indexes anew."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    order = "DESC NULLS LAST" if is_postgresql else "DESC"
    if is_postgresql:
        op.execute("SET LOCAL statement_timeout = 0")
        op.execute("SET LOCAL maintenance_work_mem = '256MB'")
        op.execute("ALTER TABLE tasks ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY")
        op.create_index("tasks_number", "tasks", ["number"])
    for index, (before, after) in INDEXES.items():
        op.drop_index(index, "tasks")
        op.create_index(index, "tasks", [*before, sa.text(f"started {order}"), *after])
    # few tasks run for a second; an index of all run times would be written in another place for each task
    slow = sa.text("runtime_seconds >= 1")
    op.create_index(
        "tasks_slow", "tasks", [sa.text(f"runtime_seconds {order}")], sqlite_where=slow, postgresql_where=slow
    )
    if not is_postgresql:
        table = sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat"))
        op.execute(table.delete().where(table.c.idx.in_(list(STATISTICS))))
        op.bulk_insert(table, [{"tbl": "tasks", "idx": index, "stat": stat} for index, stat in STATISTICS.items()])
