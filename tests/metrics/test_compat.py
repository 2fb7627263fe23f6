"""celery-exporter's dashboards find what they look for: compared with what it said itself to the same events."""

from __future__ import annotations

from datetime import datetime, timezone

from exporter_events import RECORDED, events, heartbeats
from metrics_support import change, heartbeat, read, samples, value

from flowerbed.collector.events import Event
from flowerbed.collector.tasks import Folder
from flowerbed.metrics import compat, names
from flowerbed.metrics.exposition import Writer
from flowerbed.metrics.observe import Observer, Options
from flowerbed.metrics.registry import Registry
from flowerbed.redact import Redactor
from flowerbed.settings import Redact

#: 0.12 has one more
IN_RECORD = [metric for metric in compat.METRICS if metric is not compat.QUEUE_WAIT]


def counted() -> Observer:
    one = Observer(Registry(), Options(celery_exporter=True))
    folder = Folder(Redactor(Redact()))
    for fields in events():
        event = Event(**fields)
        one.take(event, folder.fold(event, event.timestamp), event.timestamp)
    one.settle(everything=True)
    # who sent the events of tasks is a worker too: only the exporter's two are to be compared
    one.workers.known.clear()
    for fields in heartbeats():
        one.take(heartbeat(fields["hostname"], active=fields["active"]), None, 0.0)
    return one


def test_names_labels_and_numbers_are_the_exporters() -> None:
    recorded = read(RECORDED.read_text())
    theirs = {
        key: number for key, number in recorded.items() if "queue_length" not in key[0] and "_active_" not in key[0]
    }
    found = samples(counted().registry)
    assert len(theirs) > 50
    assert {key: found.get(key) for key in theirs} == theirs
    mine = {metric.name for metric in IN_RECORD}
    extra = [key for key in found if _base(key[0]) in mine and key not in recorded]
    assert extra == []


def test_types_and_help_are_the_exporters() -> None:
    def heads(text: str) -> set[str]:
        return {line for line in text.splitlines() if line.startswith("#")}

    registry = Registry()
    for metric in IN_RECORD:
        registry.source(metric, lambda metric=metric: {("x",) * len(metric.labels): 0})  # type: ignore[misc]
    theirs = heads(RECORDED.read_text())
    assert heads(Writer().write(registry.snapshot()).decode()) == theirs


def test_labels_are_the_exporters() -> None:
    theirs: dict[str, set[str]] = {}
    for name, labels in read(RECORDED.read_text()):
        theirs.setdefault(_base(name), set()).update(dict(labels).keys() - {"le"})
    assert {metric.name: set(metric.labels) for metric in IN_RECORD} == theirs


def test_waiting_begins_at_the_eta() -> None:
    one = Observer(Registry(), Options(celery_exporter=True))
    one.change(change("started", sent=1e9 - 70))
    one.change(change("started", sent=1e9 - 4000, eta=datetime.fromtimestamp(1e9 - 20, timezone.utc).isoformat()))
    one.change(change("started", sent=1e9 - 10, eta="soon"))
    one.change(change("started", sent=1e9 + 10))
    one.change(change("started"))
    labels = {"hostname": "host1", "name": "shop.add", "queue_name": "orders"}
    assert value(one.registry, "celery_task_queue_wait_time_sum", **labels) == 100
    assert value(one.registry, "celery_task_queue_wait_time_count", **labels) == 4


def test_a_task_without_a_name_is_what_its_dashboards_leave_out() -> None:
    one = Observer(Registry(), Options(celery_exporter=True))
    one.change(change("succeeded", name=None, queue=None))
    labels = {"hostname": "host1", "name": "None", "queue_name": "celery"}
    assert value(one.registry, "celery_task_succeeded_total", **labels) == 1


def test_only_the_length_of_queues_has_both_names() -> None:
    assert {one.name for one in compat.METRICS} & {one.name for one in names.METRICS} == {"celery_queue_length"}


def test_a_host_is_up_while_one_of_its_workers_is() -> None:
    one = Observer(Registry(), Options(celery_exporter=True, forget_seconds=60))
    one.check(0.0, 1)
    one.take(heartbeat("w1@vm", active=2), None, 0.0)
    one.take(heartbeat("w2@vm", active=3), None, 0.0)
    assert value(one.registry, "celery_worker_tasks_active", hostname="vm") == 5
    one.take(heartbeat("w2@vm", active=3), None, 5.0)
    one.check(7.0, 1)
    assert value(one.registry, "celery_worker_up", hostname="vm") == 1
    assert value(one.registry, "celery_worker_tasks_active", hostname="vm") == 3
    one.check(20.0, 1)
    assert value(one.registry, "celery_worker_up", hostname="vm") == 0
    one.check(66.0, 1)
    assert value(one.registry, "celery_worker_up", hostname="vm") is None


def test_series_of_a_host_go_with_its_last_worker() -> None:
    one = counted()
    one.check(1.0, 1)
    one.check(2000.0, 1)
    hosts = {dict(labels).get("hostname") for _, labels in samples(one.registry)}
    assert hosts == {None, "web1"}


def _base(name: str) -> str:
    return (
        name
        if name.startswith("celery_active")
        else name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
    )
