#!/usr/bin/env python3
"""What a page of the Tasks tab takes with millions of tasks remembered, while more are written.

    history_pages.py [--rows 10000000] [--rate 5000] [--rounds 20] [--directory DIR] [--postgresql URL] [kind ...]

Kinds are sqlite, postgresql and flower; all of them without one.  The rows are made once and are used again when they
are in the directory (and in the database of the URL) already; without a URL PostgreSQL is a private one that is thrown
away.  Another process writes `rate` events a second, the way the collector does, with its index of words.  Flower is
asked the same of its own memory, with as many tasks as it keeps by default, and with nothing written.

"undisturbed" is the time without what the kernel says that we, and PostgreSQL's process for us, were ready to run and
waited for a processor: on a machine that is busy with other things only that tells something.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "roles" / "flower" / "files"), str(ROOT)]

from flowerbed.collector.tasks import Record  # noqa: E402
from flowerbed.history import words  # noqa: E402
from flowerbed.history.query import Query  # noqa: E402
from flowerbed.history.schema import COLUMNS, Row  # noqa: E402
from flowerbed.history.search import parse  # noqa: E402
from flowerbed.history.store import Store, open_store  # noqa: E402
from flowerbed.history.words import Words  # noqa: E402
from flowerbed.history.writer import Writer  # noqa: E402

DAYS, FLOWER_TASKS = 30, 100_000
PARTS = ("shop", "billing", "mail", "search", "stock")
VERBS = ("send", "import", "index", "charge", "sync", "export", "clean", "resize", "notify", "close")
THINGS = ("order", "invoice", "customer", "product", "report")
NAMES = [f"{a}.{b}.{c}_{d}" for a in PARTS for b in ("tasks", "jobs") for c in VERBS for d in THINGS]
WORDS = (*THINGS, "mail", "price", "stock", "user", "account", "shop", "region", "batch", "retry", "limit", "parcel")
WORKERS = [f"worker{number}@host{number % 10}.example.org" for number in range(50)]
QUEUES = ["celery", "mail", "bulk", "index", "billing", "images", "reports", "stock", "slow", "vip"]
#: one task in so many has a word that no other has
RARE = 1_000_003

#: what is asked -> search text (Flower's syntax where Flower knows it), and the column that it is sorted by
KINDS: dict[str, tuple[str, str]] = {
    "first page": ("", "received"),
    "first page by start": ("", "started"),
    "first page by run time": ("", "runtime_seconds"),
    "state": ("state:FAILURE", "received"),
    "state by start": ("state:FAILURE", "started"),
    "rare state by start": ("state:REJECTED", "started"),
    "name": ("name:shop.tasks.send_order", "received"),
    "name by start": ("name:shop.tasks.send_order", "started"),
    "worker": ("worker:worker7@", "received"),
    "worker by start": ("worker:worker7@", "started"),
    "worker and state by start": ("worker:worker7@ state:FAILURE", "started"),
    "worker and state, none": ("worker:worker7@ state:RECEIVED", "started"),
    "queue by start": ("queue:mail", "started"),
    "queue and state by start": ("queue:mail state:FAILURE", "started"),
    "name and state by start": ("name:shop.tasks.send_order state:FAILURE", "started"),
    "an hour of last week": ("since:169h until:168h", "received"),
    "args, common": ("args:order", "received"),
    "args, common, by start": ("args:order", "started"),
    "args, rare": ("args:4711081", "received"),
    "kwargs, rare": ("kwargs:rare-needle-500000", "received"),
    "kwargs pair": ("kwargs:code=rare-needle-500000", "started"),
    "result, rare": ('result:"rows\': 12345}"', "received"),
    "exception, common": ("exception:invoice", "received"),
    "exception, none": ("exception:KeyError", "received"),
    "free text, common": ("invoice", "received"),
    "free text, rare": ("rare-needle", "started"),
    "free text, none": ("zebra crossing", "received"),
    "free text and state": ("rare-needle state:SUCCESS", "received"),
    "or": ("rare-needle OR zebra", "received"),
}


# ---------------------------------------------------------------------- rows


def made_rows(count: int, now: float) -> Iterator[Row]:
    """Tasks of 30 days, as the collector would have kept them."""
    chance = random.Random(4)
    draw, bits = chance.random, chance.getrandbits

    def uuid() -> str:
        text = f"{bits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    step = DAYS * 86400 / count
    last = uuid()
    for number in range(count):
        seen = now + (number - count) * step
        task = uuid()
        worker = int(50 * draw() ** 1.5)
        wait = 0.02 + (draw() if draw() < 0.3 else 0)
        runtime = 0.005 + chance.expovariate(8) if draw() < 0.98 else 1 + chance.expovariate(0.05)
        ended = seen + wait + runtime
        fields: dict[str, Any] = {
            "id": task,
            "name": NAMES[int(500 * draw() ** 2)],
            "state": "SUCCESS",
            "precedence": 3e11 + ended,
            "queue": QUEUES[worker % 10] if draw() < 0.9 else QUEUES[int(10 * draw())],
            "worker": WORKERS[worker],
            "producer": "gen1@web1",
            "root_id": task,
            "sent": seen - 0.01,
            "received": seen,
            "started": seen + wait,
            "succeeded": ended,
            "finished": ended,
            "wait_seconds": wait,
            "runtime_seconds": runtime,
            "args": f"({bits(26)}, '{WORDS[bits(4)]}')",
            "kwargs": _kwargs(number, bits, uuid),
            "result": f"{{'ok': True, 'rows': {bits(16)}}}",
            "seen": seen,
            "updated": seen + 1,
        }
        if bits(3) == 0:
            fields |= {"root_id": last, "parent_id": last}
        else:
            last = task
        fields |= _other_end(draw(), seen, ended, bits)
        yield tuple({**_EMPTY, **fields}.values())


_EMPTY: dict[str, Any] = dict.fromkeys(COLUMNS) | {"retries": 0, "lost": False}


def _kwargs(number: int, bits: Callable[[int], int], uuid: Callable[[], str]) -> str:
    if number % RARE == 500_000 % RARE:
        return f"{{'code': 'rare-needle-{number}'}}"
    if bits(1):
        return f"{{'{WORDS[bits(4)]}_id': '{uuid()}', 'count': {bits(10)}}}"
    return f"{{'{WORDS[bits(4)]}': {bits(24)}, 'kind': '{WORDS[bits(4)]}'}}"


def _other_end(draw: float, seen: float, ended: float, bits: Callable[[int], int]) -> dict[str, Any]:
    """What differs for the tasks that did not succeed."""
    none = dict.fromkeys(("started", "succeeded", "runtime_seconds", "wait_seconds", "result"))
    if draw < 0.945:
        return {}
    if draw < 0.985:
        return {
            "state": "FAILURE",
            "succeeded": None,
            "result": None,
            "failed": ended,
            "exception": f'ValueError("no such {WORDS[bits(4)]}: {bits(24)}")',
            "traceback": 'Traceback (most recent call last):\n  File "tasks.py", line 7, in run\n' * 4,
        }
    if draw < 0.995:
        return {**none, "state": "REVOKED", "revoked": seen + 1, "finished": seen + 1}
    if draw < 0.996:
        return {**none, "state": "REJECTED", "rejected": seen, "finished": seen}
    if draw < 0.9965:
        return {"state": "STARTED", **dict.fromkeys(("succeeded", "finished", "runtime_seconds", "result"))}
    if draw < 0.998:
        return {**none, "state": "PENDING", "received": None, "finished": None, "worker": None}
    return {}


def fill(url: str, count: int) -> None:
    """Puts rows into an empty history, without indexes first, which is ten times quicker."""
    store = open_store(url)
    with store.transaction() as connection:
        there = connection.exec_driver_sql("SELECT count(*) FROM (SELECT 1 FROM tasks LIMIT 1000) AS few").scalar()
    if there:
        store.close()
        return
    begun = time.monotonic()
    find = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'tasks' AND sql IS NOT NULL"
        if store.is_sqlite
        else "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'tasks' AND indexname NOT LIKE '%%pkey'"
    )
    rows = made_rows(count, time.time())
    with store.transaction() as connection:
        indexes = [tuple(row) for row in connection.exec_driver_sql(find)]
        for name, _ in indexes:
            connection.exec_driver_sql(f"DROP INDEX {name}")
    while some := list(itertools.islice(rows, 100_000)):
        with store.transaction() as connection:
            _insert(store, connection.connection.driver_connection, some)
    for _, definition in indexes:
        with store.transaction() as connection:
            if not store.is_sqlite:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(str(definition))
    store.close()
    if not store.is_sqlite:
        with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM ANALYZE tasks")
    print(f"  {count:,} rows made in {time.monotonic() - begun:.0f} s", flush=True)


def _insert(store: Store, connection: Any, rows: list[Row]) -> None:
    if store.is_sqlite:
        connection.executemany(f"INSERT INTO tasks VALUES ({', '.join('?' * len(COLUMNS))})", rows)
        return
    with connection.cursor() as cursor, cursor.copy(f"COPY tasks ({', '.join(COLUMNS)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def take_in(url: str) -> None:
    """Fills the index of words, at once."""
    begun, used = time.monotonic(), time.process_time()
    rest, share = words.REST_SECONDS, words.SHARE
    words.REST_SECONDS, words.SHARE = 0.0, 1.0
    Words(url).turn(threading.Event())
    words.REST_SECONDS, words.SHARE = rest, share
    if time.monotonic() - begun > 10:
        spent = time.process_time() - used
        print(f"  words taken in in {time.monotonic() - begun:.0f} s, {spent:.0f} s of CPU", flush=True)


# ---------------------------------------------------------------------- the writer, a process of its own


def write(url: str, rate: float) -> None:
    """Hands over `rate` events a second, three of each task, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    writer = Writer(url)
    writer.start()
    threading.Thread(target=Words(url).run, args=(stop,), daemon=True).start()
    chance, turn = random.Random(), 0.05
    older: list[Record] = []
    fresh: list[Record] = []
    owed, begun, handed, used = 0.0, time.monotonic(), 0, time.process_time()
    while not stop.wait(max(begun + turn - time.monotonic(), 0.0)):
        moment = time.monotonic()
        owed, begun = owed + rate / 3 * (moment - begun), moment
        now = time.time()
        for record in older:
            record.state, record.succeeded, record.finished, record.runtime_seconds = "SUCCESS", now, now, turn
            record.result, record.updated, record.precedence = f"{{'rows': {chance.getrandbits(16)}}}", now, 3e11 + now
            if chance.random() < 0.04:
                record.state, record.succeeded, record.failed, record.result = "FAILURE", None, now, None
                record.exception = f'ValueError("no such {chance.choice(WORDS)}: {chance.getrandbits(24)}")'
        for record in fresh:
            record.state, record.started, record.updated, record.precedence = "STARTED", now, now, 1e11 + now
        new = [_record(chance, now) for _ in range(int(owed))]
        owed -= len(new)
        for record in (*older, *fresh, *new):
            writer.put(record)
        handed += len(older) + len(fresh) + len(new)
        older, fresh = fresh, new
    spent = time.process_time() - used
    left, dropped, slowest = writer.backlog, writer.stats.dropped, writer.stats.batch_seconds
    writer.stop()
    print(
        f"  written meanwhile: {handed:,} events, {spent / max(handed, 1) * 1e6:.1f} us of CPU each;"
        f" backlog {left:,}, dropped {dropped:,}, last batch {slowest:.2f} s",
        flush=True,
    )


def _record(chance: random.Random, now: float) -> Record:
    bits = chance.getrandbits
    return Record(
        id=f"{bits(128):032x}",
        name=chance.choice(NAMES),
        state="RECEIVED",
        precedence=1e11 + now,
        queue=chance.choice(QUEUES),
        worker=chance.choice(WORKERS),
        sent=now,
        received=now,
        args=f"({bits(26)}, '{WORDS[bits(4)]}')",
        kwargs=f"{{'{WORDS[bits(4)]}': {bits(24)}}}",
        seen=now,
        updated=now,
    )


# ---------------------------------------------------------------------- what is measured


def measured(
    ask: Callable[[str, str], Any], rounds: int, told: Callable[[Any], str], others: Callable[[], list[int]] = list
) -> None:
    """Asks every kind `rounds` times in turns, and prints what it took; `others` are processes that work for us."""
    taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    answers: dict[str, Any] = {}
    for _ in range(rounds + 1):
        for kind, (text, sort) in KINDS.items():
            begun, waited = time.perf_counter(), _waited(others())
            answers[kind] = ask(text, sort)
            passed = (time.perf_counter() - begun) * 1000
            taken[kind].append((passed, passed - (_waited(others()) - waited) * 1000))
    for kind, times in taken.items():
        # the first round is what nobody has asked before
        print(f"  {kind:28} {_line(times[1:])}  first {times[0][1]:7.1f}   {told(answers[kind])}")
    print(f"  {'all of them':28} {_line([value for times in taken.values() for value in times[1:]])}", flush=True)


def _waited(others: list[int]) -> float:
    """Seconds that this thread, and other processes, were ready to run and did not."""
    files = [Path("/proc/thread-self/schedstat"), *(Path(f"/proc/{pid}/schedstat") for pid in others)]
    return sum(int(file.read_text().split()[1]) for file in files if file.exists()) / 1e9


def _line(times: list[tuple[float, float]]) -> str:
    half, most = _percentiles([passed for passed, _ in times])
    quiet_half, quiet_most = _percentiles([quiet for _, quiet in times])
    return f"ms: p50 {half:7.1f}  p95 {most:7.1f}   undisturbed: p50 {quiet_half:7.1f}  p95 {quiet_most:7.1f}"


def _percentiles(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), sorted(values)[max(-(-len(values) * 95 // 100) - 1, 0)]


def history(url: str, rows: int, rate: float, rounds: int) -> None:
    """A history with so many rows."""
    fill(url, rows)
    take_in(url)
    command = [sys.executable, __file__, "--writer", url, "--rate", str(rate)]
    with subprocess.Popen(command) as writer:
        time.sleep(5)
        query = Query(url)
        query.types()
        workers = _backends(url)
        try:
            measured(lambda text, sort: query.page(parse(text, time.time()), sort=sort), rounds, _told, lambda: workers)
        finally:
            query.close()
            writer.send_signal(signal.SIGTERM)


def _backends(url: str) -> list[int]:
    """PostgreSQL's processes for the pages, if they are on this machine."""
    if url.startswith("sqlite"):
        return []
    store = open_store(url)
    with store.transaction() as connection:
        found = connection.exec_driver_sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'flowerbed-flower'"
        )
        pids = [row[0] for row in found]
    store.close()
    return pids


def _told(page: Any) -> str:
    back = page.searched_back_to
    more = "" if back is None else f", looked back {(time.time() - back) / 3600:.1f} h"
    return f"{len(page.tasks)} of {page.matching:,}{'' if page.matching_exact else '+'}{more}"


def flower(tasks: int, rounds: int) -> None:
    """Flower's own search in memory."""
    from celery.events.state import Task
    from flower.events import EventsState
    from flower.utils.tasks import search_tasks

    state = EventsState(max_tasks_in_memory=tasks)
    for row in made_rows(tasks, time.time()):
        task = dict(zip(COLUMNS, row, strict=True))
        worker = state.get_or_create_worker(task["worker"] or "worker0@host0")[0]
        found = Task(
            uuid=task["id"], cluster_state=state, worker=worker, name=task["name"], state=task["state"],
            args=task["args"], kwargs=task["kwargs"], result=task["result"], exception=task["exception"],
            received=task["received"], started=task["started"], runtime=task["runtime_seconds"],
        )  # fmt: skip
        state.tasks[task["id"]] = found
        state.search_engine.upsert(found)
    events = type("Events", (), {"state": state})()

    def ask(text: str, sort: str) -> Any:
        if set(text.replace("until", "since").split(":")) & {"since", "queue", "exception"}:
            text = ""
        page = search_tasks(
            events, search=text, sort_by=sort.removesuffix("_seconds"), descending=True, offset=0, limit=25
        )
        return page, [state.tasks[uuid].as_dict() for uuid in page.task_ids]

    measured(ask, rounds, lambda found: f"{len(found[1])} of {found[0].filtered_count:,}")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rate", type=float, default=5000.0, help="events a second")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--directory", type=Path, help="where the databases are, and are left")
    parser.add_argument("--postgresql", help="URL of a database that may be filled")
    parser.add_argument("--writer", help=argparse.SUPPRESS)
    parser.add_argument("kinds", nargs="*", help="sqlite, postgresql, flower")
    chosen = parser.parse_args()
    if chosen.writer:
        write(chosen.writer, chosen.rate)
        return
    kinds = chosen.kinds or ["sqlite", "postgresql", "flower"]
    directory = chosen.directory or Path(tempfile.mkdtemp(prefix="flowerbed-pages-"))
    directory.mkdir(parents=True, exist_ok=True)
    # the index of words of PostgreSQL's history
    os.environ["STATE_DIRECTORY"] = str(directory)
    try:
        if "sqlite" in kinds:
            print(f"SQLite, {chosen.rows:,} tasks, {chosen.rate:.0f} events/s written:", flush=True)
            history(f"sqlite:///{directory.resolve()}/history.sqlite", chosen.rows, chosen.rate, chosen.rounds)
        if "postgresql" in kinds:
            print(f"PostgreSQL, {chosen.rows:,} tasks, {chosen.rate:.0f} events/s written:", flush=True)
            _postgresql(chosen)
        if "flower" in kinds:
            tasks = min(FLOWER_TASKS, chosen.rows)
            print(f"Flower alone, {tasks:,} tasks in memory, nothing written:", flush=True)
            flower(tasks, chosen.rounds)
    finally:
        if chosen.directory is None:
            shutil.rmtree(directory, ignore_errors=True)


def _postgresql(chosen: argparse.Namespace) -> None:
    if chosen.postgresql:
        history(chosen.postgresql, chosen.rows, chosen.rate, chosen.rounds)
        return
    from tests.history.conftest import Postgres

    server = Postgres(fsync=True)
    try:
        history(server.url(), chosen.rows, chosen.rate, chosen.rounds)
    finally:
        server.stop()
        shutil.rmtree(server.directory, ignore_errors=True)


if __name__ == "__main__":
    main()
