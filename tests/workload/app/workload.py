"""A small Celery application with honest work: it hashes, compresses and counts the files of a Debian host.

The broker's URL is read from a systemd credential, so it is in no command line and in no environment.
Some tasks fail and some retry, for real reasons: a file that is not there, a file that only root may read,
a port where nobody listens, a lock that somebody else holds.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

from celery import Celery, Task
from kombu import Queue

CHUNK = 1 << 20  # bytes read at once
STATE = Path(os.environ.get("STATE_DIRECTORY", "/tmp"))


def broker_url() -> str:
    """The broker's URL from the credential that systemd handed to this service."""
    return Path(os.environ["CREDENTIALS_DIRECTORY"], "broker_url").read_text(encoding="utf-8").strip()


app = Celery("workload", broker=broker_url())
app.conf.update(
    task_default_queue="default",
    task_queues=[Queue(name) for name in ("default", "hashing", "compression", "reports")],
    task_routes={
        "workload.hash_*": {"queue": "hashing"},
        "workload.compress": {"queue": "compression"},
        "workload.report": {"queue": "reports"},
        "workload.reach": {"queue": "reports"},
    },
    task_ignore_result=True,
    task_track_started=True,
    task_send_sent_event=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task(name="workload.hash_file")
def hash_file(path: str, algorithm: str = "sha256") -> str:
    """Hash one file. Fails where the file is missing or may not be read."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@app.task(name="workload.hash_tree")
def hash_tree(folder: str, seconds: float = 10.0) -> dict[str, Any]:
    """Hash a folder's files over and over for `seconds`: the slow one, which computes half the time."""
    digest = hashlib.sha256()
    files = [file for file in sorted(Path(folder).rglob("*")) if file.is_file() and not file.is_symlink()]
    if not files:
        raise FileNotFoundError(f"no file to hash in {folder}")
    done = 0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        busy = time.monotonic()
        with files[done % len(files)].open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        done += 1
        time.sleep(max(0.01, time.monotonic() - busy))  # leave the other half to whoever shares this machine
    return {"files": done, "sha256": digest.hexdigest()}


@app.task(name="workload.compress")
def compress(path: str) -> dict[str, Any]:
    """Compress a file with gzip into the service's state directory and say what was gained."""
    source = Path(path)
    target = STATE / f"{hashlib.sha256(path.encode()).hexdigest()[:16]}.gz"
    with source.open("rb") as reader, gzip.open(target, "wb") as writer:
        while chunk := reader.read(CHUNK):
            writer.write(chunk)
    before, after = source.stat().st_size, target.stat().st_size
    return {"bytes": before, "compressed": after, "ratio": round(before / after, 2) if after else None}


@app.task(name="workload.count_words")
def count_words(path: str, top: int = 5) -> dict[str, int]:
    """The most frequent words of a text."""
    text = Path(path).read_text(encoding="utf-8")
    return dict(Counter(re.findall(r"[a-z]{4,}", text.lower())).most_common(top))


@app.task(name="workload.reach", bind=True, max_retries=2)
def reach(self: Task[Any, Any], port: int, wait: int = 25) -> str:
    """Connect to a port of this host, and try again later where nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return f"port {port} answers"
    except OSError as error:
        raise self.retry(exc=error, countdown=wait) from error


@app.task(name="workload.report", bind=True, max_retries=20)
def report(self: Task[Any, Any], folder: str) -> dict[str, int]:
    """Count a folder's files by suffix. Only one report is written at a time: who finds the lock taken comes again."""
    lock = STATE / "report.lock"
    try:
        lock.touch(exist_ok=False)
    except FileExistsError as error:
        if time.time() - lock.stat().st_mtime > 60:
            lock.unlink(missing_ok=True)  # left behind by a worker that was killed
        raise self.retry(exc=error, countdown=15) from error
    try:
        suffixes = Counter(file.suffix or "none" for file in Path(folder).rglob("*") if file.is_file())
        time.sleep(3)  # seconds that the report's writer holds the lock
        return dict(suffixes.most_common(10))
    finally:
        lock.unlink(missing_ok=True)
