"""What the live tests share: the collector as a process, real workers, and a real Prometheus that scrapes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from addon_support import Redis, free_port, wait_for
from celery import Celery
from metrics_support import read

HERE = Path(__file__).parent
FILES = HERE.parents[1] / "roles" / "flower" / "files"
Labels = dict[str, str]
SCRAPE_SECONDS = 1


def environment(**more: str) -> dict[str, str]:
    """Of a process that finds the add-on and the shop."""
    paths = os.pathsep.join((str(FILES), str(HERE)))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **more}


class Collecting:
    """A collector as a process, with a directory of its own."""

    def __init__(self, directory: Path, celery: dict[str, Any], history: dict[str, Any], **collector: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.port = directory, collector.pop("port", free_port())
        self.settings = directory / "flowerbed.json"
        self.settings.write_text(
            json.dumps({
                "credentials": str(directory / "flower.json"),
                "collector": {"port": self.port, **collector},
                "history": history,
            })
        )  # fmt: skip
        self.credentials({"celery": celery})
        self.process: subprocess.Popen[bytes] | None = None

    def credentials(self, credentials: dict[str, Any]) -> None:
        (self.directory / "flower.json").write_text(json.dumps(credentials))

    @property
    def database(self) -> Path:
        return self.directory / "history.sqlite"

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "flowerbed", "collector", "--settings", str(self.settings)]

    def start(self) -> None:
        """Starts it; ready when it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=environment(), cwd=self.directory, stdout=log, stderr=log
            )  # fmt: skip
        wait_for(lambda: self.get("/metrics")[0] == 200 or self.has_ended(), "an answer", 30)
        assert not self.has_ended(), self.log

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def refused(self) -> tuple[int, str]:
        """Runs it where it must end by itself; its exit code and what it wrote to stderr."""
        done = subprocess.run(
            self.command, env=environment(), cwd=self.directory, capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, done.stderr

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/health")[1])
        return found

    def numbers(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return read(self.get("/metrics")[1])

    def names(self) -> set[str]:
        return {name for name, _ in self.numbers()}

    def series(self, name: str, /, **labels: str) -> list[tuple[Labels, float]]:
        """Series of a name that have these labels among theirs."""
        return [
            (dict(given), value)
            for (found, given), value in self.numbers().items()
            if found == name and labels.items() <= dict(given).items()
        ]

    def number(self, name: str, /, **labels: str) -> float | None:
        """The sum of these series; None when there is none."""
        found = self.series(name, **labels)
        return sum(value for _, value in found) if found else None

    def wait_number(self, number: float, name: str, seconds: float = 60, /, **labels: str) -> None:
        """Waits until the sum is exactly this."""
        deadline = time.monotonic() + seconds
        while (found := self.number(name, **labels)) != number:
            if time.monotonic() > deadline:
                all_of_it = "\n".join(f"{value:g} {series}" for series, value in self.series(name))
                pytest.fail(f"{name}{labels} is {found}, not {number}:\n{all_of_it}\n{self.log[-2000:]}")
            time.sleep(0.1)

    def rows(self) -> int:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return int(connection.execute("SELECT count(*) FROM tasks").fetchone()[0])


@contextlib.contextmanager
def running(one: Collecting) -> Iterator[Collecting]:
    """The collector runs within, and is ended whatever happens."""
    one.start()
    try:
        yield one
    finally:
        if not one.has_ended():
            one.stop(signal.SIGKILL)


@contextlib.contextmanager
def redis() -> Iterator[Redis]:
    server = Redis()
    try:
        yield server
    finally:
        server.kill()


class Publisher:
    """Sends events as a worker would that is not Celery's."""

    def __init__(self, server: Redis) -> None:
        self._client = redis_client.Redis.from_url(server.url)

    def __call__(self, kind: str, hostname: str = "w1@host", **event: Any) -> None:
        event = {"type": kind, "hostname": hostname, "timestamp": time.time(), **event}
        self._client.publish(f"/0.celeryev/{kind.replace('-', '.')}", json.dumps(event))


def shop(directory: Path, celery: dict[str, Any], **options: Any) -> Celery:
    """Writes the settings of the application, and gives a producer; both tell of what they send."""
    settings = {**celery, "task_send_sent_event": True, **options}
    (directory / "shop.json").write_text(json.dumps(settings))
    app = Celery("producer", set_as_current=False)
    app.conf.update(settings)
    return app


@contextlib.contextmanager
def worker(directory: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker of the shop, whose settings are in the directory; it sends events."""
    command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-n", name, "-E", "--without-mingle"]
    with (directory / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *(arguments or ("-c", "1"))], cwd=directory, stdout=log, stderr=log,
            env=environment(SETTINGS=str(directory / "shop.json")), start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a worker with its children, as the kernel does when memory is short."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Prometheus:
    """A real Prometheus that scrapes once a second; `jobs` is job -> port, `rules` the texts of files of rules."""

    def __init__(
        self, directory: Path, jobs: dict[str, int], rules: Sequence[str] = (), labels: Labels | None = None
    ) -> None:
        program = shutil.which("prometheus")
        assert program, "prometheus is missing: install Debian's package."
        directory.mkdir()
        self.port = free_port()
        config: dict[str, Any] = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels or {}}]}
                for job, port in jobs.items()
            ],
        }
        for number, text in enumerate(rules):
            (directory / f"rules{number}.yml").write_text(text)
        if rules:
            config["rule_files"] = [f"{directory}/rules*.yml"]
        # JSON is YAML
        (directory / "prometheus.yml").write_text(json.dumps(config))
        command = [
            program, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error",
        ]  # fmt: skip
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> Prometheus:
        deadline = time.monotonic() + 60
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"Prometheus is not ready: {self.log.read_text()}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, AssertionError):
            return bool(self.query("scrape_samples_scraped > 0"))
        return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API; a refusal is an AssertionError with its text."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?" + urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, text: str) -> list[tuple[Labels, float]]:
        """What an expression is now: labels and value of each series."""
        found = self.ask("query", query=text)
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    def course(self, text: str, seconds: float = 300) -> list[tuple[Labels, list[float]]]:
        """What an expression was within the last seconds, at every scrape."""
        now = time.time()
        found = self.ask("query_range", query=text, start=str(now - seconds), end=str(now), step=str(SCRAPE_SECONDS))
        return [(one["metric"], [float(value) for _, value in one["values"]]) for one in found["result"]]

    def number(self, text: str) -> float:
        """The only value of an expression."""
        ((_, value),) = self.query(text)
        return value
