"""What happened to tasks and workers is counted, bounded, and dies when it should."""

from __future__ import annotations

import time

import pytest
from metrics_support import change, heartbeat, observer, samples, value

from flowerbed.collector.events import Event
from flowerbed.collector.tasks import Folder
from flowerbed.metrics import names, observe
from flowerbed.redact import Redactor
from flowerbed.settings import Redact


def test_states_are_counted_and_all_of_them_are_there_from_the_first_event() -> None:
    one = observer()
    one.change(change("received"))
    one.change(change("failed", error="ValueError"))
    one.change(change("failed", error="kombu.exceptions.OperationalError"))
    counted = {
        state: value(one.registry, "celery_tasks_total", task="shop.add", state=state, queue="orders")
        for state in names.STATES
    }
    assert counted == {**dict.fromkeys(names.STATES, 0), "received": 1, "failed": 2}
    assert value(one.registry, "celery_task_failures_total", task="shop.add", exception="ValueError") == 1
    assert value(one.registry, "celery_task_failures_total", task="shop.add", exception="OperationalError") == 1


def test_what_is_not_known_is_called_so() -> None:
    one = observer()
    one.change(change("retried", name=None, queue=None))
    assert value(one.registry, "celery_tasks_total", task="unknown", state="retried", queue="unknown") == 1
    assert value(one.registry, "celery_task_retries_total", task="unknown", exception="unknown") == 1


def test_durations_fall_into_buckets_with_their_bounds_included() -> None:
    one = observer(buckets=[1, 10], task_buckets={"slow.*": [3600, 86400]})
    for seconds in (0.5, 1.0, 1.01, 10.0, 11.0, -3.0):
        one.change(change("succeeded", runtime_seconds=seconds))
    one.change(change("succeeded", name="slow.job", runtime_seconds=7200))
    one.change(change("succeeded", runtime_seconds=None))
    found = samples(one.registry)

    def bucket(task: str, le: str) -> float:
        return found["celery_task_runtime_seconds_bucket", frozenset({("task", task), ("le", le)})]

    assert [bucket("shop.add", le) for le in ("1.0", "10.0", "+Inf")] == [3, 5, 6]
    assert found["celery_task_runtime_seconds_count", frozenset({("task", "shop.add")})] == 6
    assert found["celery_task_runtime_seconds_sum", frozenset({("task", "shop.add")})] == pytest.approx(23.51)
    assert [bucket("slow.job", le) for le in ("3600.0", "86400.0", "+Inf")] == [0, 1, 1]


def test_waits_are_by_queue_on_whichever_event_knows_them() -> None:
    one = observer()
    one.change(change("received", queue_seconds=4.0))
    one.change(change("sent", queue_seconds=2.0, state="RECEIVED"))
    one.change(change("started", prefetch_seconds=0.2))
    assert value(one.registry, "celery_task_queue_wait_seconds_sum", queue="orders") == 6
    assert value(one.registry, "celery_task_prefetch_seconds_count", queue="orders") == 1


def test_denied_tasks_are_counted_as_other() -> None:
    one = observer(allow=["shop.*"], deny=["*.noise"])
    for name in ("shop.add", "shop.noise", "celery.backend_cleanup"):
        one.change(change("succeeded", name=name, runtime_seconds=1.0))
    assert value(one.registry, "celery_tasks_total", task="shop.add", state="succeeded", queue="orders") == 1
    assert value(one.registry, "celery_tasks_total", task="other", state="succeeded", queue="orders") == 2
    assert value(one.registry, "celery_task_runtime_seconds_count", task="other") == 2
    assert value(one.registry, "flowerbed_metric_folded_total", metric="celery_tasks_total") == 0


def test_nothing_is_lost_and_little_is_made_of_a_flood_of_names() -> None:
    one = observer(limit=100, celery_exporter=True)
    for number in range(3000):
        task = f"flood.{number}"
        one.take(
            Event(type=f"task-{number}", uuid="x", hostname=f"w{number}@h{number}", local_received=1e9, timestamp=1e9),
            change("failed", name=task, queue=f"q{number}", hostname=f"w@h{number}", error=f"Error{number}"),
            0.0,
        )
        one.change(change("succeeded", name=task, queue=f"q{number}", runtime_seconds=1.0))
    found = samples(one.registry)
    totals: dict[str, float] = {}
    lines: dict[str, int] = {}
    for (name, labels), number in found.items():
        lines[name] = lines.get(name, 0) + 1
        if dict(labels).get("state", "failed") == "failed":
            totals[name] = totals.get(name, 0) + number
    assert totals["celery_tasks_total"] == 3000
    assert totals["celery_task_failures_total"] == 3000
    assert totals["celery_task_failed_total"] == 3000
    assert totals["celery_task_runtime_seconds_count"] == 3000
    assert totals["celery_events_total"] == 3000
    assert max(lines.values()) <= 102, "beyond the limit there are only a few series of `other`"
    assert lines["celery_task_runtime_seconds_bucket"] <= 100 + 17
    assert value(one.registry, "flowerbed_metric_folded_total", metric="celery_task_failures_total") == 2900
    assert value(one.registry, "flowerbed_metric_series_limit") == 100
    assert value(one.registry, "celery_workers_online") == 100
    assert value(one.registry, "flowerbed_metric_folded_total", metric="celery_worker_online") == 2900


def test_a_worker_without_a_goodbye_is_lost_after_three_heartbeats() -> None:
    one = observer()
    for name in ("w1@vm", "w2@vm"):
        one.take(heartbeat(name, active=4, processed=9), None, 100.0)
    assert one.check(100.0, "first") == []
    one.take(heartbeat("w2@vm"), None, 106.0)
    assert one.check(106.0, "first") == []
    assert one.check(106.1, "first") == ["w1@vm"]
    assert one.check(106.2, "first") == [], "each loss is told once"
    assert value(one.registry, "celery_workers_online") == 1
    assert value(one.registry, "celery_workers_lost") == 1
    assert value(one.registry, "celery_worker_losses_total") == 1
    assert value(one.registry, "celery_worker_online", worker="w1@vm") == 0
    assert value(one.registry, "celery_worker_online", worker="w2@vm") == 1
    assert value(one.registry, "celery_worker_active_tasks", worker="w1@vm") == 0
    assert value(one.registry, "celery_worker_processed_tasks_total", worker="w1@vm") == 9
    assert value(one.registry, "celery_worker_last_seen_timestamp_seconds", worker="w1@vm") == 1e9 + 0.5


def test_a_worker_that_says_goodbye_is_not_lost_and_is_forgotten_later() -> None:
    one = observer(forget_seconds=60)
    one.check(0.0, 1)
    one.take(heartbeat(), None, 0.0)
    one.take(heartbeat(kind="worker-offline"), None, 1.0)
    # a straggler of its last batch does not call it back
    one.take(Event(type="task-succeeded", uuid="1", hostname="w1@host1", timestamp=1e9, local_received=1e9), None, 1.1)
    assert one.check(30.0, 1) == []
    assert value(one.registry, "celery_worker_online", worker="w1@host1") == 0
    assert value(one.registry, "celery_workers_lost") == 0
    one.check(61.5, 1)
    assert value(one.registry, "celery_worker_online", worker="w1@host1") is None


def test_tasks_are_signs_of_life_and_senders_of_tasks_are_no_workers() -> None:
    one = observer()
    one.check(0.0, 1)
    one.take(heartbeat(), None, 0.0)
    for second in range(1, 60):
        started = Event(type="task-started", uuid="1", hostname="w1@host1", timestamp=1e9, local_received=1e9)
        sent = Event(type="task-sent", uuid="1", hostname="gen1@web", timestamp=1e9, local_received=1e9)
        one.take(started, None, float(second))
        one.take(sent, None, float(second))
        assert one.check(float(second), 1) == []
    assert value(one.registry, "celery_workers_online") == 1


def test_nobody_is_lost_while_the_broker_is_away_nor_at_once_when_it_is_back() -> None:
    one = observer()
    one.check(0.0, "a")
    one.take(heartbeat(), None, 0.0)
    assert one.check(300.0, None) == []
    assert value(one.registry, "celery_workers_online") == 1
    assert one.check(301.0, "b") == []
    assert one.check(306.9, "b") == []
    assert one.check(307.1, "b") == ["w1@host1"]


def test_the_workers_own_heartbeat_counts_and_nonsense_does_not() -> None:
    one = observer()
    one.check(0.0, 1)
    one.take(heartbeat("slow@h", freq=30.0), None, 0.0)
    one.take(heartbeat("mad@h", freq=1e9), None, 0.0)
    one.take(heartbeat("madder@h", freq=-1.0, active=-5, processed=-5), None, 0.0)
    for name in ("active_tasks", "processed_tasks_total"):
        assert value(one.registry, f"celery_worker_{name}", worker="madder@h") == 0
    assert one.check(60.0, 1) == ["mad@h", "madder@h"]


def test_the_label_of_the_worker_is_only_there_when_it_is_asked_for_and_goes_with_the_worker() -> None:
    one = observer(worker_label=True, forget_seconds=60)
    one.check(0.0, 1)
    one.take(heartbeat("w1@h"), change("succeeded", hostname="w1@h", runtime_seconds=1.0), 0.0)
    one.take(heartbeat("w2@h"), change("succeeded", hostname="w2@h", runtime_seconds=1.0), 50.0)
    one.change(change("sent", hostname="gen1@web"))
    labels = {"task": "shop.add", "queue": "orders"}
    assert value(one.registry, "celery_tasks_total", **labels, state="succeeded", worker="w1@h") == 1
    assert value(one.registry, "celery_tasks_total", **labels, state="sent", worker="") == 1
    one.check(61.0, 1)
    assert value(one.registry, "celery_tasks_total", **labels, state="succeeded", worker="w1@h") is None
    assert value(one.registry, "celery_task_runtime_seconds_count", task="shop.add", worker="w1@h") is None
    assert value(one.registry, "celery_tasks_total", **labels, state="succeeded", worker="w2@h") == 1


def test_running_tasks_come_from_the_folder() -> None:
    one = observer(deny=["b"])
    one.running(lambda: {"a": 2, "b": 1, "c": 0, "": 1})
    found = {dict(labels)["task"]: n for (name, labels), n in samples(one.registry).items() if name.endswith("running")}
    assert found == {"a": 2, "other": 1, "c": 0, "unknown": 1}


def test_the_oldest_message_is_known_from_what_was_sent() -> None:
    one = observer()
    one.change(change("sent", id="1", state="PENDING", updated=100.0))
    one.change(change("sent", id="2", state="PENDING", updated=101.0))
    assert one.waiting.oldest("orders") == 100.0
    assert one.waiting.sent("orders", "2") == 101.0
    one.change(change("received", id="1"))
    assert one.waiting.oldest("orders") == 101.0
    one.waiting.empty("orders", 101.5)
    one.check(0.0, None)
    assert one.waiting.oldest("orders") is None
    assert one.queues() == ["orders"]


def test_every_metric_that_is_counted_is_in_the_table() -> None:
    one = observer()
    known = {metric.name for metric in names.METRICS}
    assert {family.metric.name for family in one.registry.families} <= known
    assert {metric.name for metric, _ in one.registry.sources} <= known
    for metric in names.METRICS:
        assert metric.name.endswith("_total") == (metric.kind == names.COUNTER)


def test_a_worker_that_is_faster_than_the_event_of_sending_has_its_queue_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = observer(celery_exporter=True)
    folder = Folder(Redactor(Redact()))

    def take(kind: str, uuid: str, hostname: str = "w1@host1", **more: object) -> None:
        now = time.time()
        event = Event(type=kind, uuid=uuid, hostname=hostname, timestamp=now, local_received=now, **more)
        one.take(event, folder.fold(event, now), 0.0)

    # the first of all: nobody knows yet whether sending is told
    take("task-received", "2", name="shop.add")
    take("task-sent", "1", "gen1@web", name="shop.add", queue="orders")
    take("task-sent", "2", "gen1@web", name="shop.add", queue="orders")
    # and one whose sender does not tell
    take("task-received", "3", name="shop.add")
    assert one.settle() == []
    assert set(one.held) == {"2", "3"}
    monkeypatch.setattr(observe, "ASIDE_SECONDS", 0)
    assert one.settle() == ["2", "3"]
    labels = {"task": "shop.add", "state": "received"}
    assert value(one.registry, "celery_tasks_total", **labels, queue="orders") == 1
    assert value(one.registry, "celery_tasks_total", **labels, queue="unknown") == 1
    theirs = {"name": "shop.add", "hostname": "host1"}
    assert value(one.registry, "celery_task_received_total", **theirs, queue_name="orders") == 1
    assert value(one.registry, "celery_task_received_total", **theirs, queue_name="celery") == 1


def test_nothing_is_put_aside_for_long_where_sending_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "UNDECIDED_TASKS", 3)
    one, folder = observer(), Folder(Redactor(Redact()))
    for number in range(5):
        now = time.time()
        event = Event(
            type="task-received", uuid=str(number), name="a", hostname="w@h", timestamp=now, local_received=now
        )
        one.take(event, folder.fold(event, now), 0.0)
    assert set(one.held) == {"0", "1", "2"}
    assert value(one.registry, "celery_tasks_total", task="a", state="received", queue="unknown") == 2
