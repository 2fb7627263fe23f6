"""Counters and rows say the same, whatever ends the collector or takes its database away, and as much as was sent."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from events_support import ROOT, Redis, client, wait_for
from hostile import RECEIVED, SENT, SUCCEEDED, envelope
from process_support import Collecting

from tests.bench.collector_stream import Books, Mix, publish
from tests.history.conftest import Postgres

STARTED = {**SUCCEEDED, "type": "task-started"}


@pytest.fixture
def collecting(tmp_path: Path, redis: Redis) -> Iterator[Callable[..., Collecting]]:
    started: list[Collecting] = []

    def start(**options: Any) -> Collecting:
        started.append(Collecting(tmp_path, redis, **options))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        if one.process is not None and one.process.poll() is None:
            one.stop(signal.SIGKILL)


def sent_by(books: Books) -> Counter[str]:
    """State -> number of the generator's tasks that came to it."""
    found: Counter[str] = Counter()
    for (_, state, _), number in books.counted.items():
        found[state] += number
    return found


def test_killed_again_and_again_under_load(collecting: Callable[..., Collecting], redis: Redis, tmp_path: Path) -> None:
    """After each `kill -9` rows and counters are of one moment, and nothing is in them that was not sent."""
    collector = collecting()
    chance = random.Random(4)
    program = [sys.executable, str(ROOT / "tests/bench/collector_stream.py"), "--url", redis.url]
    with subprocess.Popen([*program, "--rate", "4000", "--seconds", "600"], stdout=subprocess.DEVNULL) as load:
        try:
            last = 0
            for _ in range(4):
                wait_for(lambda least=last: collector.counted()["succeeded"] > least, "more tasks", 30)
                # every batch, and not only the last one
                until = time.monotonic() + 1 + chance.random()
                while time.monotonic() < until:
                    rows, counters = collector.kept()
                    assert rows == counters
                    time.sleep(0.02)
                shown = collector.counted()
                assert collector.stop(signal.SIGKILL) == -signal.SIGKILL
                rows, counters = collector.kept()
                assert rows == counters
                # what Prometheus has seen does not go back
                assert all(shown[state] <= counters[state] for state in rows)
                last = counters["succeeded"]
                collector.start()
            wait_for(lambda: collector.counted()["succeeded"] > last, "tasks after the last kill", 30)
        finally:
            load.terminate()
    assert collector.stop() == 0
    rows, counters = collector.kept()
    assert rows == counters
    assert rows["succeeded"] > last > 0


def test_all_that_is_sent_is_counted_and_kept(collecting: Callable[..., Collecting], redis: Redis) -> None:
    collector = collecting()
    books = publish(redis.url, Mix(), events=20_000)
    wait_for(lambda: collector.counted() == sent_by(books), "all of it", 60)
    assert collector.stop() == 0
    rows, counters = collector.kept()
    assert rows == counters == sent_by(books)
    assert Counter(collector.rows().values()) == books.rows


def test_a_database_that_is_stopped_and_started(
    collecting: Callable[..., Collecting], redis: Redis, request: pytest.FixtureRequest
) -> None:
    """What came meanwhile is counted at once, and kept when the database is back."""
    postgres = Postgres()
    try:
        url = postgres.url()
        collector = collecting(url=url)
        before = publish(redis.url, Mix(run=1), events=2000)
        wait_for(lambda: collector.counted() == sent_by(before), "the first", 60)
        postgres.stop()
        meanwhile = publish(redis.url, Mix(run=2), events=2000)
        together = sent_by(before) + sent_by(meanwhile)
        wait_for(lambda: collector.counted() == together, "counting without a database", 60)
        status, health = collector.get("/health")
        assert status == 200 and "cannot be reached" in health
        assert collector.number("flowerbed_history_up") == 0
        postgres.start()
        wait_for(lambda: collector.number("flowerbed_history_backlog") == 0, "the rows to be written", 60)
        after = publish(redis.url, Mix(run=3), events=2000)
        together += sent_by(after)
        wait_for(lambda: collector.counted() == together, "the last", 60)
        assert collector.number("flowerbed_history_dropped_total") == 0
        assert collector.stop() == 0
        found = postgres.sql("SELECT name, state, count(*) FROM tasks GROUP BY 1, 2", url.rpartition("/")[2])
        split = [line.split("|") for line in found.splitlines()]
        rows = Counter({(name, state): int(number) for name, state, number in split})
        assert rows == before.rows + meanwhile.rows + after.rows
        saved = "SELECT sum(value) FROM counters WHERE name = 'celery_tasks_total' AND labels LIKE '%\"succeeded\"%'"
        assert int(float(postgres.sql(saved, url.rpartition("/")[2]))) == together["succeeded"]
    finally:
        postgres.stop()
        shutil.rmtree(postgres.directory)


def test_a_restart_in_the_middle_of_a_task(collecting: Callable[..., Collecting], redis: Redis) -> None:
    """Doubled events are counted once, and a task that ends after a restart has its name and queue still."""
    collector = collecting()
    link = client(redis)
    first = [envelope(item) for item in (SENT, RECEIVED, STARTED)]
    for payload in first:
        link.publish("/0.celeryev/task.multi", payload)
    wait_for(lambda: collector.counted()["started"] == 1, "the start", 20)
    for ending in (signal.SIGTERM, signal.SIGKILL):
        collector.stop(ending)
        collector.start()
        wait_for(lambda: collector.counted()["started"] == 1, "the counters of before", 20)
        assert collector.number("celery_tasks_running", task="shop.add") == 1
        for payload in first:
            link.publish("/0.celeryev/task.multi", payload)
        wait_for(lambda: collector.number("flowerbed_events_doubled_total") == 3, "the doubles", 20)
    link.publish("/0.celeryev/task.succeeded", envelope(SUCCEEDED))
    labels = {"state": "succeeded", "task": "shop.add", "queue": "q"}
    wait_for(lambda: collector.number("celery_tasks_total", **labels) == 1, "the end")
    assert collector.counted() == {"sent": 1, "received": 1, "started": 1, "succeeded": 1}
    assert collector.number("celery_tasks_running", task="shop.add") == 0


def test_tasks_of_a_worker_that_went_while_no_collector_ran(
    collecting: Callable[..., Collecting], redis: Redis
) -> None:
    collector = collecting()
    for item in (RECEIVED, STARTED):
        client(redis).publish("/0.celeryev/task.multi", envelope(item))
    wait_for(lambda: collector.counted()["started"] == 1, "the start", 20)
    collector.stop()
    collector.start()
    wait_for(lambda: collector.counted()["lost"] == 1, "the loss", 20)
    assert collector.number("celery_tasks_running") == 0
    assert collector.stop() == 0
    collector.start()
    wait_for(lambda: collector.counted()["lost"] == 1, "the counter of before", 20)
    time.sleep(3)
    assert collector.counted()["lost"] == 1
