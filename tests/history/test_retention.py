"""What retention deletes, in which order, in how large steps; and the plans of the queries that pages are made of."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from flowerbed.collector.tasks import Record
from flowerbed.history import retention
from flowerbed.history.retention import Limits, Retention
from flowerbed.history.schema import row_of
from flowerbed.history.store import Store, open_store


def filled(url: str, rows: int, args: str | None = None) -> Store:
    store = open_store(url)
    store.write([
        row_of(Record(id=str(number), seen=float(number), name=f"task{number % 7}", started=float(number), args=args,
                      state="SUCCESS" if number % 10 else "FAILURE", worker=f"w{number % 3}", queue=f"q{number % 4}"))
        for number in range(rows)
    ])  # fmt: skip
    return store


def numbers(store: Store) -> list[int]:
    with store.transaction() as connection:
        return [int(uuid) for (uuid,) in connection.execute(text("SELECT id FROM tasks ORDER BY seen"))]


def run(store: Store, limits: Limits, now: float = 3000.0) -> Retention:
    pruning = Retention(limits, clock=itertools.count(0.0, 0.001).__next__)
    while pruning.run(store, now, 0.01):
        pass
    return pruning


def test_by_age(url: str) -> None:
    store = filled(url, 3000)
    assert run(store, Limits(seconds=1000.0)).pruned == 2000
    assert numbers(store) == list(range(2000, 3000))
    store.close()


def test_by_number(url: str) -> None:
    store = filled(url, 3000)
    pruned = run(store, Limits(seconds=None, rows=1234)).pruned
    assert numbers(store) == list(range(pruned, 3000))
    assert len(numbers(store)) == 1234 - 12
    store.close()


def test_by_size(url: str) -> None:
    store = filled(url, 3000, args=os.urandom(1500).hex())
    with store.transaction() as connection:
        if store.is_sqlite:
            _, size = retention._sqlite_usage(connection)
        else:
            size = retention._postgresql_bytes(connection, 3000)
    pruned = run(store, Limits(seconds=None, size=size // 2)).pruned
    assert 1300 < pruned < 1700
    assert numbers(store) == list(range(pruned, 3000))
    # room that is free in PostgreSQL's files is no reason to delete more
    # and pages of SQLite's indexes that are half empty are one for a few rows only
    assert run(store, Limits(seconds=None, size=size // 2)).pruned < 50
    store.close()


def test_nothing_to_do_and_nothing_there(url: str) -> None:
    store = filled(url, 10)
    assert run(store, Limits(seconds=10000.0, rows=100, size=10**9)).pruned == 0
    assert run(store, Limits(seconds=None)).pruned == 0
    assert run(store, Limits(seconds=0.0, rows=0, size=1)).pruned == 10
    assert run(store, Limits(seconds=0.0, rows=0, size=1)).pruned == 0
    store.close()


def test_a_step_is_small(url: str) -> None:
    store = filled(url, 3000)
    pruning = Retention(Limits(seconds=0.0), clock=itertools.count().__next__)
    assert pruning.run(store, 1e9, 0.5)
    assert pruning.pruned == retention.STEP_ROWS
    store.close()


def test_the_file_becomes_smaller(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store = filled(f"sqlite:///{path}", 5000, args=os.urandom(1500).hex())
    store.close()
    before = path.stat().st_size
    store = open_store(f"sqlite:///{path}")
    run(store, Limits(seconds=0.0), 1e9)
    store.close()
    assert path.stat().st_size < before / 2


def analyze(store: Store) -> None:
    """PostgreSQL does so by itself; SQLite has numbers of ours, which it reads when it opens the file."""
    if store.is_sqlite:
        store.close()
        return
    with store.transaction() as connection:
        connection.execute(text("ANALYZE tasks"))


WHERE = {
    "": "tasks_started",
    "state = 'FAILURE'": "tasks_state",
    "name = 'task3' AND state = 'FAILURE'": "tasks_name",
    "worker = 'w1' AND state = 'FAILURE'": "tasks_worker",
    "worker = 'w1' AND state = 'FAILURE' AND queue = 'q1'": "tasks_worker",
    "queue = 'q1' AND state = 'FAILURE'": "tasks_queue",
    "started BETWEEN 1000 AND 2000": "tasks_started",
}


@pytest.mark.parametrize("where", WHERE)
def test_a_page_is_read_from_one_index(url: str, where: str) -> None:
    store = filled(url, 3000)
    analyze(store)
    condition = f"WHERE {where}" if where else ""
    by = f"INDEXED BY {WHERE[where]}" if store.is_sqlite else ""
    query = f"SELECT * FROM tasks {by} {condition} ORDER BY started DESC NULLS LAST LIMIT 15"
    with store.transaction() as connection:
        if not store.is_sqlite:
            # a small table is not worth its index
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        explain = "EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN "
        plan = "\n".join(str(line[-1]) for line in connection.exec_driver_sql(explain + query))
    # PostgreSQL may well filter the newest when many of them fit
    assert (WHERE[where] if store.is_sqlite else "tasks_") in plan, plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
    store.close()


def test_the_server_knows_about_how_many_rows_there_are(postgres: Any) -> None:
    store = filled(postgres.url(), 3000)
    with store.transaction() as connection:
        # what a server does not know is taken for too many
        assert retention._postgresql_usage(connection)[0] > 3000
    store.close()


def test_more_time_when_it_was_not_enough(url: str) -> None:
    store = filled(url, 3000)
    pruning = Retention(Limits(seconds=0.0), clock=itertools.count().__next__)
    # the clock goes on by one with each look at it
    assert pruning.run(store, 1e9, 0.9)
    assert pruning.pruned == retention.STEP_ROWS
    assert pruning.run(store, 1e9, 0.9)
    assert pruning.pruned == 3 * retention.STEP_ROWS
    store.close()


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("parent_id = 'x'", "tasks_parent"),
        ("root_id = 'x' AND root_id <> id", "tasks_root"),
        ("group_id = 'x'", "tasks_group"),
    ],
)
def test_a_tree_is_read_from_an_index(url: str, where: str, index: str) -> None:
    store = filled(url, 100)
    analyze(store)
    with store.transaction() as connection:
        if not store.is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN "
        plan: Any = list(connection.exec_driver_sql(f"{explain} SELECT id FROM tasks WHERE {where}"))
    assert index in str(plan)
    store.close()
