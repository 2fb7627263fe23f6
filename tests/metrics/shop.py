"""The application of the live tests: a worker runs it, and what it does is told by the names of its tasks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

app = Celery("shop", set_as_current=False)
app.conf.update(json.loads(Path(os.environ["SETTINGS"]).read_text()))


class OddError(Exception):
    """Its repr() is nothing that anybody could read a class from."""

    def __repr__(self) -> str:
        return "None"


@app.task(name="shop.add")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="shop.fail")
def fail(text: str) -> None:
    raise ValueError(text)


@app.task(name="shop.fail_far_away")
def fail_far_away() -> None:
    raise OperationalError("kombu's own")


@app.task(name="shop.fail_oddly")
def fail_oddly() -> None:
    raise OddError


@app.task(name="shop.retry", bind=True, max_retries=2)
def retry(self: Any) -> None:
    raise self.retry(exc=OSError("not yet"), countdown=0.1)


@app.task(name="shop.reject", acks_late=True)
def reject() -> None:
    raise Reject("no", requeue=False)


@app.task(name="shop.sleep")
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@app.task(name="report.slow")
def slow(seconds: float) -> None:
    time.sleep(seconds)


@app.task(name="shop.progress", bind=True)
def progress(self: Any) -> None:
    self.send_event("task-progress", done=0.5)


@app.task(name="shop.late")
def late() -> None:
    raise AssertionError("it was revoked")
