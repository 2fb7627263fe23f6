"""Tasks and counters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXTS_1 = ("queue", "worker", "producer", "root_id", "parent_id", "group_id")
TIMES = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected", "finished")
TEXTS_2 = ("args", "kwargs", "result", "exception", "traceback", "eta", "expires")
#: how selective an index is, for SQLite's planner: rows, and rows for each value of its first column, first two …
#: (https://sqlite.org/fileformat2.html#stat1tab).  Without these it takes a queue for as rare as the name of a task,
#: and its own ANALYZE, where it is bounded, gives numbers that do not fit each other and plans that sort all rows.
STATISTICS = {
    "sqlite_autoindex_tasks_1": "10000000 1",
    "tasks_started": "10000000 1",
    "tasks_received": "10000000 1",
    "tasks_seen": "10000000 1",
    "tasks_name": "10000000 20000 1 1",
    "tasks_worker": "10000000 100000 1 1",
    "tasks_state": "10000000 500000 1",
    "tasks_queue": "10000000 1000000 1 1",
    "tasks_parent": "1000000 5",
    "tasks_root": "1000000 5",
    "tasks_group": "1000000 5",
}


def upgrade() -> None:
    """Tasks and counters."""
    op.create_table(
        "tasks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("precedence", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text) for name in TEXTS_1),
        *(sa.Column(name, sa.Double) for name in (*TIMES, "wait_seconds", "runtime_seconds")),
        sa.Column("retries", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text) for name in TEXTS_2),
        sa.Column("lost", sa.Boolean, nullable=False),
        sa.Column("tags", sa.Text),
        sa.Column("seen", sa.Double, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("labels", sa.Text, primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
    )
    # SQLite has nulls last in descending order and does not let an index say so; PostgreSQL has them first
    order = "DESC NULLS LAST" if op.get_bind().dialect.name == "postgresql" else "DESC"
    newest = sa.text(f"started {order}")
    op.create_index("tasks_started", "tasks", [newest])
    op.create_index("tasks_received", "tasks", [sa.text(f"received {order}")])
    op.create_index("tasks_state", "tasks", ["state", newest])
    for column in ("name", "worker", "queue"):
        op.create_index(f"tasks_{column}", "tasks", [column, newest, "state"])
    # for retention
    op.create_index("tasks_seen", "tasks", ["seen"])
    # for trees of tasks; a task that is its own root is not looked for
    partial = (
        ("parent_id", "parent_id IS NOT NULL"),
        ("root_id", "root_id <> id"),
        ("group_id", "group_id IS NOT NULL"),
    )
    for column, where in partial:
        condition = sa.text(where)
        name = f"tasks_{column.removesuffix('_id')}"
        op.create_index(name, "tasks", [column], sqlite_where=condition, postgresql_where=condition)
    if op.get_bind().dialect.name == "sqlite":
        # makes the table of statistics
        op.execute("ANALYZE")
        table = sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat"))
        op.bulk_insert(table, [{"tbl": "tasks", "idx": index, "stat": stat} for index, stat in STATISTICS.items()])
