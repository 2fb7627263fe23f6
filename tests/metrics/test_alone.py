"""The real process without any worker: what is there from the start, odd events, knobs, and a broker that hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from addon_support import Redis, wait_for
from live_support import Collecting, Publisher, redis, running

from flowerbed.collector.events import REASONS
from flowerbed.metrics import names

Start = Callable[..., Collecting]


@pytest.fixture(scope="module")
def broker() -> Iterator[Redis]:
    with redis() as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, broker: Redis) -> Iterator[Start]:
    """Starts a collector; ends it at the end."""
    with ExitStack() as stack:

        def begin(history: bool = True, **options: Any) -> Collecting:
            url = f"sqlite:///{tmp_path}/history.sqlite" if history else None
            one = stack.enter_context(
                running(Collecting(tmp_path, {"broker_url": broker.url}, {"url": url}, **options))
            )
            one.wait_number(1, "flowerbed_broker_connected")
            return one

        yield begin


@pytest.fixture
def publish(broker: Redis) -> Publisher:
    return Publisher(broker)


def test_what_is_there_before_the_first_event_comes(start: Start) -> None:
    one = start(queues=["orders"])
    one.wait_number(1, "flowerbed_history_up")
    wait_for(lambda: one.number("celery_queue_length") is not None, "the queues", 30)
    zero = {
        "celery_workers_online", "celery_workers_lost", "celery_worker_losses_total", "celery_queue_length",
        "celery_queue_oldest_seconds", "celery_unacked_messages", "celery_events_total",
        "flowerbed_events_dropped_total", "flowerbed_events_invalid_total", "flowerbed_events_doubled_total",
        "flowerbed_tasks_forgotten_total",
        "flowerbed_broker_reconnects_total", "flowerbed_broker_away_seconds_total", "flowerbed_history_writes_total",
        "flowerbed_history_backlog", "flowerbed_history_failures_total", "flowerbed_history_dropped_total",
        "flowerbed_history_refused_total", "flowerbed_history_pruned_total", "flowerbed_metric_folded_total",
        "flowerbed_metric_failures_total", "flowerbed_queues_failures_total",
    }  # fmt: skip
    assert {name: one.number(name) for name in zero} == dict.fromkeys(zero, 0)
    assert {labels["type"] for labels, _ in one.series("celery_events_total")} >= {
        *(f"task-{state}" for state in names.STATES if state != "lost"),
        "worker-heartbeat",
    }
    assert {labels["reason"] for labels, _ in one.series("flowerbed_events_invalid_total")} == set(REASONS)
    assert {labels["metric"] for labels, _ in one.series("flowerbed_metric_folded_total")} >= {
        metric.name for metric in names.METRICS if metric.kept
    }


def test_a_task_shows_all_its_states_from_its_first_event_on(start: Start, publish: Publisher) -> None:
    one = start()
    publish("task-received", uuid="1", name="shop.add")
    wait_for(lambda: one.series("celery_tasks_total"), "the task")
    found = {labels["state"]: number for labels, number in one.series("celery_tasks_total", task="shop.add")}
    assert found == {**dict.fromkeys(names.STATES, 0), "received": 1}
    assert one.number("celery_tasks_running", task="shop.add") == 0


def test_events_that_end_other_exporters_are_counted_and_go_by(start: Start, publish: Publisher) -> None:
    one = start(compat="celery-exporter")
    publish("task-received", uuid="1", name="shop.a")
    publish("task-failed", uuid="1", exception=None)
    publish("task-received", uuid="2", name="shop.a")
    publish("task-failed", uuid="2")
    publish("task-received", uuid="3", name="shop.a")
    publish("task-failed", uuid="3", exception="kombu.exceptions.OperationalError('away')")
    publish("task-received", uuid="4", name="shop.b")
    publish("task-succeeded", uuid="4")
    publish("task-received", uuid="5", name="shop.b")
    publish("task-succeeded", uuid="5", runtime="soon")
    # the one that was missed tells no name
    publish("task-succeeded", uuid="6", runtime=0.5)
    one.wait_number(3, "celery_tasks_total", state="succeeded")
    one.wait_number(3, "celery_tasks_total", state="failed")
    found = {labels["exception"]: number for labels, number in one.series("celery_task_failures_total")}
    assert found == {"unknown": 2, "OperationalError": 1}
    assert one.number("celery_tasks_total", task="shop.b", state="succeeded") == 2
    assert one.number("celery_tasks_total", task="unknown", state="succeeded") == 1
    assert "None" not in {labels["task"] for labels, _ in one.series("celery_tasks_total")}
    assert one.number("celery_task_runtime_seconds_count") == 1
    theirs = {labels["exception"]: number for labels, number in one.series("celery_task_failed_total", name="shop.a")}
    assert theirs == {"": 0, "UnknownException": 2, "OperationalError": 1}
    assert one.number("celery_task_succeeded_total", name="None", queue_name="celery") == 1
    assert one.get("/health")[0] == 200


@pytest.mark.parametrize("skew", [-3600, 86400 * 365], ids=str)
def test_a_worker_whose_clock_is_wrong_is_there_and_waits_are_never_negative(
    start: Start, publish: Publisher, skew: float
) -> None:
    one = start()

    def stamp() -> float:
        return time.time() + skew

    publish("worker-online", hostname="w@skewed", timestamp=stamp(), freq=2.0)
    publish("task-sent", uuid="1", name="shop.a", queue="orders", hostname="gen1@web")
    publish("task-received", uuid="1", name="shop.a", hostname="w@skewed", timestamp=stamp())
    publish("task-started", uuid="1", hostname="w@skewed", timestamp=stamp())
    publish("task-succeeded", uuid="1", hostname="w@skewed", timestamp=stamp(), runtime=0.1)
    one.wait_number(1, "celery_tasks_total", state="succeeded", queue="orders")
    assert one.number("celery_worker_online", worker="w@skewed") == 1
    assert one.number("celery_workers_online") == 1
    for name in ("queue_wait", "prefetch"):
        assert one.number(f"celery_task_{name}_seconds_count", queue="orders") == 1
        seconds = one.number(f"celery_task_{name}_seconds_sum", queue="orders")
        assert seconds is not None
        assert 0 <= seconds <= max(skew, 0) + 60
    seen = one.number("celery_worker_last_seen_timestamp_seconds", worker="w@skewed")
    assert seen is not None
    assert abs(time.time() - seen) < 30, "by our clock"
    # and it is lost by our clock as well
    one.wait_number(0, "celery_workers_online", 40)


def test_of_two_workers_on_a_host_the_one_that_stops_is_seen(start: Start, publish: Publisher) -> None:
    one = start()
    for name in ("w1@vm", "w2@vm"):
        publish("worker-online", hostname=name, freq=1.0)
    one.wait_number(2, "celery_workers_online")
    deadline = time.monotonic() + 40
    while one.number("celery_workers_lost") != 1:
        assert time.monotonic() < deadline
        publish("worker-heartbeat", hostname="w2@vm", freq=1.0, active=0, processed=1)
        time.sleep(0.2)
    assert one.number("celery_worker_online", worker="w1@vm") == 0
    assert one.number("celery_worker_online", worker="w2@vm") == 1


def test_the_operator_chooses_what_has_series(start: Start, publish: Publisher) -> None:
    one = start(
        tasks_allow=["shop.*"], tasks_deny=["shop.noise.*"], worker_label=True, buckets=[1, 2],
        task_buckets={"shop.slow": [3600, 86400, 604800]},
    )  # fmt: skip
    for number, name in enumerate(("shop.add", "shop.slow", "shop.noise.a", "shop.noise.b", "elsewhere.a")):
        publish("task-received", uuid=str(number), name=name)
        publish("task-succeeded", uuid=str(number), runtime=100000.0)
    one.wait_number(5, "celery_tasks_total", state="succeeded")
    found = {labels["task"]: number for labels, number in one.series("celery_tasks_total", state="succeeded")}
    assert found == {"shop.add": 1, "shop.slow": 1, "other": 3}
    assert {labels["worker"] for labels, _ in one.series("celery_tasks_total")} == {"w1@host"}

    def bounds(task: str) -> dict[str, float]:
        return {labels["le"]: number for labels, number in one.series("celery_task_runtime_seconds_bucket", task=task)}

    assert bounds("shop.add") == {"1.0": 0, "2.0": 0, "+Inf": 1}
    assert bounds("shop.slow") == {"3600.0": 0, "86400.0": 0, "604800.0": 1, "+Inf": 1}


def test_beyond_the_limit_of_series_all_is_counted_as_other_and_it_says_so(start: Start, publish: Publisher) -> None:
    one = start(series_limit=50)
    for number in range(200):
        publish("task-received", uuid=str(number), name=f"flood.{number}")
    one.wait_number(200, "celery_tasks_total", state="received")
    assert len(one.series("celery_tasks_total")) <= 51
    assert one.number("flowerbed_metric_series_limit") == 50
    other = one.number("celery_tasks_total", state="received", task="other")
    assert other is not None
    assert other > 150
    assert one.number("flowerbed_metric_folded_total", metric="celery_tasks_total") == other
    assert one.number("flowerbed_metric_folded_total", metric="celery_task_failures_total") == 0


def test_a_broker_that_hangs_or_is_gone_takes_no_number_away(start: Start, publish: Publisher, broker: Redis) -> None:
    one = start(queues=["orders"])
    # a task's event is a sign of life too
    publish("task-received", uuid="1", name="shop.a")
    one.wait_number(1, "celery_tasks_total", state="received")
    wait_for(lambda: one.number("celery_queue_length") is not None, "the queues", 30)
    assert broker.process is not None

    def scrape() -> None:
        began = time.monotonic()
        found = one.numbers()
        assert time.monotonic() - began < 2
        assert found["celery_workers_online", frozenset()] == 1
        assert sum(number for (name, _), number in found.items() if name == "celery_tasks_total") == 1

    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            scrape()
            time.sleep(0.5)
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)
    broker.kill()
    one.wait_number(0, "flowerbed_broker_connected")
    scrape()
    broker.start()
    one.wait_number(1, "flowerbed_broker_connected")
    assert (one.number("flowerbed_broker_reconnects_total") or 0) >= 1
    assert (one.number("flowerbed_broker_away_seconds_total") or 0) > 0


def test_without_a_history_everything_is_counted_and_its_metrics_are_not_there(
    start: Start, publish: Publisher
) -> None:
    one = start(history=False)
    publish("task-received", uuid="1", name="shop.a")
    one.wait_number(1, "celery_tasks_total", state="received")
    assert not {name for name in one.names() if name.startswith("flowerbed_history")}
    assert one.health()["history"] == "off"
