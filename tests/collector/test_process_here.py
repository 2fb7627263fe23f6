"""The collector as an object: threads that die, clocks that jump, and whatever anybody may send."""

from __future__ import annotations

import resource
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from events_support import Redis, wait_for
from hostile import COMMON, FAILED, HEARTBEAT, RECEIVED, SENT, SUCCEEDED, envelope, hostile
from process_support import collector_here, payloads

from flowerbed.collector import process
from flowerbed.collector.process import Collector
from flowerbed.history.schema import COLUMNS
from flowerbed.history.store import Store
from flowerbed.metrics import names, observe

STARTED = {**SUCCEEDED, "type": "task-started"}
HOUR = 3600.0


def total(collector: Collector, state: str) -> float:
    found = next(values for metric, values in collector.registry.snapshot().series if metric is names.TASKS)
    return sum(value for labels, value in found.items() if labels[1] == state)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No task-sent is waited for."""
    monkeypatch.setattr(observe, "ASIDE_SECONDS", 0)


def rows(collector: Collector, directory: Path, columns: str) -> list[tuple[Any, ...]]:
    """Writes what there is, and reads it."""
    assert collector.writer
    collector.writer.start()
    assert collector.writer.stop() == 0
    with sqlite3.connect(directory / "history.sqlite") as connection:
        return connection.execute(f"SELECT {columns} FROM tasks").fetchall()


# ---------------------------------------------------------------------- threads


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("dies", ["flowerbed-reader", "flowerbed-queues", "flowerbed-history", "metrics-http"])
def test_a_thread_that_dies_ends_the_process(
    tmp_path: Path, redis: Redis, dies: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector = collector_here(tmp_path, redis.url)
    assert collector.writer

    def boom(*_: object) -> None:
        raise RuntimeError("what nobody thought of")

    if dies == "flowerbed-reader":
        monkeypatch.setattr(collector.reader, "run", boom)
    elif dies == "flowerbed-queues":
        monkeypatch.setattr(collector.queues, "run", boom)
    elif dies == "flowerbed-history":
        monkeypatch.setattr(collector.writer._thread, "_target", boom)
    else:
        monkeypatch.setattr(collector.server._thread, "_target", boom)
    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(collector.run()))
    thread.start()
    thread.join(30)
    assert ended == [False]
    assert f"a thread has died: {dies}" in caplog.text


def test_health_is_red_without_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = collector_here(tmp_path)
    idle = threading.Thread(target=time.sleep, args=(5,), daemon=True)
    idle.start()
    collector._threads = [idle]
    # the subscription stands, but the broker has said nothing for long
    collector.reader.stats.connected_since = time.time()
    collector.reader.stats.says_something()
    assert collector.health()[0]
    collector.reader.stats.alive = time.monotonic() - process.DEAF_SECONDS - 1
    assert not collector.health()[0]
    collector.reader.stats.says_something()
    collector._turned -= process.STUCK_SECONDS
    assert not collector.health()[0]
    assert collector.health()[1]["history"] == "opening"
    collector.server.stop()


# ---------------------------------------------------------------------- clocks


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 40 * 86400.0, -40 * 86400.0])
def test_a_clock_that_jumps(tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = collector_here(tmp_path)
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])
    stats = collector.reader.stats

    def events(*kinds: dict[str, Any], uuid: str) -> None:
        now = real() + offset[0]
        collector.turn(payloads({**kind, "uuid": uuid, "timestamp": now} for kind in kinds))
        collector.turn(payloads([{**HEARTBEAT, "timestamp": now}]))

    collector.reader._connected()
    events(SENT, RECEIVED, STARTED, uuid="over-the-jump")
    events(SENT, RECEIVED, STARTED, SUCCEEDED, uuid="before")
    collector.reader._disconnected()
    offset[0] = jump
    collector.reader._connected()
    assert 0 <= stats.away_seconds < 10
    collector._turned -= 2
    events(SUCCEEDED, uuid="over-the-jump")
    events(SENT, RECEIVED, STARTED, SUCCEEDED, uuid="after")
    assert collector.observer.workers.online() == 1 and collector.observer.workers.losses == 0
    assert total(collector, "succeeded") == 3 and total(collector, "lost") == 0
    for metric, found in collector.registry.snapshot().histograms:
        for _, cells in found.values():
            assert cells[-1] >= 0, metric.name
    found = rows(collector, tmp_path, "wait_seconds, runtime_seconds")
    assert len(found) == 3
    assert all(value is None or value >= 0 for row in found for value in row)
    collector.server.stop()


def test_a_clock_in_the_future_empties_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the collector is started with it: rows are old by what workers say."""
    collector = collector_here(tmp_path)
    assert collector._believed() is None
    real = time.time
    collector.turn(payloads([{**HEARTBEAT, "timestamp": real()}]))
    assert abs((collector._believed() or 0) - real()) < 5
    monkeypatch.setattr(time, "time", lambda: real() + 400 * 86400)
    collector.turn(payloads([{**HEARTBEAT, "timestamp": real()}]))
    assert (collector._believed() or 0) <= real() + HOUR + 5
    collector.server.stop()


# ---------------------------------------------------------------------- what anybody may send


def test_a_hundred_thousand_hostile_messages(tmp_path: Path) -> None:
    """All the way: no crash, all counted, and neither series nor rows without end."""
    collector = collector_here(tmp_path)
    assert collector.writer
    collector.writer.start()
    waiting: list[bytes] = []
    for payload in hostile(100_000):
        waiting.append(payload)
        if len(waiting) == 1000:
            collector.turn(waiting)
            waiting.clear()
    collector.turn(waiting)
    assert 10_000 < sum(collector.invalid.values()) < 100_000
    wait_for(lambda: collector.writer and collector.writer.opened, "the history", 30)
    assert collector.writer.stop(60) == 0
    assert collector.writer.stats.refused == 0 and collector.writer.stats.failures == 0
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        (number,) = connection.execute("SELECT count(*) FROM tasks").fetchone()
    # the ids that are in it, and those that were made by changing a byte
    assert number < 3000
    assert sum(collector.registry.sizes().values()) < 5000
    text = collector.server._server.publisher.text()
    assert text.count(b"\n") < 6000
    collector.server.stop()


def test_names_without_end(tmp_path: Path) -> None:
    """Every message of another task, worker, queue and type: the families fill up, and then it is all `other`."""
    collector = collector_here(tmp_path, history={"url": None}, collector={"series_limit": 2000})
    number = 0

    def some(many: int) -> list[bytes]:
        nonlocal number
        made = []
        for _ in range(many):
            number += 1
            own = {"uuid": f"u{number}", "hostname": f"w{number}@h{number}", "timestamp": time.time()}
            made += [
                {**SENT, **own, "name": f"task{number}", "queue": f"queue{number}"},
                {**SUCCEEDED, **own},
                {**COMMON, **own, "type": "task-failed", "exception": f"Error{number}('no')"},
                {**HEARTBEAT, **own, "uuid": ""},
                {**COMMON, **own, "type": f"task-own-{number}"},
            ]
        return payloads(made)

    collector.turn(some(5000))
    settled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        collector.turn(some(5000))
    # in kB: of what is remembered for a while only
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - settled < 150_000
    sizes = collector.registry.sizes()
    assert max(sizes.values()) <= 2100, sizes
    assert total(collector, "sent") == number and total(collector, "failed") == number
    found = next(values for metric, values in collector.registry.snapshot().series if metric is names.TASKS)
    assert found["other", "sent", "other"] > number / 2
    assert len(collector.observer.workers.known) <= 10_000
    assert collector.server._server.publisher.text().count(b"\n") < 30_000
    collector.server.stop()


@pytest.mark.usefixtures("at_once")
def test_a_message_that_is_large(tmp_path: Path) -> None:
    """Texts of megabytes are cut before they are kept."""
    collector = collector_here(tmp_path, history={"text_lengths": {"args": 10, "traceback": 20}})
    huge = {**RECEIVED, "args": "x" * 2_000_000, "kwargs": "y" * 1_000_000}
    failed = {**COMMON, "type": "task-failed", "exception": "E" * 1_000_000, "traceback": "t" * 3_000_000}
    collector.turn([envelope(huge), envelope(failed)])
    ((args, kwargs, traceback, state),) = rows(collector, tmp_path, "args, kwargs, traceback, state")
    assert (len(args), kwargs, len(traceback), state) == (10, None, 20, "FAILURE")
    collector.server.stop()


def test_a_queue_that_is_told_a_moment_late(tmp_path: Path) -> None:
    """Celery publishes task-sent after the message, so that task-received may come first."""
    collector = collector_here(tmp_path, history={"url": None})
    collector.turn(payloads([{**SENT, "uuid": "another", "queue": "elsewhere"}]))
    collector.turn(payloads([RECEIVED, {**RECEIVED, "uuid": "never told"}]))
    collector.turn(payloads([SENT, STARTED]))
    assert collector.observer.held, "they wait for what may still be told"
    wait_for(lambda: collector.turn([]) or not collector.observer.held, "the end of their wait")
    found = next(values for metric, values in collector.registry.snapshot().series if metric is names.TASKS)
    counted = {labels[1:]: value for labels, value in found.items() if value}
    assert counted == {
        ("sent", "elsewhere"): 1,
        ("sent", "q"): 1,
        ("received", "q"): 1,
        ("started", "q"): 1,
        ("received", "unknown"): 1,
    }
    collector.server.stop()


@pytest.mark.parametrize(("waits", "name"), [(process.START_SECONDS, RECEIVED["name"]), (0.2, "unknown")])
@pytest.mark.usefixtures("at_once")
def test_a_history_that_is_slow_to_open(
    tmp_path: Path, waits: float, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the former run knew of a task is waited for; and where that took too long, the log says so."""
    former = collector_here(tmp_path)
    former.turn(payloads([RECEIVED]))
    rows(former, tmp_path, "id")
    connects = Store.connect

    def slow(store: Store) -> None:
        time.sleep(1)
        connects(store)

    monkeypatch.setattr(Store, "connect", slow)
    monkeypatch.setattr(process, "START_SECONDS", waits)
    collector = collector_here(tmp_path)
    assert collector.writer
    collector.writer.start()
    collector._begin()
    collector.turn(payloads([SUCCEEDED]))
    collector.writer.stop()
    found = next(values for metric, values in collector.registry.snapshot().series if metric is names.TASKS)
    assert {labels[0] for labels in found if labels[1] == "succeeded"} == {name}
    assert ("does not tell of former runs" in caplog.text) == (name == "unknown")
    former.server.stop()
    collector.server.stop()


def test_an_error_of_ours_costs_one_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On RabbitMQ the same message would come again after every restart."""
    collector = collector_here(tmp_path, history={"url": None})
    fold = collector.folder.fold

    def breaks(event: Any, now: float) -> Any:
        if event.uuid == "poison":
            raise RuntimeError("what nobody thought of")
        return fold(event, now)

    monkeypatch.setattr(collector.folder, "fold", breaks)
    collector.turn(payloads([SENT, {**SENT, "uuid": "poison"}, {**SENT, "uuid": "poison"}, {**SENT, "uuid": "last"}]))
    assert total(collector, "sent") == 2
    assert collector.invalid == {"unexpected": 2}
    assert caplog.text.count("RuntimeError: what nobody") == 1
    collector.server.stop()


def test_no_worker_writes_our_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A host's name may hold line feeds and a terminal's commands."""
    collector = collector_here(tmp_path, history={"url": None, "lost_after": 0})
    evil = {"hostname": "w@h\nERROR all is lost\x1b[2J"}
    collector.turn(payloads([{**HEARTBEAT, **evil}, {**RECEIVED, **evil}, {**STARTED, **evil}]))
    collector.reader._connected()
    for worker in collector.observer.workers.known.values():
        worker.heard -= 60
    collector._look(time.time(), time.monotonic(), {})
    collector.observer._listening_since -= 60
    collector._look(time.time(), time.monotonic(), {})
    messages = [record.getMessage() for record in caplog.records if "w@h?ERROR all is lost?[2J" in record.getMessage()]
    assert len(messages) == 2, caplog.text
    assert not any(bad in record.getMessage() for record in caplog.records for bad in "\n\x1b")
    collector.server.stop()


@pytest.mark.usefixtures("at_once")
def test_what_is_told_after_the_end_takes_no_text_away(tmp_path: Path) -> None:
    """Celery may publish task-sent when the task has failed already; it holds the arguments, and no exception."""
    collector = collector_here(tmp_path)
    collector.turn(payloads([RECEIVED, STARTED, FAILED]))
    collector.turn(payloads([SENT]))
    assert collector.writer
    (row,) = collector.writer._buffer.rows.values()
    found = dict(zip(COLUMNS, row, strict=True))
    assert (found["exception"], found["traceback"]) == (FAILED["exception"], FAILED["traceback"])
    assert found["kwargs"] == SENT["kwargs"]
    collector.server.stop()


@pytest.mark.usefixtures("at_once")
def test_texts_are_forgotten_and_kept(tmp_path: Path) -> None:
    """The folder forgets the texts of tasks that have ended; their rows do not, though they wait still."""
    collector = collector_here(tmp_path)
    many = [{**item, "uuid": f"u{number}"} for number in range(10) for item in (RECEIVED, SUCCEEDED)]
    collector.turn(payloads(many))
    assert {task.record.args for task in collector.folder._ended.values()} == {None}
    collector.turn(payloads([{**STARTED, "uuid": "u0"}]))
    found = rows(collector, tmp_path, "args, kwargs, result, started")
    assert len(found) == 10
    assert {row[:3] for row in found} == {(RECEIVED["args"], "{}", "3")}
    assert sum(row[3] is not None for row in found) == 1
    collector.server.stop()
