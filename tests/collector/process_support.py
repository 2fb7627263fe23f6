"""What the tests of the whole collector share: it as a process, and as an object in this one."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from events_support import ROOT, Redis, free_port, wait_for
from prometheus_client.parser import text_string_to_metric_families

from flowerbed import settings as settings_module
from flowerbed.collector.process import Collector
from flowerbed.settings import Credentials

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]
#: the state of a counter -> the column that says that a task came to it
COLUMNS = {state: state for state in ("sent", "received", "started", "succeeded", "failed", "retried", "revoked")}


def environment() -> dict[str, str]:
    """Of a process that finds the add-on."""
    files = str(ROOT / "roles/flower/files")
    return {"PATH": os.environ["PATH"], "PYTHONPATH": files, "PYTHONDONTWRITEBYTECODE": "1"}


class Collecting:
    """A collector with a history of its own, in SQLite unless told otherwise."""

    def __init__(
        self,
        directory: Path,
        redis: Redis,
        url: str | None = None,
        history: dict[str, Any] | None = None,
        **collector: Any,
    ) -> None:
        self.directory, self.redis, self.port = directory, redis, free_port()
        self.database = directory / "history.sqlite"
        settings = {
            "credentials": str(directory / "flower.json"),
            "collector": {"port": self.port, **collector},
            "history": {"url": url or f"sqlite:///{self.database}", "lost_after": 2, **(history or {})},
            "redact": {"keys": ["*password*"]},
        }
        (directory / "flowerbed.json").write_text(json.dumps(settings))
        (directory / "flower.json").write_text(json.dumps({"celery": {"broker_url": redis.url}}))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flowerbed", "collector", "--settings", str(self.directory / "flowerbed.json")],
                env=environment(), cwd=self.directory, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: self.number("flowerbed_broker_connected") == 1, f"the collector: {self.log}", 60)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def numbers(self) -> Numbers:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def number(self, name: str, **labels: str) -> float:
        """The sum of all series with these labels."""
        return sum(
            value
            for (found, given), value in self.numbers().items()
            if found == name and set(labels.items()) <= set(given)
        )

    def counted(self) -> Counter[str]:
        """State -> tasks that came to it, as the counters have it."""
        found: Counter[str] = Counter()
        for (name, labels), value in self.numbers().items():
            if name == "celery_tasks_total" and value:
                found[dict(labels)["state"]] += int(value)
        return found

    def rows(self) -> dict[str, tuple[str, str]]:
        """Name and state of each task in the history."""
        with sqlite3.connect(self.database) as connection:
            found = connection.execute("SELECT id, name, state FROM tasks").fetchall()
        return {str(uuid): (str(name), str(state)) for uuid, name, state in found}

    def kept(self) -> tuple[Counter[str], Counter[str]]:
        """The same as `counted`, in one look at the database: by its rows, and by the counters that are saved."""
        sums = ", ".join(f"sum({column} IS NOT NULL)" for column in COLUMNS.values())
        with sqlite3.connect(self.database) as connection:
            connection.execute("BEGIN")
            numbers = connection.execute(f"SELECT {sums} FROM tasks").fetchone()
            saved = connection.execute(
                "SELECT labels, value FROM counters WHERE name = 'celery_tasks_total'"
            ).fetchall()
        rows = Counter({state: number or 0 for state, number in zip(COLUMNS, numbers, strict=True)})
        counters: Counter[str] = Counter()
        for labels, value in saved:
            counters[json.loads(labels)["state"]] += int(value)
        counters.pop("lost", None)
        return +rows, +counters


def collector_here(directory: Path, broker_url: str = "redis://127.0.0.1:1/0", **sections: Any) -> Collector:
    """A collector in this process, which is not running; nobody is at its broker unless told otherwise."""
    path = directory / "flowerbed.json"
    path.write_text(
        json.dumps(
            {
                "collector": {"port": free_port(), **sections.get("collector", {})},
                "history": {"url": f"sqlite:///{directory}/history.sqlite", **sections.get("history", {})},
            }
        )
    )
    credentials = Credentials(celery={"broker_url": broker_url})
    return Collector(settings_module.load(path), credentials)


def payloads(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """Bare events, as they come over AMQP."""
    return [json.dumps(event).encode() for event in events]
