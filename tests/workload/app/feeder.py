"""Sends work: a bunch at the start, then a steady trickle, so that there is always something to look at."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from celery.result import AsyncResult
from workload import compress, count_words, hash_file, hash_tree, reach, report

PAUSE = 2.0  # seconds between two tasks of the trickle
BUNCH = 40  # tasks sent at the start
CLOSED_PORT = 9  # "discard": nobody listens there


def readable(folder: str, pattern: str) -> list[str]:
    """Files of a folder that are there now and have something in them."""
    return [str(path) for path in sorted(Path(folder).rglob(pattern)) if path.is_file() and path.stat().st_size]


LICENCES = readable("/usr/share/common-licenses", "*")
PROGRAMS = readable("/usr/bin", "*")

JOBS: list[tuple[int, Callable[[], AsyncResult[object]]]] = [
    (6, lambda: hash_file.delay(random.choice(PROGRAMS))),
    (6, lambda: compress.delay(random.choice(PROGRAMS))),
    (6, lambda: count_words.delay(random.choice(LICENCES))),
    (1, lambda: hash_tree.delay("/usr/lib/python3", random.uniform(4, 12))),
    (1, lambda: hash_file.delay("/srv/reports/not-there.csv")),  # fails: no such file
    (1, lambda: hash_file.delay("/etc/shadow")),  # fails: not readable to this user
    (2, lambda: report.delay("/usr/share/doc")),  # retries while another one holds the lock
    (2, lambda: reach.delay(CLOSED_PORT)),  # retries, and fails in the end
    (1, lambda: reach.delay(6379)),
]


def main() -> None:
    """Send the bunch, then go on until stopped."""
    weights = [weight for weight, _ in JOBS]
    jobs = [job for _, job in JOBS]
    for job in jobs + random.choices(jobs, weights, k=BUNCH - len(jobs)):
        job()
    while True:
        time.sleep(PAUSE)
        random.choices(jobs, weights)[0]()


if __name__ == "__main__":
    main()
