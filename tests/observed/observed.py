"""A host whose workers keep a log: what the log says, what the collector's metrics say, and what the history says."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.hosts import Host, wait_for

COLLECTOR = "flower-collector@main.service"
SQLITE = "/var/lib/flower/main/history.sqlite"
LOG = "/var/lib/observed/log.jsonl"
ENOUGH = "/var/lib/observed/enough"
#: the longest that work is sent
LOAD_SECONDS = 600
DRIVE = ("/opt/workload/venv/bin/python", "/opt/workload/app/drive.py")
#: steps of the log that are states of celery_tasks_total
STATES = ("sent", "received", "started", "succeeded", "failed", "retried", "revoked", "rejected")
#: which state the last step of a task leaves in its row
ROW_STATES = {
    "sent": "PENDING", "received": "RECEIVED", "started": "STARTED", "succeeded": "SUCCESS", "failed": "FAILURE",
    "retried": "RETRY", "revoked": "REVOKED", "rejected": "REJECTED",
}  # fmt: skip

Line = dict[str, Any]
Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]

GET = """
import json, sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen("http://127.0.0.1:8000" + json.load(sys.stdin), timeout=10) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
except OSError as error:
    print(json.dumps([0, str(error)]))
"""
ROWS = """
import json, sqlite3
connection = sqlite3.connect("file:/var/lib/flower/main/history.sqlite?mode=ro", uri=True, timeout=20)
connection.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in connection.execute("SELECT * FROM tasks")]))
"""


@dataclass
class Work:
    """Part of the log: what was done within some time."""

    lines: list[Line]
    #: the whole log, for what only an earlier line tells
    names: dict[str, tuple[str, str]]

    @property
    def ids(self) -> set[str]:
        """Tasks of which something is said."""
        return {line["id"] for line in self.lines}

    def of(self, *whats: str) -> list[Line]:
        """Lines of some kinds."""
        return [line for line in self.lines if line["what"] in whats]

    def counts(self) -> Counter[tuple[str, str]]:
        """Task name and state -> how often."""
        return Counter((self.names[line["id"]][0], line["what"]) for line in self.lines)

    def counts_by_queue(self) -> Counter[tuple[str, str, str]]:
        """Task name, state and queue -> how often."""
        return Counter((self.names[line["id"]][0], line["what"], self.names[line["id"]][1]) for line in self.lines)

    def without(self, windows: Iterable[tuple[float, float]]) -> Work:
        """What was done outside of some times."""
        spans = list(windows)
        kept = [line for line in self.lines if not any(start <= line["time"] <= end for start, end in spans)]
        return Work(kept, self.names)


@dataclass
class Observed:
    """See above; `host` is reached as all hosts under test are."""

    name: str
    host: Host = field(init=False)

    def __post_init__(self) -> None:
        """Hosts are known by their names."""
        self.host = Host(self.name)

    @property
    def on_rabbitmq(self) -> bool:
        """RabbitMQ and PostgreSQL, else Redis and SQLite."""
        return "rabbitmq" in self.name

    @property
    def broker(self) -> str:
        """The broker's unit."""
        return "rabbitmq-server" if self.on_rabbitmq else "redis-server"

    def worker(self, letter: str) -> str:
        """A worker's full name."""
        return f"{letter}@{self.name}"

    # ------------------------------------------------------------------ what the workload did

    def drive(self, *arguments: str) -> Any:
        """Has work sent; see tests/workload/app/drive.py."""
        return json.loads(self.host.run(*DRIVE, *arguments, user="observed").splitlines()[-1])

    @contextmanager
    def load(self, rate: float = 20) -> Iterator[None]:
        """Has work sent meanwhile, and until some more of it is done afterwards."""
        sending = subprocess.Popen(
            ["docker", "exec", "-u", "observed", self.name, *DRIVE, "flood", str(LOAD_SECONDS), str(rate)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield
            place = self.mark()
            wait_for("work to go on", lambda: len(self.work(place).of("succeeded")) > 2 * rate, 90)
        finally:
            self.host.run("touch", ENOUGH, user="observed")
            assert sending.wait(60) == 0

    def mark(self) -> int:
        """A place in the log."""
        return int(self.host.shell(f"stat -c %s {LOG} 2>/dev/null || echo 0"))

    def work(self, since: int = 0) -> Work:
        """What was done since a place in the log."""
        text = self.host.run("cat", LOG)
        lines: list[Line] = [json.loads(line) for line in text.encode()[since:].decode().splitlines()]
        sent = [line for line in map(json.loads, text.splitlines()) if line["what"] == "sent"]
        return Work(lines, {line["id"]: (line["name"], line["queue"]) for line in sent})

    def wait_done(self, since: int, seconds: float = 120) -> Work:
        """Until every task that was sent has ended, but those of the queue that has no worker."""

        def done() -> Work | None:
            work = self.work(since)
            ends: Counter[str] = Counter()
            for line in work.lines:
                ends[line["id"]] += {"sent": 1, "retried": -1, "succeeded": -1, "failed": -1, "revoked": -1,
                                     "rejected": -1}.get(line["what"], 0)  # fmt: skip
            open_ids = [uuid for uuid, number in ends.items() if number > 0 and work.names[uuid][1] != "nobody"]
            return None if open_ids else work

        found: Work = wait_for("every task to end", done, seconds)
        return found

    # ------------------------------------------------------------------ what the collector says

    def get(self, path: str) -> tuple[int, str]:
        """What its own port answers; 0 and why when nobody does."""
        status, text = self.host.python(GET, path)
        return int(status), str(text)

    def health(self) -> dict[str, Any]:
        """What /health says."""
        found: dict[str, Any] = json.loads(self.get("/health")[1])
        return found

    def numbers(self) -> Numbers:
        """Every series."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def number(self, name: str, **labels: str) -> float:
        """The sum of all series with these labels."""
        return total(self.numbers(), name, **labels)

    def counted(self, numbers: Numbers | None = None) -> Counter[tuple[str, str]]:
        """Task name and state -> how often."""
        found: Counter[tuple[str, str]] = Counter()
        for (name, labels), value in (numbers or self.numbers()).items():
            if name == "celery_tasks_total" and value:
                said = dict(labels)
                found[said["task"], said["state"]] += int(value)
        return found

    def wait_number(self, value: float, name: str, seconds: float = 30, **labels: str) -> None:
        """Until a sum of series has a value."""
        wait_for(f"{name}{labels} to be {value}", lambda: self.number(name, **labels) == value, seconds, every=0.3)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The history, by id."""
        if self.on_rabbitmq:
            query = "SELECT coalesce(json_agg(tasks), '[]') FROM tasks"
            rows = json.loads(self.host.run("psql", "-At", "-c", query, "flower", user="postgres"))
        else:
            # as its owner: the files that SQLite makes beside it must be its own
            rows = json.loads(self.host.run("python3", "-c", ROWS, user="flower-main"))
        return {row["id"]: row for row in rows}

    # ------------------------------------------------------------------ the collector as a service

    def wait_ready(self, seconds: float = 60) -> None:
        """Until it reads, counts and writes, and hears both workers."""

        def ready() -> bool:
            numbers = self.numbers()
            return (
                total(numbers, "flowerbed_broker_connected") == 1
                and total(numbers, "flowerbed_history_up") == 1
                and all(total(numbers, "celery_worker_online", worker=self.worker(one)) == 1 for one in "ab")
            )

        wait_for("the collector to be ready", lambda: self.get("/health")[0] == 200 and ready(), seconds, every=0.5)

    def wait_connected(self, seconds: float = 60) -> float:
        """Until it reads events (again); gives the moment."""
        wait_for(
            "the collector to read events",
            lambda: self.get("/health")[0] == 200 and self.number("flowerbed_broker_connected") == 1,
            seconds,
            every=0.2,
        )
        return time.time()

    def journal(self, since: float) -> str:
        """What it said."""
        return self.host.run("journalctl", "-u", COLLECTOR, "--since", f"@{since:.0f}", "-o", "cat", "--no-pager")


def total(numbers: Numbers, name: str, **labels: str) -> float:
    """The sum of all series with these labels."""
    return sum(
        value for (found, said), value in numbers.items() if found == name and labels.items() <= dict(said).items()
    )


def wait_equal(what: str, expected: Any, look: Callable[[], Any], seconds: float = 40) -> None:
    """Until two things are the same; shows where they are not."""
    deadline = time.monotonic() + seconds
    while (found := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    if found != expected and isinstance(expected, dict):
        differing = {
            key: (expected.get(key), found.get(key))
            for key in expected.keys() | found.keys()
            if expected.get(key) != found.get(key)
        }
        raise AssertionError(
            f"{what}: expected and found differ in {len(differing)}: {dict(list(differing.items())[:12])}"
        )
    assert found == expected, what


def assert_right(
    observed: Observed, before: Counter[tuple[str, str]], work: Work, windows: Iterable[tuple[float, float]] = ()
) -> None:
    """Counts and rows are those of the log.

    `windows` are times in which the broker told nobody: what was done then may be missing, and everything else may not,
    and nothing may be there twice. A task whose name was told then is counted without it.
    """
    spans = list(windows)
    if not spans:
        wait_equal("counts", dict(known(before) + work.counts()), lambda: dict(known(observed.counted())))
        wait_equal("rows", {}, lambda: wrong_rows(work, observed.rows()))
        return
    certain, possible = by_state(work.without(spans).counts()), by_state(work.counts())

    deadline = time.monotonic() + 40
    while True:
        named = observed.counted() - before
        found = by_state(named)
        missing = {state: (found[state], number) for state, number in certain.items() if found[state] < number}
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert not missing, f"counted less often than done while the broker was there: {missing}"
    more = {state: (found[state], possible[state]) for state in STATES if found[state] > possible[state]}
    assert not more, f"counted more often than done: {more}"
    assert all(
        number <= work.counts()[key] for key, number in named.items() if key[0] != "unknown" and key[1] in STATES
    )
    seen = outside(work, spans)
    whole = Work([line for line in work.lines if line["id"] in seen], work.names)
    wait_equal("rows", {}, lambda: wrong_rows(whole, observed.rows()))


def known(counted: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Without what the log cannot say."""
    return Counter({key: number for key, number in counted.items() if key[1] in STATES})


def by_state(counts: Counter[tuple[str, str]]) -> Counter[str]:
    """State -> how often."""
    found: Counter[str] = Counter()
    for (_, state), number in counts.items():
        found[state] += number
    return found


def outside(work: Work, windows: list[tuple[float, float]]) -> set[str]:
    """Tasks of which nothing was done within the windows."""
    within = {line["id"] for line in work.lines if any(start <= line["time"] <= end for start, end in windows)}
    return work.ids - within


def wrong_rows(work: Work, rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What is wrong with the rows of the tasks in the log: id -> why."""
    wrong = {}
    by_id: dict[str, list[Line]] = {}
    for line in work.lines:
        by_id.setdefault(line["id"], []).append(line)
    for uuid, lines in by_id.items():
        row = rows.get(uuid)
        if row is None:
            wrong[uuid] = "no row"
            continue
        last = {line["what"]: line for line in lines}
        order = [
            what
            for what in ("succeeded", "failed", "revoked", "rejected", "retried", "started", "received", "sent")
            if what in last
        ]
        name, queue = work.names[uuid]
        expected: dict[str, Any] = {"state": ROW_STATES[order[0]], "name": name, "queue": queue}
        if "rejected" in last and row["state"] == "REJECTED":
            # Celery tells of both in the same moment
            expected["state"] = "REJECTED"
        if "received" in last:
            expected["worker"] = last["received"]["worker"]
        if "sent" in last:
            expected["retries"] = last["sent"]["retries"]
            expected["root_id"] = last["sent"]["root"]
            expected["parent_id"] = last["sent"]["parent"]
        for key, value in expected.items():
            if row[key] != value:
                wrong[uuid] = f"{key} is {row[key]!r}, not {value!r} ({[line['what'] for line in lines]})"
        for what in set(last) - {"sent"}:
            if row[what] is None or abs(row[what] - last[what]["time"]) > 2:
                wrong[uuid] = f"{what} at {row[what]}, not {last[what]['time']}"
        if "failed" in last and last["failed"]["error"].lower() not in (row["exception"] or "").lower():
            wrong[uuid] = f"exception is {row['exception']!r} of {name} ({[line['what'] for line in lines]})"
    return wrong
