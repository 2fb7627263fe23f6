"""Real tasks on a real worker: from Redis through the decoder and the folder into both databases."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import select

from flowerbed.collector.tasks import Folder
from flowerbed.history.schema import COLUMNS, tasks
from flowerbed.history.store import open_store
from flowerbed.history.writer import Writer
from flowerbed.redact import Redactor
from flowerbed.settings import Redact
from tests.collector.events_support import Reading, Redis, application, worker


def test_every_way_a_task_can_end(url: str, tmp_path: Path) -> None:
    redis = Redis()
    celery = {"broker_url": redis.url}
    folder = Folder(Redactor(Redact(keys=["*password*"])))
    writer = Writer(url, batch_seconds=0.1)
    writer.start()
    try:
        app = application(celery)
        with Reading(celery) as reading, worker(tmp_path, celery, "-E"):
            reading.wait_connected()
            send: Any = app.send_task
            sent = {
                "added": send("shop.add", (1, 2), {"password": "hunter2"}),
                "failed": send("shop.fail", ("some text",)),
                "retried": send("shop.retry"),
                "rejected": send("shop.reject"),
                "expired": send("shop.add", (1, 2), expires=datetime.now(timezone.utc) - timedelta(seconds=10)),
                "later": send("shop.add", (3, 4), countdown=1),
                "sleeping": send("shop.sleep", (30,)),
            }
            reading.wait_type("task-started", sent["sleeping"].id)
            app.control.revoke(sent["sleeping"].id, terminate=True)
            for name, kind in (("sleeping", "revoked"), ("retried", "failed"), ("later", "succeeded")):
                reading.wait_type(f"task-{kind}", sent[name].id)
            for event in reading.events:
                if change := folder.fold(event, time.time()):
                    writer.put(change.record)
        assert writer.stop() == 0
    finally:
        redis.kill()
        writer.stop(1)
    store = open_store(url)
    with store.transaction() as connection:
        rows = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in connection.execute(select(tasks))}
    store.close()
    found = {name: rows[result.id] for name, result in sent.items()}
    assert {name: row["state"] for name, row in found.items()} == {
        "added": "SUCCESS",
        "failed": "FAILURE",
        "retried": "FAILURE",
        "rejected": "REJECTED",
        "expired": "REVOKED",
        "later": "SUCCESS",
        "sleeping": "REVOKED",
    }
    assert {row["queue"] for row in found.values()} == {"celery"}
    assert {row["worker"] for row in found.values()} == {"w1@test"}
    added = found["added"]
    assert (added["name"], added["args"], added["result"]) == ("shop.add", "(1, 2)", "3")
    assert "hunter2" not in added["kwargs"]
    assert added["sent"] <= added["received"] <= added["started"] <= added["succeeded"] == added["finished"]
    assert found["failed"]["exception"] == "ValueError('some text')"
    assert "Traceback" in found["failed"]["traceback"]
    assert found["retried"]["retries"] == 2
    assert found["later"]["wait_seconds"] >= 1
    assert found["later"]["eta"]
    assert not any(row["lost"] for row in found.values())
