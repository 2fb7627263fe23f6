"""Some of everything that Celery does: every number and every row is as the workload's own log says."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.hosts import wait_for
from tests.observed.observed import STATES, Numbers, Observed, Work, total, wait_equal, wrong_rows

ENDS = {"failed": "celery_task_failures_total", "retried": "celery_task_retries_total"}
TYPES = {f"task-{state}" for state in STATES}


@pytest.fixture(scope="module")
def before(observed: Observed) -> Numbers:
    """What was counted before."""
    return observed.numbers()


@pytest.fixture(scope="module")
def work(observed: Observed, before: Numbers) -> Work:
    """The mix, done to its end."""
    place = observed.mark()
    observed.drive("mix")
    return observed.wait_done(place)


def difference(observed: Observed, before: Numbers, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Series of a family by some of its labels: what was added since, without zeros."""
    found: Counter[tuple[str, ...]] = Counter()
    for numbers, sign in ((observed.numbers(), 1), (before, -1)):
        for (series, said), value in numbers.items():
            if series == name:
                found[tuple(dict(said)[label] for label in labels)] += sign * value
    return {key: value for key, value in found.items() if value}


def test_the_mix_has_some_of_everything(work: Work) -> None:
    """So that the other tests compare something."""
    assert {state for _, state in work.counts()} == set(STATES)
    assert {line["error"] for line in work.of("failed")} >= {
        "ValueError", "KeyError", "OSError", "TeapotError", "TypeError", "ConnectionError",
    }  # fmt: skip
    assert len([line for line in work.of("sent") if line["parent"]]) >= 10
    assert len(work.of("revoked")) >= 6


def test_tasks_by_name_state_and_queue(observed: Observed, before: Numbers, work: Work) -> None:
    expected = {key: float(value) for key, value in work.counts_by_queue().items()}

    def found() -> dict[tuple[str, ...], float]:
        return difference(observed, before, "celery_tasks_total", "task", "state", "queue")

    wait_equal("celery_tasks_total", expected, found)


def test_failures_and_retries_by_class(observed: Observed, before: Numbers, work: Work) -> None:
    # Reject is told in words of its own, in which there is no class, and an unlocker of chords without a reason
    classes = {"Reject": "unknown", "NoneType": "unknown"}
    expected = Counter(
        (what, work.names[line["id"]][0], classes.get(line["error"], line["error"]))
        for what in ENDS
        for line in work.of(what)
    )

    def found() -> dict[tuple[str, ...], float]:
        return {
            (what, *labels): number
            for what, family in ENDS.items()
            for labels, number in difference(observed, before, family, "task", "exception").items()
        }

    wait_equal("failures and retries", dict(expected), found)


def test_histograms(observed: Observed, before: Numbers, work: Work) -> None:
    succeeded = Counter((work.names[line["id"]][0],) for line in work.of("succeeded"))
    family = "celery_task_runtime_seconds"
    wait_equal(family, dict(succeeded), lambda: difference(observed, before, f"{family}_count", "task"))
    starts = {line["id"]: line["time"] for line in work.of("started")}
    took = {line["id"]: line["time"] - starts[line["id"]] for line in work.of("succeeded")}
    slept = sum(seconds for uuid, seconds in took.items() if work.names[uuid][0] == "observed.sleep")
    sums = difference(observed, before, f"{family}_sum", "task")
    assert sums["observed.sleep",] == pytest.approx(slept, abs=0.5)
    # each attempt is sent and received once
    received = Counter((work.names[line["id"]][1],) for line in work.of("received"))
    assert difference(observed, before, "celery_task_queue_wait_seconds_count", "queue") == dict(received)
    started = Counter((work.names[line["id"]][1],) for line in work.of("started"))
    assert difference(observed, before, "celery_task_prefetch_seconds_count", "queue") == dict(started)
    # an ETA is no prefetching, and a task that waits for its turn is
    assert difference(observed, before, "celery_task_prefetch_seconds_sum", "queue")["default",] < len(starts) * 3


def test_events_by_type(observed: Observed, before: Numbers, work: Work) -> None:
    found = {
        kind: number for (kind,), number in difference(observed, before, "celery_events_total", "type").items()
        if kind in TYPES
    }  # fmt: skip
    assert found == {f"task-{state}": number for state, number in Counter(line["what"] for line in work.lines).items()}


def test_rows(observed: Observed, work: Work) -> None:
    wait_equal("rows", {}, lambda: wrong_rows(work, observed.rows()))
    rows = observed.rows()
    for line in work.of("sent"):
        assert rows[line["id"]]["sent"] == pytest.approx(line["time"], abs=2), "of the last attempt or the first"
        assert rows[line["id"]]["producer"]
    finished = [rows[line["id"]] for line in work.of("succeeded")]
    assert all(row["runtime_seconds"] is not None and row["wait_seconds"] is not None for row in finished)
    assert any("on purpose" in (row["traceback"] or "") for row in rows.values())
    assert {row["result"] for row in finished if row["name"] == "observed.sleep"} == {"4.0"} or any(
        row["result"] in ("4", "4.0") for row in finished
    )


def test_queues_and_workers(observed: Observed, work: Work) -> None:
    """When all is done, nothing waits, nothing runs, and two workers are there."""
    observed.wait_number(0, "celery_tasks_running")
    numbers = observed.numbers()
    workers = {observed.worker("a"): 2, observed.worker("b"): 1}
    assert total(numbers, "celery_workers_online") == 2
    assert total(numbers, "celery_workers_lost") == 0
    for worker, processes in workers.items():
        assert total(numbers, "celery_worker_online", worker=worker) == 1
        assert total(numbers, "celery_worker_active_tasks", worker=worker) == 0
        assert abs(total(numbers, "celery_worker_last_seen_timestamp_seconds", worker=worker) - time.time()) < 10
        wait_for(
            "what the worker says of itself",
            lambda worker=worker, processes=processes: (
                observed.number("celery_worker_concurrency", worker=worker) == processes
                and observed.number("celery_worker_memory_max_bytes", worker=worker) > 1e7
            ),
            90,
        )
        taken = len({(line["id"], line["time"]) for line in observed.work().of("started") if line["worker"] == worker})
        observed.wait_number(taken, "celery_worker_processed_tasks_total", worker=worker)
    for queue in ("default", "other", "slow"):
        observed.wait_number(0, "celery_queue_length", queue=queue)
        observed.wait_number(1, "celery_queue_consumers", queue=queue)
        observed.wait_number(0, "celery_queue_oldest_seconds", queue=queue)
    observed.wait_number(0, "celery_unacked_messages")


def test_a_queue_that_nobody_consumes(observed: Observed) -> None:
    """All priorities are added up, and what waits grows old; then a worker comes and takes it."""
    place, sent = observed.mark(), time.time()
    observed.drive("send", "40", "nobody")
    observed.wait_number(40, "celery_queue_length", queue="nobody")
    observed.wait_number(0, "celery_queue_consumers", queue="nobody")
    wait_for("the oldest to be older", lambda: observed.number("celery_queue_oldest_seconds", queue="nobody") > 5)
    assert observed.number("celery_queue_oldest_seconds", queue="nobody") < time.time() - sent + 5
    unit = ("systemd-run", "--unit=observed-late", "--uid=observed", "--working-directory=/opt/workload/app")
    command = (
        "/opt/workload/venv/bin/celery",
        "-A",
        "observed",
        "worker",
        "-E",
        "-c",
        "1",
        "-Q",
        "nobody",
        "-n",
        "late@%h",
    )
    observed.host.run(*unit, *command)
    try:
        wait_for("the late worker to do it", lambda: len(observed.work(place).of("succeeded")) == 40, 60)
        observed.wait_number(0, "celery_queue_length", queue="nobody")
        observed.wait_number(1, "celery_worker_online", worker=observed.worker("late"))
        observed.wait_number(1, "celery_queue_consumers", queue="nobody")
        wait_equal("rows", {}, lambda: wrong_rows(observed.work(place), observed.rows()))
    finally:
        observed.host.run("systemctl", "stop", "observed-late")
    # it has said goodbye: it is offline, and not lost
    observed.wait_number(0, "celery_worker_online", worker=observed.worker("late"))
    assert observed.number("celery_workers_lost") == 0
    observed.wait_number(0, "celery_queue_consumers", queue="nobody")


def test_what_runs_and_what_waits_for_its_turn(observed: Observed) -> None:
    place = observed.mark()
    observed.drive("sleep", "12", "slow")
    wait_for("it to begin", lambda: observed.work(place).of("started"))
    observed.drive("send", "3", "slow")
    observed.wait_number(1, "celery_tasks_running", task="observed.sleep")
    observed.wait_number(1, "celery_worker_active_tasks", worker=observed.worker("b"))
    # three are prefetched; the one that runs is acknowledged when it begins
    observed.wait_number(3, "celery_unacked_messages")
    if observed.on_rabbitmq:
        observed.wait_number(3, "celery_queue_unacked", queue="slow")
    work = observed.wait_done(place)
    observed.wait_number(0, "celery_tasks_running")
    observed.wait_number(0, "celery_unacked_messages")
    wait_equal("rows", {}, lambda: wrong_rows(work, observed.rows()))


def test_what_the_collector_says_of_itself(observed: Observed) -> None:
    numbers = observed.numbers()
    for name in (
        "flowerbed_events_dropped_total", "flowerbed_events_invalid_total", "flowerbed_history_failures_total",
        "flowerbed_history_dropped_total", "flowerbed_history_refused_total", "flowerbed_metric_folded_total",
        "flowerbed_metric_failures_total", "flowerbed_queues_failures_total", "flowerbed_broker_reconnects_total",
        "flowerbed_broker_away_seconds_total", "flowerbed_tasks_forgotten_total", "flowerbed_events_doubled_total",
    ):  # fmt: skip
        assert total(numbers, name) == 0, name
        assert any(series == name for series, _ in numbers), f"{name} is not served"
    now = time.time()
    for name in ("flowerbed_queues_success_timestamp_seconds", "flowerbed_last_event_timestamp_seconds"):
        assert abs(total(numbers, name) - now) < 30, name
    assert abs(total(numbers, "flowerbed_event_lag_seconds")) < 1
    assert total(numbers, "flowerbed_history_up") == total(numbers, "flowerbed_broker_connected") == 1
    assert total(numbers, "flowerbed_history_writes_total") >= len(observed.rows())
    assert 1e7 < total(numbers, "process_resident_memory_bytes") < 2e8
    assert total(numbers, "flowerbed_build_info") == 1
    assert observed.health() == {"status": "ok", "reader": "reading", "counting": "ok", "dropped": 0, "history": "ok"}


def test_the_front_door_hands_the_metrics_on(observed: Observed) -> None:
    """To whom it is allowed, which outsiders are not."""
    answer = observed.host.get("/collector/metrics")
    assert answer.status == 403
    assert "celery_" not in answer.text
