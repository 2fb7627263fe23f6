"""The text is what Prometheus reads, whatever names tasks have."""

from __future__ import annotations

import math
import shutil
import subprocess

import pytest
from metrics_support import change, heartbeat, observer, read, samples, value
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from flowerbed.metrics.exposition import Writer, wants_openmetrics
from flowerbed.metrics.names import GAUGE, Metric
from flowerbed.metrics.observe import Observer
from flowerbed.metrics.registry import Registry

ODD = [
    'quote"', "back\\slash", "line\nbreak", "per%cent %d %s", "NUL\0", "ünïcödé ☃", "{braces},=", "half\ud800", "",
    "x" * 5000, "\\n", " ",
]  # fmt: skip


def busy() -> Observer:
    one = observer(celery_exporter=True)
    for name in ODD:
        one.take(heartbeat(f"w@{name}"), change("failed", name=name, queue=name or None, error=name), 0.0)
        one.change(change("succeeded", name=name, runtime_seconds=1e-7, hostname=f"w@{name}"))
        one.change(change("received", queue=name, queue_seconds=3.5))
    return one


@pytest.mark.parametrize("openmetrics", [False, True])
def test_prometheus_clients_parsers_read_every_name(openmetrics: bool) -> None:
    one = busy()
    found = samples(one.registry, openmetrics)
    tasks = {dict(labels)["task"] for name, labels in found if name == "celery_tasks_total"}
    assert {'quote"', "back\\slash", "line?break", "per%cent %d %s", "NUL?", "ünïcödé ☃", "unknown", "\\n"} <= tasks
    assert max(map(len, tasks)) == 200
    total = sum(
        n for (name, labels), n in found.items() if name == "celery_tasks_total" and ("state", "failed") in labels
    )
    assert total == len(ODD)


def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: install Debian's package prometheus."
    text = Writer().write(busy().registry.snapshot())
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_a_histogram_and_a_counter_say_what_prometheus_clients_own_say() -> None:
    theirs = CollectorRegistry()
    histogram = Histogram("celery_task_runtime_seconds", "x", ["task"], registry=theirs, buckets=[0.1, 2, 86400])
    counter = Counter("celery_task_failures", "x", ["task", "exception"], registry=theirs)
    one = observer(buckets=[0.1, 2, 86400])
    for seconds in (0.05, 0.1, 0.3, 2.0, 2.1, 1e6, 1e-9):
        histogram.labels("a").observe(seconds)
        one.change(change("succeeded", name="a", runtime_seconds=seconds))
    counter.labels("a", "E").inc()
    one.change(change("failed", name="a", error="E"))
    expected = {key: n for key, n in read(generate_latest(theirs).decode()).items() if not key[0].endswith("_created")}
    found = samples(one.registry)
    assert {key: found.get(key) for key in expected} == expected


def test_numbers_are_written_as_go_reads_them() -> None:
    registry = Registry()
    metric = Metric("x", GAUGE, "A \\ and\nmore.", ("n",))
    numbers = {"a": math.inf, "b": -math.inf, "c": math.nan, "d": 1e22, "e": 1e-7, "f": 12345678901234567}
    registry.source(metric, lambda: {(name,): number for name, number in numbers.items()})
    text = Writer().write(registry.snapshot()).decode()
    assert text.startswith("# HELP x A \\\\ and\\nmore.\n# TYPE x gauge\n")
    found = {dict(labels)["n"]: number for (_, labels), number in read(text).items()}
    assert math.isnan(found.pop("c"))
    assert found == {name: number for name, number in numbers.items() if name != "c"}


def test_a_source_that_fails_does_not_spoil_the_rest() -> None:
    one = observer()
    one.registry.source(Metric("broken", GAUGE, "x"), lambda: 1 / 0)
    assert value(one.registry, "celery_workers_online") == 0
    assert value(one.registry, "flowerbed_metric_failures_total") == 1


def test_series_that_went_away_are_not_remembered_for_ever() -> None:
    registry = Registry()
    there: dict[tuple[str, ...], float] = {}
    registry.source(Metric("x", GAUGE, "x", ("n",)), lambda: there)
    writer = Writer()
    for number in range(2000):
        there.clear()
        there[str(number),] = 1
        writer.write(registry.snapshot())
    assert len(writer._before["x"]) < 150


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4", True),
        ("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8;q=0.6,text/plain;q=0.3", True),
    ],
)
def test_what_a_scraper_asks_for(accept: str, openmetrics: bool) -> None:
    assert wants_openmetrics(accept) is openmetrics
