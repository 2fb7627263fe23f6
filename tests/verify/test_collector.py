"""The collector as the role runs it: it counts the workload, remembers it, and survives what kills it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.hosts import COLLECTOR, Host, wait_for

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

SCRAPE = """
import json, urllib.request
print(json.dumps(urllib.request.urlopen("http://127.0.0.1:8000/metrics", timeout=10).read().decode()))
"""
ROWS = """
import json, sqlite3
history = sqlite3.connect("file:/var/lib/flower/main/history.sqlite?mode=ro", uri=True)
print(json.dumps(dict(history.execute("SELECT state, count(*) FROM tasks WHERE name IS NOT NULL GROUP BY state"))))
"""
CHECK = """
import json, sqlite3
history = sqlite3.connect("file:/var/lib/flower/main/history.sqlite?mode=ro", uri=True)
print(json.dumps(history.execute("PRAGMA integrity_check").fetchall()))
"""


def samples(host: Host) -> Samples:
    """All numbers of the collector, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(str(host.python(SCRAPE)))
        for sample in family.samples
    }


def total(found: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over all series that have these labels."""
    return sum(value for (known, own), value in found.items() if known == name and labels.items() <= dict(own).items())


@pytest.fixture(scope="module", autouse=True)
def a_bunch_of_tasks(host: Host) -> None:
    """The feeder sends a bunch when it starts."""
    host.run("systemctl", "restart", "celery-feeder")


def test_the_workload_is_counted(host: Host) -> None:
    def counted() -> bool:
        found = samples(host)
        kinds = ("sent", "received", "started", "succeeded", "failed", "retried")
        return all(total(found, "celery_tasks_total", state=kind) > 0 for kind in kinds)

    wait_for("tasks counted in every state of the workload", counted, seconds=120)
    found = samples(host)
    assert total(found, "celery_workers_online") == 2
    queues = {dict(labels)["queue"] for name, labels in found if name == "celery_queue_length"}
    assert {"default", "hashing", "compression", "reports"} <= queues
    assert total(found, "flowerbed_events_dropped_total") == 0
    assert total(found, "flowerbed_history_up") == 1


def test_the_workload_is_remembered(host: Host) -> None:
    wait_for(
        "tasks in every state of the workload", lambda: {"SUCCESS", "FAILURE"} <= host.python(ROWS).keys(), seconds=120
    )


def test_killed_it_comes_back_and_has_forgotten_nothing(host: Host) -> None:
    before, rows, pid = samples(host), sum(host.python(ROWS).values()), host.main_pid(COLLECTOR)
    host.run("kill", "-KILL", str(pid))
    wait_for("another process", lambda: host.main_pid(COLLECTOR) not in (0, pid), seconds=60)
    after = wait_for("it answers", lambda: samples(host), seconds=60)
    # A scrape may come before the counters of the killed one are read: until then it gives none.
    after = wait_for(
        "counters go on where they were",
        lambda: (
            (found := samples(host))
            and total(found, "celery_tasks_total") >= total(before, "celery_tasks_total")
            and found
        ),
        seconds=60,
    )
    backwards = {
        key: (value, after[key])
        for key, value in before.items()
        if key[0] == "celery_tasks_total" and key in after and after[key] < value
    }
    assert not backwards
    assert sum(host.python(ROWS).values()) >= rows
    assert host.python(CHECK) == [["ok"]]


def test_the_credentials_are_no_more_than_it_needs(host: Host) -> None:
    names = host.python(
        "import json; print(json.dumps(list(json.load(open('/etc/flower/main/credentials/collector.json')))))"
    )
    assert set(names) == {"celery", "history_url", "options"}


def test_its_port_is_on_loopback(host: Host) -> None:
    found = [line.split()[3] for line in host.run("ss", "-Hlnt").splitlines() if line.split()[3].endswith(":8000")]
    assert found == ["127.0.0.1:8000"]
