"""Rows of one task become one row, whichever way they come, in both databases; and what databases refuse."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, select

from flowerbed.collector.tasks import Folder, Record
from flowerbed.history import schema
from flowerbed.history import upgrade as upgrading
from flowerbed.history.problems import HistoryError
from flowerbed.history.query import Query, Search
from flowerbed.history.schema import Row, merged, row_of
from flowerbed.history.store import Store, checked_url, open_store
from flowerbed.history.upgrade import upgrade
from flowerbed.redact import Redactor
from flowerbed.settings import Redact, SettingsError
from tests.collector.test_tasks import NOW, STORIES

FILES = Path(__file__).resolve().parents[2] / "roles" / "flower" / "files"


def rows(store: Store) -> dict[str, Row]:
    with store.transaction() as connection:
        return {row[0]: tuple(row) for row in connection.execute(select(schema.tasks))}


def record(uuid: str = "t1", **fields: Any) -> Record:
    return Record(**{"id": uuid, "seen": 1.0, "updated": 1.0, **fields})


def some_rows(seed: int) -> Row:
    chance = random.Random(seed)
    row = row_of(record())
    values: list[Any] = ["t1"]
    for column, value in zip(list(schema.tasks.c)[1:], row[1:], strict=True):
        kind = column.type.python_type
        known = chance.random() < 0.6 or not column.nullable
        made = {
            str: f"v{seed}",
            float: float(chance.randrange(5)),
            int: chance.randrange(3),
            bool: chance.random() < 0.5,
        }
        values.append(made[kind] if known else None if column.nullable else value)
    return tuple(values)


def test_the_columns_are_the_record() -> None:
    assert Record.__struct_fields__ == schema.COLUMNS


def test_the_migrations_make_the_schema(url: str) -> None:
    store = open_store(url)
    store.connect()
    engine = create_engine(checked_url(url))
    found = inspect(engine)
    for table in schema.metadata.sorted_tables:
        # the numbers of PostgreSQL's rows are not ours to write
        columns = [column for column in found.get_columns(table.name) if column["name"] != "number"]
        assert [column["name"] for column in columns] == [column.name for column in table.c]
        assert [column["nullable"] for column in columns] == [column.nullable for column in table.c]
        assert [column["type"].python_type for column in columns] == [column.type.python_type for column in table.c]
    assert len(found.get_indexes("tasks")) == (11 if store.is_sqlite else 12)
    engine.dispose()
    store.close()


def test_a_history_of_the_first_schema_is_upgraded_with_its_tasks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(upgrading, "REVISION", "0001")
        store = open_store(url)
        store.write([row_of(record(str(number), seen=float(number))) for number in range(100)], [("c", "{}", 1.0)])
        written = rows(store)
        store.close()
    store = open_store(url)
    assert rows(store) == written
    assert store.counters() == [("c", "{}", 1.0)]
    store.write([row_of(record("new"))])
    store.close()
    query = Query(url)
    assert query.page(Search()).total == 101
    query.close()


def test_a_migration_that_is_interrupted_leaves_nothing(url: str) -> None:
    store = Store(checked_url(url))
    with pytest.raises(KeyboardInterrupt), store.transaction() as connection:
        upgrade(connection, "here")
        raise KeyboardInterrupt
    with store.transaction() as connection:
        assert inspect(connection).get_table_names() == []
    store.connect()
    store.write([row_of(record())])
    store.close()


def test_the_newest_migration_is_ours() -> None:
    config = Config()
    config.set_main_option("script_location", str(FILES / "flowerbed" / "history" / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


def test_two_that_start_at_once(url: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(FILES)!r})\nfrom flowerbed.history.store import open_store\n"
    code += f"open_store({url!r}).close()"
    started = [subprocess.Popen([sys.executable, "-B", "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate(timeout=60)[1].decode() for process in started] == [""] * 4


def test_a_row_comes_back_as_it_was(url: str) -> None:
    store = open_store(url)
    row = row_of(
        record(name="ä\U0001f33b'\"\\%s:x", state="FAILURE", precedence=2e11 + 1.7e9 + 0.125, retries=2**31 - 1,
               args="x" * 70000, sent=1700000000.123456, lost=True, tags='{"a": 1}', queue="")
    )  # fmt: skip
    store.write([row])
    assert rows(store) == {"t1": row}
    store.close()


def test_the_rules_in_sql_are_those_in_python(url: str) -> None:
    store = open_store(url)
    for seed in range(0, 150, 3):
        history = [(f"t{seed}", *some_rows(seed + number)[1:]) for number in range(3)]
        for row in history:
            store.write([row])
        expected = merged(merged(history[0], history[1]), history[2])
        assert rows(store)[f"t{seed}"] == expected
    store.close()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_task_that_was_forgotten_in_between(data: st.DataObject) -> None:
    """Records that each know some of the events of a task give the state, times and texts of all of them."""
    events, state = STORIES[data.draw(st.sampled_from(sorted(STORIES)))]
    cut = data.draw(st.integers(0, len(events)))
    redactor = Redactor(Redact())
    parts = []
    for number, part in enumerate((events[:cut], events[cut:])):
        folder = Folder(redactor)
        changes = [change for item in part if (change := folder.fold(item, NOW + number))]
        if changes:
            parts.append(row_of(changes[-1].record))
    whole = Folder(redactor)
    for item in events:
        change = whole.fold(item, NOW)
    assert change is not None
    expected = dict(zip(schema.COLUMNS, row_of(change.record), strict=True))
    row = dict(zip(schema.COLUMNS, parts[0] if len(parts) == 1 else merged(*parts), strict=True))
    assert row["state"] == state
    if events[0].type == "task-sent":
        # a retry is sent by its worker
        del row["producer"], expected["producer"]
    # durations between the parts cannot be known
    for name in ("updated", "seen", "wait_seconds", "runtime_seconds", "precedence", "received", "started"):
        del row[name], expected[name]
    assert row == expected


def test_many_rows_and_counters_in_one_transaction(url: str) -> None:
    store = open_store(url)
    store.write([row_of(record(str(number))) for number in range(5000)], [("a", "{}", 1.0), ("a", '{"b": "c"}', 2.5)])
    store.write([], [("a", "{}", 7.0)])
    assert len(rows(store)) == 5000
    assert sorted(store.counters()) == [("a", '{"b": "c"}', 2.5), ("a", "{}", 7.0)]
    store.close()


def test_rows_that_cannot_be_kept_do_not_stop_the_others(url: str) -> None:
    store = open_store(url)
    good = [row_of(record(str(number))) for number in range(20)]
    bad = [
        row_of(msgspec.structs.replace(record("bad1"), name="half a \ud800 surrogate")),
        row_of(msgspec.structs.replace(record("bad2"), retries=2**70)),
    ]
    store.write([*good[:7], bad[0], *good[7:15], bad[1], *good[15:]], [("c", "{}", 1.0)])
    assert set(rows(store)) == {str(number) for number in range(20)}
    assert store.refused == 2
    assert store.counters() == [("c", "{}", 1.0)]
    store.close()


def test_lost_tasks_are_marked(url: str) -> None:
    store = open_store(url)
    left = record("left", state="STARTED", worker="celery@a", updated=100.0)
    store.write(
        [
            row_of(left),
            row_of(record("alive", state="STARTED", worker="celery@a", updated=300.0)),
            row_of(record("done", state="SUCCESS", worker="celery@a", updated=100.0)),
            row_of(record("other", state="STARTED", worker="celery@b", updated=100.0)),
        ]
    )
    assert store.mark_lost("celery@a", 200.0) == 1
    assert store.mark_lost("celery@a", 200.0) == 0
    assert [uuid for uuid, row in rows(store).items() if row[schema.COLUMNS.index("lost")]] == ["left"]
    store.write([row_of(msgspec.structs.replace(left, state="SUCCESS", precedence=3e11))])
    assert rows(store)["left"][schema.COLUMNS.index("lost")] is False
    store.close()


# ------------------------------------------------------------------ what is refused, in one sentence


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "mysql://u:hunter2@h/db", "sqlite://", "sqlite:///relative.sqlite", "postgresql://u:hunter2@h",
     "postgresql+psycopg2://u:hunter2@h/d", "postgresql://u:hunter2@h:port/d", "sqlite+aiosqlite:////x",
     "postgresql://u:hunter2@h:99999/d", "postgresql://u:hunter2@h/d?sllmode=require",
     "postgresql://u:hunter2@h/d?sslmode=sometimes", "postgresql://u@h/d?password=hunter2&nonsense=1"],
)  # fmt: skip
def test_urls_that_can_never_work(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        checked_url(text)
    assert "flower_history_url" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).endswith(".")


def refused(url: str) -> HistoryError:
    with pytest.raises(HistoryError) as caught:
        open_store(url)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "hunter2" not in sentence
    assert sentence.startswith("The history in ")
    assert sentence.endswith(".")
    return caught.value


def test_a_newer_schema(url: str) -> None:
    store = open_store(url)
    with store.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    store.close()
    error = refused(url)
    assert error.kind == "newer"
    assert "9999" in str(error)


def test_sqlite_files_that_cannot_be_used(tmp_path: Path) -> None:
    assert refused(f"sqlite:///{tmp_path}/missing/history.sqlite").kind == "missing"
    assert refused(f"sqlite:///{tmp_path}").kind == "missing"
    (tmp_path / "foreign").write_text("not a database " * 100)
    assert refused(f"sqlite:///{tmp_path}/foreign").kind == "damaged"


def test_a_sqlite_file_that_is_read_only(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    open_store(f"sqlite:///{path}").close()
    # as another user, since root may write everything
    tmp_path.chmod(0o755)
    path.chmod(0o444)
    code = f"import os, sys; sys.path.insert(0, {str(FILES)!r}); os.chdir('/')\n"
    code += "from flowerbed.history.store import open_store\nfrom flowerbed.history.problems import HistoryError\n"
    # imports all there is to import, before it may not read it any more
    code += f"open_store('sqlite:///{tmp_path}/other.sqlite').close()\n"
    code += "if os.getuid() == 0: os.setuid(65534)\n"
    code += f"try: open_store('sqlite:///{path}')\nexcept HistoryError as error: print(error.kind, error)"
    for parent in path.parents:
        if parent != Path("/tmp") and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("readonly The history in "), done.stdout + done.stderr


def test_a_sqlite_file_that_another_program_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowerbed.history.store.BUSY_SECONDS", 0.2)
    url = f"sqlite:///{tmp_path}/history.sqlite"
    store = open_store(url)
    other = sqlite3.connect(tmp_path / "history.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(HistoryError, match="locked by another program") as caught:
        store.write([row_of(record())])
    assert caught.value.kind == "locked"
    assert refused(url).kind == "locked"
    other.execute("ROLLBACK")
    store.write([row_of(record())])
    assert len(rows(store)) == 1
    other.close()
    store.close()


def test_a_file_that_was_deleted_is_not_written_on(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/history.sqlite")
    for left in tmp_path.iterdir():
        left.unlink()
    with pytest.raises(HistoryError, match="moved or deleted"):
        store.write([row_of(record())])
    store.connect()
    store.write([row_of(record())])
    assert len(rows(store)) == 1
    store.close()


def test_postgresql_that_cannot_be_used(postgres: Any) -> None:
    assert refused("postgresql://flower:hunter2@127.0.0.1:1/x").kind == "down"
    assert refused(postgres.url("nothing_here")).kind == "missing"
    assert refused(f"postgresql://nobody:hunter2@127.0.0.1:{postgres.port}/postgres").kind == "denied"
    postgres.sql("CREATE DATABASE locked")
    postgres.sql("CREATE ROLE someone LOGIN PASSWORD 'right'")
    assert refused(f"postgresql://someone:hunter2@127.0.0.1:{postgres.port}/locked").kind == "denied"
    assert refused(f"postgresql://someone@127.0.0.1:{postgres.port}/locked").kind == "denied"
    # PostgreSQL 15 lets only the owner create tables
    assert refused(f"postgresql://someone:right@127.0.0.1:{postgres.port}/locked").kind == "denied"
    postgres.sql("CREATE DATABASE readonly")
    postgres.sql("ALTER DATABASE readonly SET default_transaction_read_only = on")
    assert refused(postgres.url("readonly")).kind == "readonly"
