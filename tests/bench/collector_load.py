#!/usr/bin/env python3
"""`make bench`: the real collector under load, beside danihodovic/celery-exporter on the same stream.

    collector_load.py [compare] [paced] [memory] [loss] [--events 200000] [--rounds 3] [--seconds 10] …

compare  events for each second of the consumer's processor time, flat out, median of rounds in turns; goals: 8 times
         celery-exporter's with metrics only, 4 times with a history in SQLite, 3 times with one in PostgreSQL
paced    the same at 2,000 events a second; goal: at most a fifth of its time
memory   resident memory and scrape after a million events of 500 tasks on 50 workers with a history; goals: 200 MB,
         100 ms
loss     20,000 events/s with a history (--seconds) and 60,000 events/s without (20 s at most) against a Redis with its
         stock limits; goal: counters and rows are exactly the generator's own

Processor time is the kernel's, user and system, of the consumer's process: other work on the machine matters little.
The last figure of a long run: --events 1000000 and --seconds 300.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "testbed")]

import redis  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from tests.addon.addon_support import Redis, free_port  # noqa: E402
from tests.bench.collector_stream import row_sum  # noqa: E402
from tests.history.conftest import Postgres  # noqa: E402

THEIRS = "celery-exporter"
METRICS, SQLITE, POSTGRESQL = "collector, metrics only", "collector, SQLite", "collector, PostgreSQL"
#: times celery-exporter's events for each second of processor time
GOALS = {METRICS: 8.0, SQLITE: 4.0, POSTGRESQL: 3.0}
PACE, PACE_GOAL = 2000, 5.0
MEMORY_GOAL_MB, SCRAPE_GOAL_MS = 200, 100
HISTORY_RATE, METRICS_RATE, LONGEST_METRICS_SECONDS = 20_000, 60_000, 20
#: events a second: what waits in the buffer on a busy machine is not to be measured
MEMORY_RATE = 8000
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
EXPORTER = ROOT / ".venv" / "celery-exporter"
TICKS = os.sysconf("SC_CLK_TCK")

failed: list[str] = []


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def settled(pid: int) -> float:
    """The processor's time when it stands still: at most 0.02 s more within a second."""
    last = cpu_seconds(pid)
    while True:
        time.sleep(1)
        now = cpu_seconds(pid)
        if now - last <= 0.02:
            return now
        last = now


def say(what: str, figure: str, more: str = "", *, good: bool = True) -> None:
    """One line; what misses its goal is said so, and makes the program's exit code."""
    if not good:
        failed.append(what)
    print(f"{what:<52} {figure:>20}   {more}{'' if good else '   MISSED'}".rstrip(), flush=True)


def exporter_python() -> str:
    """The Python that has celery-exporter; its environment is made when it is not there."""
    stamp, wanted = EXPORTER / ".complete", sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    python = str(EXPORTER / "bin" / "python")
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(EXPORTER)], check=True)
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "-r", str(REQUIREMENTS)], check=True)
        stamp.write_text(wanted)
    return python


# ---------------------------------------------------------------------- consumers


@dataclass
class Consumer:
    """A process that reads the events, and where it tells what it counted."""

    process: subprocess.Popen[bytes]
    port: int
    #: of its history
    rows: Callable[[], list[tuple[str, str, str]]] | None = None

    def scrape(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=120) as answer:
            return str(answer.read(), "utf-8")

    def numbers(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The samples of one name by their labels."""
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.scrape())
            for sample in family.samples
            if sample.name == name
        }

    def resident_mb(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(60)


class Bench:
    """A Redis, the databases, and a folder for all that is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Redis()
        self.client: Any = redis.Redis.from_url(self.server.url)
        self.postgres: Postgres | None = None
        self.number = 0

    def close(self) -> None:
        self.server.kill()
        if self.postgres:
            self.postgres.stop()

    def start(self, kind: str) -> Consumer:
        """Starts a consumer, and returns when it is subscribed."""
        while self.client.pubsub_numpat():
            time.sleep(0.1)
        consumer = self._exporter() if kind == THEIRS else self._collector(kind)
        deadline = time.monotonic() + 60
        while not self.client.pubsub_numpat():
            if time.monotonic() > deadline or consumer.process.poll() is not None:
                raise SystemExit(f"{kind} did not subscribe; its log is in {self.folder}")
            time.sleep(0.1)
        return consumer

    def _exporter(self) -> Consumer:
        port = free_port()
        starting = "from src.cli import cli; cli()"
        arguments = [f"--broker-url={self.server.url}", "--host=127.0.0.1", f"--port={port}"]
        return Consumer(self._run([exporter_python(), "-c", starting, *arguments]), port)

    def _collector(self, kind: str) -> Consumer:
        self.number += 1
        port, place = free_port(), self.folder / str(self.number)
        place.mkdir()
        url, rows = self._history(kind, place)
        settings = {"credentials": str(place / "flower.json"), "collector": {"port": port}, "history": {"url": url}}
        (place / "flowerbed.json").write_text(json.dumps(settings))
        (place / "flower.json").write_text(json.dumps({"celery": {"broker_url": self.server.url}}))
        command = [sys.executable, "-m", "flowerbed", "collector", "--settings", str(place / "flowerbed.json")]
        return Consumer(self._run(command), port, rows)

    def _history(self, kind: str, place: Path) -> tuple[str | None, Callable[[], list[tuple[str, str, str]]] | None]:
        query = "SELECT id, name, state FROM tasks"
        if kind == METRICS:
            return None, None
        if kind == SQLITE:

            def rows() -> list[tuple[str, str, str]]:
                with sqlite3.connect(place / "history.sqlite") as connection:
                    return connection.execute(query).fetchall()

            return f"sqlite:///{place}/history.sqlite", rows
        if self.postgres is None:
            self.postgres = Postgres(fsync=True)
        url = self.postgres.url()

        def rows_of_postgresql() -> list[tuple[str, str, str]]:
            import psycopg

            with psycopg.connect(url) as connection:
                return connection.execute(query).fetchall()

        return url, rows_of_postgresql

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "roles/flower/files"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)

    def publish(self, *arguments: str) -> dict[str, Any]:
        """Runs the generator, waits until Redis has sent everything, and gives what the generator wrote."""
        log = self.folder / "books.json"
        program = str(Path(__file__).with_name("collector_stream.py"))
        command = [sys.executable, program, "--url", self.server.url, "--log", str(log), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        while any(int(entry["omem"]) for entry in self.client.client_list(_type="pubsub")):
            time.sleep(0.2)
        books: dict[str, Any] = json.loads(log.read_text())
        return books

    def limit(self, stock: bool) -> None:
        """Redis' stock limits, or none: who is slow is to be measured, not to be thrown out."""
        limits = "pubsub 33554432 8388608 60" if stock else "pubsub 0 0 0"
        self.client.config_set("client-output-buffer-limit", limits)


# ---------------------------------------------------------------------- the books


def differences(consumer: Consumer, books: dict[str, Any]) -> list[str]:
    """What of a collector's counters and rows is not as the generator's books have it."""
    found = []
    expected = {(task, state, queue): number for task, state, queue, number in books["counted"]}
    counted: Counter[str] = Counter()
    for labels, number in consumer.numbers("celery_tasks_total").items():
        counted[dict(labels)["state"]] += int(number)
    wanted: Counter[str] = Counter()
    for (_, state, _), number in expected.items():
        wanted[state] += number
    found += [f"{state}: {counted[state]} of {wanted[state]}" for state in wanted if counted[state] != wanted[state]]
    if consumer.rows:
        rows = consumer.rows()
        by_state = Counter((name, state) for _, name, state in rows)
        if by_state != {(name, state): number for name, state, number in books["rows"]}:
            found.append(f"rows: {len(rows)} of {sum(number for *_, number in books['rows'])}")
        elif sum(row_sum(uuid, state) for uuid, _, state in rows) != books["checksum"]:
            found.append("rows: other ids")
    return found


def waited(pid: int) -> float:
    """Seconds that the threads of a process were ready to run and did not, since others did (proc(5), schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return max(int((task / "schedstat").read_text(encoding="ascii").split()[1]) for task in tasks) / 1e9


# ---------------------------------------------------------------------- what is measured


def cost(bench: Bench, kind: str, *arguments: str) -> float:
    """Seconds of the processor that a consumer takes for a stream; its books are looked at when it is ours."""
    consumer = bench.start(kind)
    try:
        before = settled(consumer.process.pid)
        books = bench.publish(*arguments)
        took = settled(consumer.process.pid) - before
        if kind != THEIRS and (wrong := differences(consumer, books)):
            say(kind, "not exact", "; ".join(wrong), good=False)
        return took
    finally:
        consumer.end()


def compare(bench: Bench, events: int, rounds: int) -> None:
    """Flat out."""
    bench.limit(stock=False)
    found: dict[str, list[float]] = {kind: [] for kind in (THEIRS, *GOALS)}
    for _ in range(rounds):
        for kind, seconds in found.items():
            seconds.append(cost(bench, kind, "--events", str(events)))
    theirs = statistics.median(found[THEIRS])
    for kind, seconds in found.items():
        median = statistics.median(seconds)
        goal = GOALS.get(kind, 1.0)
        more = f"{theirs / median:5.1f} times celery-exporter" + (f" (goal: {goal:.0f})" if kind in GOALS else "")
        say(kind, f"{events / median:,.0f} events/s", more, good=theirs / median >= goal)


def paced(bench: Bench, seconds: int) -> None:
    """At everyday's rate, with a history in SQLite."""
    bench.limit(stock=False)
    arguments = ("--rate", str(PACE), "--seconds", str(seconds))
    parts = {}
    for kind in (THEIRS, METRICS, SQLITE):
        consumer = bench.start(kind)
        settled(consumer.process.pid)
        before, began = cpu_seconds(consumer.process.pid), time.monotonic()
        bench.publish(*arguments)
        parts[kind] = (cpu_seconds(consumer.process.pid) - before) / (time.monotonic() - began)
        consumer.end()
    for kind, part in parts.items():
        ratio = parts[THEIRS] / part
        goal = f" (goal: {PACE_GOAL:.0f})" if kind == METRICS else ""
        more = "" if kind == THEIRS else f"{ratio:5.1f} times less{goal}"
        say(f"{kind}, {PACE:,} events/s", f"{part:.1%} of a core", more, good=kind != METRICS or ratio >= PACE_GOAL)


def memory(bench: Bench, events: int) -> None:
    """After many events of many tasks on many workers."""
    bench.limit(stock=True)
    consumer = bench.start(SQLITE)
    try:
        books = bench.publish("--events", str(events), "--tasks", "500", "--workers", "50", "--rate", str(MEMORY_RATE))
        settled(consumer.process.pid)
        resident = consumer.resident_mb()
        costs, pid = [], consumer.process.pid
        for _ in range(5):
            before = cpu_seconds(pid)
            text = consumer.scrape()
            costs.append((cpu_seconds(pid) - before) * 1000)
            time.sleep(1.1)
        lines = sum(not line.startswith("#") for line in text.splitlines())
        what = f"resident memory after {books['events']:,} events, 500 x 50"
        say(what, f"{resident:.0f} MB", f"(goal: {MEMORY_GOAL_MB})",
            good=resident <= MEMORY_GOAL_MB)  # fmt: skip
        median = statistics.median(costs)
        say(f"a scrape of {lines} series", f"{median:.0f} ms of CPU", f"(goal: {SCRAPE_GOAL_MS})",
            good=median < SCRAPE_GOAL_MS)  # fmt: skip
        exact(consumer, books, "counters and rows")
    finally:
        consumer.end()


def loss(bench: Bench, seconds: int) -> None:
    """Whether anything is lost with Redis' stock limits."""
    bench.limit(stock=True)
    for kind, rate, length in (
        (SQLITE, HISTORY_RATE, seconds),
        (METRICS, METRICS_RATE, min(seconds, LONGEST_METRICS_SECONDS)),
    ):
        consumer = bench.start(kind)
        try:
            began = cpu_seconds(consumer.process.pid)
            books = bench.publish("--rate", str(rate), "--seconds", str(length))
            settled(consumer.process.pid)
            rate = books["events"] / books["seconds"]
            took = cpu_seconds(consumer.process.pid) - began
            exact(consumer, books, f"{kind}, {rate:,.0f} events/s for {books['seconds']:.0f} s", f"{took:.0f} s of CPU")
        finally:
            consumer.end()


def exact(consumer: Consumer, books: dict[str, Any], what: str, more: str = "") -> None:
    wrong = differences(consumer, books)
    if wrong:
        wrong.append(f"it waited {waited(consumer.process.pid):.0f} s for a processor")
    dropped = sum(consumer.numbers("flowerbed_events_dropped_total").values())
    reconnects = sum(consumer.numbers("flowerbed_broker_reconnects_total").values())
    if dropped or reconnects:
        wrong.append(f"{dropped:.0f} dropped, {reconnects:.0f} reconnects")
    say(what, f"{books['events']:,} events", "; ".join(wrong) or f"all of them {more}", good=not wrong)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="compare, paced, memory, loss; all of them when none is named")
    parser.add_argument("--events", type=int, default=200_000, help="of a round of compare, and a fifth of memory's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of paced and loss")
    options = parser.parse_args()
    parts: dict[str, Callable[[Bench], None]] = {
        "compare": lambda bench: compare(bench, options.events, options.rounds),
        "paced": lambda bench: paced(bench, options.seconds),
        "memory": lambda bench: memory(bench, 5 * options.events),
        "loss": lambda bench: loss(bench, options.seconds),
    }
    if unknown := set(options.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="flowerbed-bench-") as folder:
        Path(folder).chmod(0o755)
        bench = Bench(Path(folder))
        try:
            for name in options.parts or parts:
                parts[name](bench)
        finally:
            bench.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
