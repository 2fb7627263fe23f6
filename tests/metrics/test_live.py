"""Everything that the table of metrics promises, of the real process with real workers over a real Redis."""

from __future__ import annotations

import re
import shutil
import subprocess
import time

import pytest
from addon_support import wait_for
from world import EXPECTED, FAILURES, ROUNDS, WORKERS, World

from flowerbed.metrics import names
from flowerbed.metrics.names import COUNTER, HISTOGRAM

#: families that a broker other than Redis tells, or that are there once there is something to say
NOT_HERE = {names.QUEUE_UNACKED.name}


def total(state: str, *queues: str) -> int:
    return sum(states.get(state, 0) for (_, queue), states in EXPECTED.items() if not queues or queue in queues)


def test_every_task_is_counted_by_state_and_queue_and_nothing_else_is(world: World) -> None:
    found = {
        (labels["task"], labels["queue"], labels["state"]): number
        for labels, number in world.ours.series("celery_tasks_total")
    }
    expected = {
        (task, queue, state): states.get(state, 0)
        for (task, queue), states in EXPECTED.items()
        for state in names.STATES
    }
    assert found == expected


def test_every_metric_of_the_table_is_served_with_its_labels_and_no_other_is(world: World) -> None:
    text = world.ours.get("/metrics")[1]
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert kinds == {one.name: one.kind for one in names.METRICS if one.name not in NOT_HERE}
    found: dict[str, set[str]] = {}
    for name, labels in world.ours.numbers():
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        found.setdefault(base if kinds.get(base) == HISTOGRAM else name, set()).update(dict(labels).keys() - {"le"})
    assert found == {one.name: set(one.labels) for one in names.METRICS if one.name in kinds}


def test_promtool_has_nothing_to_say(world: World) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: install Debian's package prometheus."
    text = world.ours.get("/metrics")[1]
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_real_prometheus_has_all_of_it(world: World) -> None:
    lines = [line for line in world.ours.get("/metrics")[1].splitlines() if not line.startswith("#")]
    assert world.prometheus.number('scrape_samples_scraped{job="flowerbed"}') == len(lines)
    assert world.prometheus.number('up{job="flowerbed"}') == 1
    course = world.prometheus.course('sum(celery_tasks_total{job="flowerbed"})')
    assert course[0][1][-1] == sum(sum(states.values()) for states in EXPECTED.values())
    for metric in (one for one in names.METRICS if one.kind == COUNTER and one is not names.WORKER_PROCESSED):
        for labels, number in world.prometheus.query(f'resets({metric.name}{{job="flowerbed"}}[10m])'):
            assert number == 0, f"{labels} went back"


def test_failures_and_retries_are_counted_by_class_of_the_exception(world: World) -> None:
    found = {
        (labels["task"], labels["exception"]): number
        for labels, number in world.ours.series("celery_task_failures_total")
    }
    assert found == {key: ROUNDS * number for key, number in FAILURES.items()}
    assert world.ours.series("celery_task_retries_total") == [
        ({"task": "shop.retry", "exception": "OSError"}, 2 * ROUNDS)
    ]


def test_runtimes_have_the_buckets_of_their_task(world: World) -> None:
    def buckets(task: str) -> dict[str, float]:
        return {
            labels["le"]: number
            for labels, number in world.ours.series("celery_task_runtime_seconds_bucket", task=task)
        }

    assert buckets("report.slow") == {"1.0": ROUNDS, "60.0": 2 * ROUNDS, "604800.0": 2 * ROUNDS, "+Inf": 2 * ROUNDS}
    assert len(buckets("shop.add")) == 17
    assert "86400.0" in buckets("shop.add")
    assert world.ours.number("celery_task_runtime_seconds_sum", task="report.slow") == (
        pytest.approx(1.6 * ROUNDS, abs=0.4)
    )
    succeeded = {"shop.add": 26, "shop.progress": 1, "report.slow": 2}
    assert {labels["task"]: number for labels, number in world.ours.series("celery_task_runtime_seconds_count")} == {
        task: ROUNDS * number for task, number in succeeded.items()
    }


def test_waits_are_counted_once_for_each_attempt(world: World) -> None:
    for queue in ("celery", "images", "gone", "long"):
        received, started = total("received", queue), total("started", queue)
        assert world.ours.number("celery_task_queue_wait_seconds_count", queue=queue) == received
        assert world.ours.number("celery_task_prefetch_seconds_count", queue=queue) == started
    assert world.ours.number("celery_task_queue_wait_seconds_count", queue="nobody") is None
    for name in ("queue_wait", "prefetch"):
        seconds = world.ours.number(f"celery_task_{name}_seconds_sum")
        assert seconds is not None
        assert 0 < seconds < 600


def test_a_queue_that_nobody_consumes_is_told_over_all_its_priorities(world: World) -> None:
    one = world.ours
    assert one.number("celery_queue_length", queue="nobody") == 52 * ROUNDS
    assert one.number("celery_queue_consumers", queue="nobody") == 0
    assert one.number("celery_queue_consumers", queue="celery") == 2
    assert one.number("celery_queue_length", queue="images") == 0
    assert one.number("celery_queue_oldest_seconds", queue="images") == 0
    age = one.number("celery_queue_oldest_seconds", queue="nobody")
    assert age is not None
    assert 5 < age < 600
    # a snapshot is given for a second
    wait_for(lambda: (one.number("celery_queue_oldest_seconds", queue="nobody") or 0) >= age + 1, "its growing older")
    # what waits for its time: Celery acknowledges a message when its task begins to run
    assert one.number("celery_unacked_messages") == 1
    polled = one.number("flowerbed_queues_success_timestamp_seconds")
    assert polled is not None
    assert time.time() - polled < 30


def test_workers_are_known_by_their_full_names(world: World) -> None:
    one = world.ours

    def each(name: str) -> dict[str, float]:
        return {labels["worker"]: number for labels, number in one.series(name)}

    assert one.number("celery_workers_online") == len(WORKERS)
    assert each("celery_worker_online") == {**dict.fromkeys(WORKERS, 1), "w5@gone": 0}
    assert one.number("celery_workers_lost") == 1
    assert one.number("celery_worker_losses_total") == 1
    assert each("celery_worker_active_tasks") == {**dict.fromkeys(WORKERS, 0), "w4@two": 1, "w5@gone": 0}
    concurrency = each("celery_worker_concurrency")
    assert {name: concurrency[name] for name in WORKERS} == {name: number for name, (_, number) in WORKERS.items()}
    memory = each("celery_worker_memory_max_bytes")
    assert all(10e6 < memory[name] < 1e9 for name in WORKERS)
    seen = each("celery_worker_last_seen_timestamp_seconds")
    assert all(time.time() - seen[name] < 10 for name in WORKERS)
    processed = each("celery_worker_processed_tasks_total")
    assert sum(processed[name] for name in WORKERS) == total("started") - total("started", "gone")


def test_the_task_that_runs_is_told_and_the_lost_one_is_not(world: World) -> None:
    assert {labels["task"]: number for labels, number in world.ours.series("celery_tasks_running") if number} == {
        "shop.sleep": 1
    }


def test_events_are_counted_by_type_an_applications_own_too(world: World) -> None:
    found = {labels["type"]: number for labels, number in world.ours.series("celery_events_total")}
    for state in names.STATES:
        if state != "lost":
            assert found.pop(f"task-{state}") == total(state), state
    assert found.pop("task-progress") == ROUNDS
    assert found.pop("worker-online") == len(WORKERS) + 1
    assert found.pop("worker-heartbeat") > len(WORKERS)
    assert found == {"worker-offline": 0}


def test_the_collector_tells_of_itself(world: World) -> None:
    one = world.ours
    (build,) = one.series("flowerbed_build_info")
    assert build[1] == 1
    assert set(build[0]) == {"version", "python", "celery"}
    for name in ("flowerbed_broker_connected", "flowerbed_history_up"):
        assert one.number(name) == 1
    for name in (
        "flowerbed_events_dropped_total", "flowerbed_events_invalid_total", "flowerbed_broker_reconnects_total",
        "flowerbed_history_failures_total", "flowerbed_history_dropped_total", "flowerbed_metric_failures_total",
    ):  # fmt: skip
        assert one.number(name) == 0, name
    lag = one.number("flowerbed_event_lag_seconds")
    assert lag is not None
    assert -1 < lag < 5
    wait_for(lambda: one.number("flowerbed_history_backlog") == 0, "an empty backlog")
    written = one.number("flowerbed_history_writes_total")
    assert written is not None
    assert written >= one.rows()
    assert one.rows() == total("sent") - total("retried"), "a retry is no task of its own"


def test_a_restart_sets_no_counter_back(world: World) -> None:
    """Last of this file: it ends and starts the collector that the others look at."""
    one = world.ours
    kept = [metric.name for metric in names.METRICS if metric.kept]

    def counters() -> dict[object, float]:
        return {
            key: number
            for key, number in one.numbers().items()
            if re.sub(r"_(bucket|sum|count)$", "", key[0]) in kept and ("type", "worker-heartbeat") not in key[1]
        }

    before = counters()
    assert len(before) > 100
    assert one.stop() == 0
    one.start()
    wait_for(lambda: counters() == before, "the counters of before")
    one.wait_number(len(WORKERS), "celery_workers_online")
    time.sleep(2)
    assert world.prometheus.query('resets(celery_tasks_total{job="flowerbed"}[10m]) > 0') == []
    assert world.prometheus.query('resets(celery_task_runtime_seconds_bucket{job="flowerbed"}[10m]) > 0') == []
