#!/usr/bin/env python3
"""`make bench`: what a scrape of 25,000 series costs, and whether the counting has to wait for it.

Goal: under 100 ms of the processor's time, and the thread that counts is never stopped for longer than a few ms.
Beside it, in the same run and of the same numbers: prometheus_client's own writer.  The cost of counting one change is
printed too, beside prometheus_client's `labels().inc()`.
"""

from __future__ import annotations

import gzip
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "roles" / "flower" / "files"))

from prometheus_client import CollectorRegistry, Counter, generate_latest  # noqa: E402
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily  # noqa: E402

from flowerbed.collector.tasks import Change, Record  # noqa: E402
from flowerbed.metrics import names  # noqa: E402
from flowerbed.metrics.exposition import Writer, number  # noqa: E402
from flowerbed.metrics.observe import Observer  # noqa: E402
from flowerbed.metrics.persistence import changes  # noqa: E402
from flowerbed.metrics.registry import Registry, Snapshot  # noqa: E402

SERIES = 25_000
GOAL_MS = 100
ROUNDS = 15


def change(task: str, kind: str, queue: str = "orders") -> Change:
    """A change as the Folder makes it."""
    record = Record(id="1", name=task, queue=queue, state="STARTED")
    seconds = 0.3 if kind == "succeeded" else None
    return Change(kind=kind, record=record, before=None, hostname="w1@h", timestamp=1e9, runtime_seconds=seconds)


def filled() -> tuple[Observer, list[Change]]:
    """An Observer with 25,000 series, and changes that touch all of its tasks."""
    observer = Observer(Registry(100_000))
    made: list[Change] = []
    task = 0
    while sum(observer.registry.sizes().values()) < SERIES:
        for kind in ("received", "started", "succeeded"):
            made.append(change(f"shop.module_{task % 40}.task_{task}", kind))
            observer.change(made[-1])
        task += 1
    return observer, made


class Theirs:
    """The same numbers as prometheus_client takes them from a collector of one's own."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def collect(self) -> Iterator[Any]:
        """Its families."""
        snapshot: Snapshot = self.registry.snapshot()
        for metric, values in snapshot.series:
            counter = metric.kind == names.COUNTER
            family = (CounterMetricFamily if counter else GaugeMetricFamily)(
                metric.name, metric.help, labels=metric.labels
            )
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family
        for metric, found in snapshot.histograms:
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, (bounds, cells) in found.items():
                total, buckets = 0.0, []
                for bound, cell in zip((*map(number, map(float, bounds)), "+Inf"), cells, strict=False):
                    total += cell
                    buckets.append((bound, total))
                histogram.add_metric(labels, buckets, cells[-1])
            yield histogram


def cpu_ms(work: Callable[[], object]) -> float:
    """Milliseconds of this thread's own time, median."""
    found = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        work()
        found.append((time.thread_time() - began) * 1000)
    return statistics.median(found)


def pauses_ms(observer: Observer, made: list[Change], scrape: Callable[[], object] | None) -> tuple[list[float], float]:
    """The longest waits of a thread that counts all the time, worst first, and how many changes a second it counts.

    A wait is the processor's time that other threads of this process had meanwhile, and the rate is by the time that
    the counting thread had itself: so other processes on the machine do not matter.
    """
    stop, waits, counted = threading.Event(), [0.0], [0, 0.0]

    def count() -> None:
        began = last_own = time.thread_time()
        last_all = time.process_time()
        while not stop.is_set():
            for each in made[:50]:
                observer.change(each)
            own, everything = time.thread_time(), time.process_time()
            waits.append(((everything - last_all) - (own - last_own)) * 1000)
            counted[0] += 50
            last_own, last_all = own, everything
        counted[1] = time.thread_time() - began

    thread = threading.Thread(target=count)
    began = time.perf_counter()
    thread.start()
    while time.perf_counter() - began < 4:
        if scrape is not None:
            scrape()
        time.sleep(0.2)
    stop.set()
    thread.join()
    return sorted(waits, reverse=True), counted[0] / counted[1]


def microseconds(work: Callable[[Change], object], made: list[Change]) -> float:
    """For one change, the best of five rounds."""
    found = []
    for _ in range(5):
        began = time.thread_time()
        for each in made:
            work(each)
        found.append((time.thread_time() - began) / len(made) * 1e6)
    return min(found)


def slow(registry: CollectorRegistry) -> Callable[[], object]:
    """A scrape by prometheus_client."""
    return lambda: generate_latest(registry)


def main() -> int:
    """Measure and print."""
    observer, made = filled()
    writer = Writer()

    def scrape() -> bytes:
        return writer.write(observer.registry.snapshot())

    def first_scrape() -> bytes:
        return Writer().write(observer.registry.snapshot())

    empty, before = Snapshot([], [], 0.0), observer.registry.snapshot()

    def all_rows() -> object:
        return list(changes(empty, observer.registry.snapshot()))

    def no_rows() -> object:
        return list(changes(before, observer.registry.snapshot()))

    def show(what: str, value: float, unit: str, more: str = "") -> None:
        print(f"{what:<44} {value:8.2f} {unit}   {more}".rstrip())

    text = scrape()
    lines = sum(not line.startswith(b"#") for line in text.splitlines())
    print(f"{lines} series, {len(text) / 1e6:.1f} MB")
    theirs = CollectorRegistry()
    theirs.register(Theirs(observer.registry))
    ours_ms, theirs_ms = cpu_ms(scrape), cpu_ms(lambda: generate_latest(theirs))
    show("snapshot alone", cpu_ms(observer.registry.snapshot), "ms")
    show("snapshot and text", ours_ms, "ms", f"(goal: under {GOAL_MS})")
    show("the first time, when no line is remembered", cpu_ms(first_scrape), "ms")
    show("prometheus_client, same numbers", theirs_ms, "ms", f"({theirs_ms / ours_ms:.1f} times)")
    show("gzip, on request", cpu_ms(lambda: gzip.compress(text, 1)), "ms")
    show("rows to be saved, all changed", cpu_ms(all_rows), "ms")
    show("rows to be saved, none changed", cpu_ms(no_rows), "ms")

    counter = Counter("x", "x", ["task", "state", "queue"], registry=CollectorRegistry())
    one_change = microseconds(observer.change, made)
    inc = microseconds(lambda each: counter.labels(each.record.name, each.kind, each.record.queue).inc(), made)
    show("counting one change", one_change, "us", f"(prometheus_client labels().inc(): {inc:.2f})")
    for what, work in (
        ("no scrapes", None),
        ("5 scrapes a second", scrape),
        ("the same by prometheus_client", slow(theirs)),
    ):
        waits, rate = pauses_ms(observer, made, work)
        longer = sum(wait > 3 for wait in waits)
        show(f"counting waits, {what}", waits[0], "ms", f"at most; {longer} over 3 ms in 4 s; {rate:,.0f} changes/s")
    return 0 if ours_ms < GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
