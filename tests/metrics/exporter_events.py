"""The same events for celery-exporter and for us; `python exporter_events.py` records what the exporter makes of them.

Run that with the Python of an environment that has `prometheus-exporter-celery==0.11.2`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("celery-exporter-0.11.2.txt")
NOW = 1_700_000_000.0


def events() -> list[dict[str, Any]]:
    """Four tasks: one that succeeds, one that fails, one retried, revoked and one without task-sent."""
    made: list[dict[str, Any]] = []

    def add(kind: str, uuid: str, host: str, **more: Any) -> None:
        stamp = NOW + len(made)
        made.append({
            "type": f"task-{kind}", "uuid": uuid, "hostname": host, "timestamp": stamp, "local_received": stamp,
            "clock": len(made), "utcoffset": 0, "pid": 1, **more,
        })  # fmt: skip

    def begin(uuid: str, name: str, queue: str | None, host: str) -> None:
        described = {"name": name, "args": "()", "kwargs": "{}", "retries": 0, "eta": None, "expires": None}
        if queue:
            add("sent", uuid, "gen7@web1", **described, queue=queue, exchange="", routing_key=queue)
        add("received", uuid, host, **described)

    begin("1", "shop.add", "orders", "w1@host1")
    add("started", "1", "w1@host1")
    add("succeeded", "1", "w1@host1", result="3", runtime=0.3)
    begin("2", "shop.fail", "orders", "w2@host1")
    add("started", "2", "w2@host1")
    add("failed", "2", "w2@host1", exception="ValueError('no')", traceback="…")
    begin("3", 'shop."odd\\name"', "mail", "w1@host2")
    add("started", "3", "w1@host2")
    add("retried", "3", "w1@host2", exception="OSError('not yet')", traceback="…")
    begin("4", "shop.add", None, "w1@host2")
    add("revoked", "4", "w1@host2", terminated=False, signum=None, expired=True)
    begin("5", "shop.add", "orders", "w1@host1")
    add("started", "5", "w1@host1")
    add("succeeded", "5", "w1@host1", result="3", runtime=42.0)
    begin("6", "shop.add", "orders", "w1@host1")
    add("rejected", "6", "w1@host1", requeue=False)
    return made


def heartbeats() -> list[dict[str, Any]]:
    """One worker on each of two hosts."""
    common = {"freq": 2.0, "loadavg": [0.1, 0.1, 0.1], "clock": 1, "utcoffset": 0, "pid": 1}
    common |= {"sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux", "processed": 5}
    return [
        {"type": "worker-heartbeat", "hostname": host, "active": active, **common}
        for host, active in (("w1@host1", 3), ("w1@host2", 0))
    ]


def record() -> None:
    """Lets the exporter count, without a broker."""
    import time

    from celery import Celery
    from prometheus_client.exposition import generate_latest
    from src.exporter import Exporter  # type: ignore[import-not-found]

    exporter = Exporter()
    exporter.state = Celery().events.State()
    for event in events():
        exporter.track_task_event(event)
    for event in heartbeats():
        exporter.track_worker_heartbeat({**event, "timestamp": time.time(), "local_received": time.time()})
    for family in ("length", "active_consumer_count", "active_worker_count", "active_process_count"):
        name = "celery_queue_length" if family == "length" else f"celery_{family}"
        getattr(exporter, name).labels(queue_name="orders").set(4)
    text = generate_latest(exporter.registry).decode()
    kept = [line for line in text.splitlines() if "_created" not in line]
    RECORDED.write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    sys.exit(record())
