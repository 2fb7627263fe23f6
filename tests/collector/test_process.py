"""The whole collector as a process: real Redis, a real worker, and what comes out at the other end."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from events_support import Redis, application, wait_for, worker
from process_support import Collecting, environment


@pytest.fixture
def collecting(tmp_path: Path, redis: Redis) -> Iterator[Callable[..., Collecting]]:
    """Starts a collector; ends it at the end."""
    started: list[Collecting] = []

    def start(**options: Any) -> Collecting:
        folder = tmp_path / f"collector{len(started)}"
        folder.mkdir()
        started.append(Collecting(folder, redis, **options))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        if one.process is not None and one.process.poll() is None:
            one.stop(signal.SIGKILL)


def test_counts_and_rows_are_those_of_the_work(
    collecting: Callable[..., Collecting], redis: Redis, tmp_path: Path
) -> None:
    collector = collecting()
    celery = {"broker_url": redis.url, "result_backend": redis.url}
    app = application(celery)
    with worker(tmp_path, celery, "-E"):
        wait_for(lambda: collector.number("celery_workers_online") == 1, "the worker", 60)
        added = [app.send_task("shop.add", (number, 1), {"password": "hunter22"}).id for number in range(40)]
        failed = [app.send_task("shop.fail", ("oh",)).id for _ in range(5)]
        retried = [app.send_task("shop.retry").id for _ in range(2)]
        wait_for(
            lambda: (
                collector.number("celery_tasks_total", state="succeeded") == 40
                and collector.number("celery_tasks_total", state="failed") == 7
            ),
            "all tasks to end",
            60,
        )
        assert collector.number("celery_tasks_total", task="shop.add", state="sent") == 40
        assert collector.number("celery_task_runtime_seconds_count", task="shop.add") == 40
        assert collector.number("celery_task_failures_total", task="shop.fail", exception="ValueError") == 5
        assert collector.number("celery_tasks_total", task="shop.retry", state="retried") == 4
        expected = {
            **dict.fromkeys(added, ("shop.add", "SUCCESS")),
            **dict.fromkeys(failed, ("shop.fail", "FAILURE")),
            **dict.fromkeys(retried, ("shop.retry", "FAILURE")),
        }
        wait_for(lambda: collector.rows() == expected, "the rows", 20)
    assert collector.get("/health")[0] == 200
    assert b"hunter22" not in collector.database.read_bytes()

    # Over a restart no counter goes back, and no row is lost.
    assert collector.stop() == 0
    collector.start()
    wait_for(lambda: collector.number("celery_tasks_total", state="succeeded") == 40, "the counters of before", 20)
    assert collector.rows() == expected


def test_a_worker_that_is_killed_is_lost_with_its_task(
    collecting: Callable[..., Collecting], redis: Redis, tmp_path: Path
) -> None:
    collector = collecting()
    celery = {"broker_url": redis.url}
    with worker(tmp_path, celery, "-E", name="dies@test") as process:
        wait_for(lambda: collector.number("celery_worker_online", worker="dies@test") == 1, "the worker", 60)
        task = application(celery).send_task("shop.sleep", (300,)).id
        wait_for(lambda: collector.number("celery_tasks_running") == 1, "the task to run", 30)
        for child in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split():
            os.kill(int(child), signal.SIGKILL)
        process.kill()
        process.wait()
        wait_for(lambda: collector.number("celery_worker_online", worker="dies@test") == 0, "the loss", 30)
    wait_for(lambda: collector.number("celery_tasks_total", state="lost") == 1, "the lost task", 10)

    def is_lost() -> bool:
        with sqlite3.connect(collector.database) as connection:
            return connection.execute("SELECT lost FROM tasks WHERE id = ?", (task,)).fetchone() == (1,)

    wait_for(is_lost, "the row to say so", 20)


def test_a_broker_that_goes_away_and_comes_back(collecting: Callable[..., Collecting], redis: Redis) -> None:
    collector = collecting()
    redis.kill()
    wait_for(lambda: collector.number("flowerbed_broker_connected") == 0, "the loss to be noticed", 20)
    assert collector.get("/metrics")[0] == 200
    redis.start()
    wait_for(lambda: collector.number("flowerbed_broker_connected") == 1, "the way back", 20)
    assert collector.number("flowerbed_broker_reconnects_total") == 1
    assert collector.get("/health")[0] == 200


def test_rubbish_is_counted_and_goes_by(collecting: Callable[..., Collecting], redis: Redis) -> None:
    from events_support import client

    collector = collecting()
    link = client(redis)
    for rubbish in (b"", b"rubbish", b"{}", b"[]", b'{"body": 3}', b"\xff" * 100, b'{"type": "task-sent"}'):
        link.publish("/0.celeryev/task.sent", rubbish)
    wait_for(lambda: collector.number("flowerbed_events_invalid_total") >= 5, "the count", 20)
    assert collector.get("/health")[0] == 200
    assert collector.rows() == {}


@pytest.mark.parametrize(
    ("collector", "says"),
    [({"address": "nowhere"}, "flower_metrics_address"), ({"prot": 1}, "prot is not a setting of flowerbed")],
)
def test_what_cannot_work_is_one_sentence(tmp_path: Path, redis: Redis, collector: dict[str, Any], says: str) -> None:
    one = Collecting(tmp_path, redis, **collector)
    done = subprocess.run(
        [sys.executable, "-m", "flowerbed", "collector", "--settings", str(tmp_path / "flowerbed.json")],
        env=environment(),
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert one.redis.password not in done.stderr
