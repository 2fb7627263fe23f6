"""The writer's thread, and what becomes of rows when the database fails under it."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from flowerbed.collector.tasks import Record
from flowerbed.history.schema import Counter
from flowerbed.history.store import open_store
from flowerbed.history.writer import BATCH_ROWS, Writer

FILES = Path(__file__).resolve().parents[2] / "roles" / "flower" / "files"


def record(uuid: str, **fields: Any) -> Record:
    return Record(**{"id": uuid, "seen": time.time(), "updated": time.time(), **fields})


def wait_for(what: Callable[[], Any], seconds: float = 15) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def ids(url: str) -> set[str]:
    store = open_store(url)
    try:
        with store.transaction() as connection:
            return {uuid for (uuid,) in connection.execute(text("SELECT id FROM tasks"))}
    finally:
        store.close()


@pytest.fixture
def writer_of() -> Iterator[Callable[..., Writer]]:
    writers: list[Writer] = []

    def make(url: str, **options: Any) -> Writer:
        writer = Writer(url, **{"batch_seconds": 0.05, "first_wait": 0.1, **options})
        writers.append(writer)
        writer.start()
        return writer

    yield make
    for writer in writers:
        writer.stop(1)


def test_what_is_put_is_written(url: str, writer_of: Callable[..., Writer]) -> None:
    writer = writer_of(url)
    for number in range(2 * BATCH_ROWS + 10):
        writer.put(record(str(number)))
    assert writer.stop() == 0
    assert len(ids(url)) == 2 * BATCH_ROWS + 10
    assert (writer.stats.written, writer.stats.dropped, writer.stats.refused) == (2 * BATCH_ROWS + 10, 0, 0)
    assert writer.stats.problem is None


def test_many_changes_of_a_task_are_one_row(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/history.sqlite"
    writer = Writer(url)
    task = record("a")
    for number in range(100):
        task.retries = number
        writer.put(task)
    # the Folder forgot the task and begins anew
    writer.put(record("a", seen=task.seen + 1, name="late", precedence=1.0))
    assert writer.backlog == 1
    writer.start()
    writer.stop()
    assert writer.stats.written == 1
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        assert connection.execute("SELECT id, retries, name, seen FROM tasks").fetchall() == [
            ("a", 99, "late", task.seen)
        ]


def test_counters_are_loaded_once_and_kept(url: str, writer_of: Callable[..., Writer]) -> None:
    loaded: list[list[Counter]] = []
    changed: list[Counter] = [("a", "{}", 5.0)]

    def counters() -> list[Counter]:
        taken, changed[:] = list(changed), []
        return taken

    for _ in range(2):
        writer = writer_of(url, counters=counters, on_loaded=loaded.append)
        writer.stop()
    assert loaded == [[], [("a", "{}", 5.0)]]


def test_a_database_that_comes_later(tmp_path: Path, writer_of: Callable[..., Writer]) -> None:
    url = f"sqlite:///{tmp_path}/later/history.sqlite"
    loaded: list[list[Counter]] = []
    writer = writer_of(url, counters=lambda: [("a", "{}", 1.0)], on_loaded=loaded.append)
    writer.put(record("a"))
    wait_for(lambda: writer.stats.problem)
    assert writer.stats.problem is not None
    assert writer.stats.problem.kind == "missing"
    (tmp_path / "later").mkdir()
    wait_for(lambda: writer.stats.written)
    assert writer.stats.problem is None
    assert loaded == [[]]
    writer.stop()
    assert ids(url) == {"a"}


def test_the_buffer_is_bounded(tmp_path: Path, writer_of: Callable[..., Writer]) -> None:
    url = f"sqlite:///{tmp_path}/later/history.sqlite"
    writer = writer_of(url, most_rows=50)
    for number in range(200):
        writer.put(record(str(number)))
    wait_for(lambda: writer.stats.failures >= 2)
    assert (writer.backlog, writer.stats.dropped) == (50, 150)
    (tmp_path / "later").mkdir()
    wait_for(lambda: writer.backlog == 0)
    writer.stop()
    assert ids(url) == {str(number) for number in range(150, 200)}


def test_the_buffer_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowerbed.history.writer.UNWEIGHED_ROWS", 10)
    writer = Writer(f"sqlite:///{tmp_path}/history.sqlite", most_bytes=1_000_000)
    for number in range(200):
        writer.put(record(str(number), traceback="x" * 20000))
    assert writer.backlog == 1_000_000 // 20700
    for number in range(200, 250):
        writer.put(record(str(number)))
    assert writer.backlog > 1_000_000 // 20700 + 30
    assert writer.stats.dropped + writer.backlog == 250


def test_stop_ends_although_the_database_is_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(f"sqlite:///{tmp_path}/never/history.sqlite", first_wait=0.1)
    writer.start()
    writer.put(record("a"))
    begun = time.monotonic()
    assert writer.stop(0.5) == 1
    assert time.monotonic() - begun < 3
    assert "1 tasks were not written" in caplog.text


def test_a_deleted_file_comes_back(tmp_path: Path, writer_of: Callable[..., Writer]) -> None:
    url = f"sqlite:///{tmp_path}/history.sqlite"
    writer = writer_of(url)
    writer.put(record("a"))
    wait_for(lambda: writer.stats.written)
    for left in tmp_path.iterdir():
        left.unlink()
    writer.put(record("b"))
    wait_for(lambda: writer.stats.written == 2)
    writer.stop()
    assert ids(url) == {"b"}


# ------------------------------------------------------------------ SQLite

KILLED = """
import sys, time
sys.path.insert(0, {files!r})
from flowerbed.collector.tasks import Record
from flowerbed.history.writer import Writer
writer = Writer({url!r}, batch_seconds=0.01)
writer.start()
for number in range(10**9):
    writer.put(Record(id=f"{begin}-{{number}}", args="x" * 300, seen=time.time()))
    if number % 50 == 0:
        time.sleep(0.01)
        print(writer.stats.written, flush=True)
"""


def test_killed_again_and_again(url: str) -> None:
    """After SIGKILL at any moment: what was said to be written is there, and the database is whole."""
    chance = random.Random(4)
    claimed = 0
    for begin in range(6):
        code = KILLED.format(files=str(FILES), url=url, begin=begin)
        process = subprocess.Popen([sys.executable, "-B", "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        # on a busy machine it takes a while until there is something to be killed in
        first = next(int(line) for line in process.stdout if int(line))
        time.sleep(chance.random())
        process.send_signal(signal.SIGKILL)
        claimed += [first, *map(int, process.communicate()[0].split()[:-1])][-1]
    assert claimed > 100
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    kept = ids(url)
    assert len(kept) >= claimed
    # without holes: each run's rows are its first ones
    for begin in range(6):
        numbers = sorted(int(uuid.partition("-")[2]) for uuid in kept if uuid.startswith(f"{begin}-"))
        assert numbers == list(range(len(numbers)))


def test_a_full_disk(tmp_path: Path, writer_of: Callable[..., Writer]) -> None:
    """A real one when we may mount a small file system, else SQLite's own limit of pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = tmp_path / "small"
    place.mkdir()
    if libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, b"size=4m") != 0:
        pytest.fail(f"a file system cannot be mounted here: {os.strerror(ctypes.get_errno())}; run the tests as root")
    try:
        url = f"sqlite:///{place}/history.sqlite"
        writer = writer_of(url)
        filler = place / "filler"
        filler.write_bytes(b"x" * 3_000_000)
        for number in range(1000):
            writer.put(record(str(number), args="x" * 3000))
        wait_for(lambda: writer.stats.problem)
        assert writer.stats.problem is not None
        assert writer.stats.problem.kind == "full"
        assert "no room left" in str(writer.stats.problem)
        assert writer.backlog > 0
        libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 32, b"size=40m")  # MS_REMOUNT
        wait_for(lambda: writer.backlog == 0 and writer.stats.problem is None)
        assert writer.stop() == 0
        assert len(ids(url)) == 1000
        with sqlite3.connect(place / "history.sqlite") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    finally:
        libc.umount2(str(place).encode(), 2)


def test_a_lock_is_waited_out(
    tmp_path: Path, writer_of: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerbed.history.store.BUSY_SECONDS", 0.1)
    url = f"sqlite:///{tmp_path}/history.sqlite"
    writer = writer_of(url)
    wait_for(lambda: writer.stats.last_written)
    other = sqlite3.connect(tmp_path / "history.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer.put(record("a"))
    wait_for(lambda: writer.stats.problem)
    assert writer.stats.problem is not None
    assert writer.stats.problem.kind == "locked"
    other.execute("COMMIT")
    other.close()
    wait_for(lambda: writer.stats.problem is None)
    writer.stop()
    assert ids(url) == {"a"}


def test_a_reader_does_not_stop_the_writer(tmp_path: Path, writer_of: Callable[..., Writer]) -> None:
    url = f"sqlite:///{tmp_path}/history.sqlite"
    writer = writer_of(url)
    wait_for(lambda: writer.stats.last_written)
    reader = sqlite3.connect(f"file:{tmp_path}/history.sqlite?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
    writer.put(record("a"))
    wait_for(lambda: writer.stats.written)
    assert reader.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
    reader.close()


# ------------------------------------------------------------------ PostgreSQL


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_stopped_and_started(postgres: Any, mode: str, writer_of: Callable[..., Writer]) -> None:
    url = postgres.url()
    writer = writer_of(url)
    writer.put(record("before"))
    wait_for(lambda: writer.stats.written)
    postgres.stop(mode)
    try:
        for number in range(500):
            writer.put(record(str(number)))
        wait_for(lambda: writer.stats.problem)
        assert writer.stats.problem is not None
        assert writer.stats.problem.kind == "down"
    finally:
        postgres.start()
    wait_for(lambda: writer.stats.problem is None and not writer.backlog)
    writer.stop()
    assert ids(url) == {"before", *map(str, range(500))}


def test_sessions_that_are_ended(postgres: Any, writer_of: Callable[..., Writer]) -> None:
    url = postgres.url()
    writer = writer_of(url)
    for number in range(200):
        writer.put(record(str(number)))
        if number % 40 == 20:
            postgres.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flowerbed-collector'"
            )
    wait_for(lambda: writer.stats.problem is None and not writer.backlog)
    writer.stop()
    assert ids(url) == set(map(str, range(200)))


def test_a_record_may_change_after_it_was_put(tmp_path: Path) -> None:
    writer = Writer(f"sqlite:///{tmp_path}/history.sqlite")
    task = record("a", name="before")
    writer.put(task)
    task.name = "after"
    writer.start()
    writer.stop()
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        assert connection.execute("SELECT name FROM tasks").fetchall() == [("before",)]
    assert msgspec.structs.astuple(task)[1] == "after"


def test_lost_tasks_are_marked(url: str, writer_of: Callable[..., Writer]) -> None:
    writer = writer_of(url)
    writer.put(record("a", state="STARTED", worker="celery@a"))
    wait_for(lambda: writer.stats.written)
    writer.mark_lost("celery@a", time.time() + 1)
    assert writer.stop() == 0
    store = open_store(url)
    with store.transaction() as connection:
        assert [bool(lost) for (lost,) in connection.execute(text("SELECT lost FROM tasks"))] == [True]
    store.close()
